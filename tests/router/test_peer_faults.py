"""What a client of this node sees when paired computers fail: real TLS, a real node, peers that do every wrong thing.

One complete answer from somebody else, each peer asked once, each limit paid once; after the first word an honest end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from router.engines import peer as peer_module
from router.node import Node
from router.peer_client import CONNECT_S
from router.peer_link import PeerLink
from router.peer_tls import client_session
from router.rounds import HOLDER_LOOK_S
from router.states import PeerState
from tests.fakes import BOUND_S, DONE, ScriptedEngine, chunk, head, stream
from tests.fakes_peer import RECEIPT, LivePeer, Script, Talk, told
from tests.router.conftest import MakeNode
from tests.router.engines.test_peer import BAD, LATE

ACCEPT_S, QUIET_FIRST_S, QUIET_S = 0.4, 0.5, 0.6
ASK_S = HOLDER_LOOK_S + BOUND_S
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def says_who(name: str) -> Script:
    """An honest answer in whatever form was asked for, that says who gave it."""

    async def script(talk: Talk) -> None:
        await talk.begin()
        if talk.asked.json["stream"]:
            await talk.say(chunk(role=True), chunk(name), chunk(finish="stop"))
        else:
            await talk.say(told("body", {"choices": [{"message": {"role": "assistant", "content": name}}]}))
        await talk.say(told("facts", RECEIPT), DONE)
        await talk.end()

    return script


def status(code: int, name: str) -> Script:
    async def script(talk: Talk) -> None:
        await talk.refuse(code, name)

    return script


def late(*, streamed: bool) -> Script:
    """Half an answer, then the connection breaks."""

    async def script(talk: Talk) -> None:
        await talk.begin()
        if streamed:
            await talk.say(chunk(role=True), chunk("half"))
        talk.reset()

    return script


FAULTS: dict[str, Script] = {name: script for name, (script, _) in BAD.items() if name not in LATE} | {
    "401": status(401, "unauthorized"),
    "403": status(403, "forbidden"),
    "404": status(404, "model_not_found"),
    "409": status(409, "conflict"),
    "429": status(429, "queue_full"),
    "500": status(500, "internal"),
    "503": status(503, "paused"),
}


class House:
    """A laptop with its own engine, and the computers that it is paired with, tried in this order."""

    def __init__(self, node: Node, own: ScriptedEngine, peers: list[LivePeer], http: aiohttp.ClientSession) -> None:
        self.node = node
        self.own = own
        self.peers = peers
        self.http = http
        self.links: list[PeerLink] = []
        self.news = asyncio.Event()

    async def until_healthy(self) -> None:
        async with asyncio.timeout(BOUND_S):
            while any(link.state is not PeerState.HEALTHY for link in self.links):
                self.news.clear()
                await self.news.wait()

    async def ask(self, path: str = "/v1/chat/completions", **more: Any) -> tuple[int, bytes, dict[str, str]]:
        async with asyncio.timeout(ASK_S), self.http.post(f"{self.node.address}{path}", json=ASK | more) as answer:
            got = b""
            try:
                async for piece in answer.content.iter_any():
                    got += piece
            except aiohttp.ClientPayloadError:
                got += b"<cut>"
            return answer.status, got, dict(answer.headers)

    async def receipt(self, headers: dict[str, str]) -> dict[str, Any]:
        async with self.http.get(f"{self.node.address}/jobs/{headers['X-Quorum-Job']}") as answer:
            told: dict[str, Any] = (await answer.json())["receipt"]
            return told

    @property
    def asked(self) -> list[int]:
        """How often each was asked; this computer's engine is the last."""
        return [*(len(peer.runs()) for peer in self.peers), len(self.own.asked)]


@pytest.fixture
async def house(
    make_node: MakeNode,
    engine: ScriptedEngine,
    http: aiohttp.ClientSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[House]:
    for name, value in {"ACCEPT_S": ACCEPT_S, "QUIET_FIRST_S": QUIET_FIRST_S, "QUIET_S": QUIET_S}.items():
        monkeypatch.setattr(peer_module, name, value)
    engine.play(head() + stream("laptop"))
    node = await make_node(engine)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(client_session())
        peers = [await stack.enter_async_context(LivePeer(tmp_path / name, name)) for name in ("studio", "attic")]
        made = House(node, engine, peers, http)
        for rank, peer in enumerate(peers):
            peer.now = peer.snapshot("m", vram_free_bytes=2**30 * (9 - rank), width=8)
            peer.scripts["/peer/v1/run"] = says_who(peer.name)
            link = PeerLink(
                peer.peer,
                own_id=node.info().id,
                session=session,
                registry=node._registry,
                tasks=node._tasks,
                clock=node._clock,
                changed=made.news.set,
            )
            made.links.append(link)
            await link.start()
            stack.push_async_callback(link.stop)
        await made.until_healthy()
        yield made


# -- before the first word


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_bad_peer_costs_one_try_and_another_holder_gives_the_whole_answer(house: House, fault: str) -> None:
    studio, attic = house.peers
    studio.scripts["/peer/v1/run"] = FAULTS[fault]
    code, got, headers = await house.ask(stream=True)

    assert (code, got) == (200, chunk(role=True) + chunk("attic") + chunk(finish="stop") + DONE)
    assert house.asked == [1, 1, 0]
    receipt = await house.receipt(headers)
    assert headers["X-Quorum-Node"] == receipt["node"] == attic.node_id
    assert [(one["node"], one["result"] == "ok") for one in receipt["tries"]] == [
        (studio.node_id, False),
        (attic.node_id, True),
    ]
    # one try takes one limit at most: connecting and accepting have one together, silence after it has another
    assert receipt["tries"][0]["duration_s"] < ACCEPT_S + QUIET_FIRST_S + 0.5


@pytest.mark.parametrize("fault", ["resets", "hangs", "freezes after accepting", "a fake end at once", "503"])
async def test_a_whole_answer_comes_from_another_holder_too(house: House, fault: str) -> None:
    house.peers[0].scripts["/peer/v1/run"] = FAULTS[fault]
    code, got, _ = await house.ask()
    assert (code, json.loads(got)["choices"][0]["message"]["content"]) == (200, "attic")
    assert house.asked == [1, 1, 0]


async def test_a_peer_that_refuses_connections_costs_next_to_nothing(house: House) -> None:
    studio, attic = house.peers
    assert studio._server is not None
    studio._server.close()  # its state stream stays open
    code, got, headers = await house.ask(stream=True)
    assert (code, b'"attic"' in got) == (200, True)
    receipt = await house.receipt(headers)
    assert [one["node"] for one in receipt["tries"]] == [studio.node_id, attic.node_id]
    assert receipt["tries"][0]["duration_s"] < 0.25
    assert house.asked == [0, 1, 0]


@pytest.mark.parametrize("fault", ["resets", "hangs after headers", "500", "a fake end at once"])
async def test_when_all_peers_are_bad_this_computer_answers(house: House, fault: str) -> None:
    for peer in house.peers:
        peer.scripts["/peer/v1/run"] = FAULTS[fault]
    code, got, headers = await house.ask(stream=True)
    assert (code, b'"laptop"' in got, got.count(b"[DONE]")) == (200, True, 1)
    assert house.asked == [1, 1, 1]
    assert len({one["node"] for one in (await house.receipt(headers))["tries"]}) == 3


@pytest.mark.parametrize("fault", ["resets", "500", "503", "hangs"])
@pytest.mark.parametrize("at_once", [1, 8])
async def test_bad_peers_are_asked_no_more_often_than_the_budget_allows(house: House, fault: str, at_once: int) -> None:
    """Over all: at most 1.2 tries a request, and three."""
    requests = 48
    for peer in house.peers:
        peer.scripts["/peer/v1/run"] = FAULTS[fault]
    for _ in range(requests // at_once):
        for code, got, _ in await asyncio.gather(*(house.ask(stream=True) for _ in range(at_once))):
            assert (code, got.count(b'"laptop"'), got.count(b"[DONE]")) == (200, 1, 1)
    assert house.asked[-1] == requests
    assert sum(house.asked) <= 1.2 * requests + 3


async def test_a_hung_peer_costs_one_request_one_limit_and_then_nobody_until_its_trial(house: House) -> None:
    house.peers[0].scripts["/peer/v1/run"] = FAULTS["hangs"]
    for _ in range(5):
        code, got, _ = await house.ask(stream=True)
        assert (code, b'"attic"' in got) == (200, True)
    assert house.asked == [1, 5, 0]


def test_the_limits_that_are_shipped_add_up_to_what_is_promised() -> None:
    """2.5 s for a peer that is dead or frozen at the request, 3.5 s for one that freezes after it accepted at once."""
    shipped = _shipped("ACCEPT_S", "QUIET_FIRST_S", "QUIET_S")
    assert shipped == (2.0, 3.0, 8.0)
    assert CONNECT_S <= shipped[0] <= 2.5
    assert shipped[1] <= 3.5


def _shipped(*names: str) -> Iterable[float]:
    return tuple(getattr(peer_module, name) for name in names)


# -- after it: each dialect's honest end, and never a second generation

DIALECTS: dict[str, tuple[str, dict[str, Any], bytes]] = {
    "chat": ("/v1/chat/completions", {}, b'"code":"interrupted"'),
    "responses": ("/v1/responses", {"input": "hello", "messages": None}, b"interrupted"),
    "ollama chat": ("/api/chat", {}, b"broke off"),
    "ollama generate": ("/api/generate", {"prompt": "hello", "messages": None}, b"broke off"),
    "anthropic": ("/v1/messages", {"max_tokens": 9}, b"broke off"),
}
ENDS = (b"[DONE]", b'"done":true', b"message_stop", b"response.completed")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("fault", ["breaks", "freezes", "a fake end", "reports an error", "garbage"])
async def test_after_the_first_word_the_end_is_an_error_in_every_dialect(
    house: House, dialect: str, fault: str
) -> None:
    path, body, said = DIALECTS[dialect]
    house.peers[0].scripts["/peer/v1/run"] = _breaking(fault)
    given = {name: value for name, value in (ASK | body).items() if value is not None}
    url = f"{house.node.address}{path}"
    async with asyncio.timeout(BOUND_S), house.http.post(url, json=given | {"stream": True}) as answer:
        assert answer.status == 200
        got = await answer.read()

    assert got.count(b"half") >= 1
    assert said in got
    for end in ENDS:
        assert end not in got.replace(b'"done": true', b'"done":true')
    for name in (b"attic", b"laptop"):
        assert name not in got
    assert house.asked == [1, 0, 0]


def _breaking(fault: str) -> Script:
    async def script(talk: Talk) -> None:
        await talk.begin()
        await talk.say(chunk(role=True), chunk("half"))
        match fault:
            case "breaks":
                talk.reset()
            case "freezes":
                await talk.gone()
            case "a fake end":
                await talk.say(DONE)
                await talk.end()
            case "reports an error":
                error = {"code": "engine_failed", "message": "It crashed.", "hint": "", "status": 502}
                await talk.say(told("error", error))
                await talk.end()
            case "garbage":
                await talk.say(b"\x00\xff garbage\n\n")
                await talk.gone()

    return script


async def test_completions_end_like_that_too(house: House) -> None:
    house.peers[0].scripts["/peer/v1/run"] = _breaking("breaks")
    body = {"model": "m", "prompt": "hello", "stream": True}
    async with asyncio.timeout(BOUND_S), house.http.post(f"{house.node.address}/v1/completions", json=body) as answer:
        got = await answer.read()
    assert b'"code":"interrupted"' in got
    assert b"[DONE]" not in got
    assert house.asked == [1, 0, 0]


async def test_a_whole_answer_that_broke_off_is_no_answer_and_another_holder_gives_one(house: House) -> None:
    house.peers[0].scripts["/peer/v1/run"] = late(streamed=False)
    code, got, _ = await house.ask()
    assert (code, json.loads(got)["choices"][0]["message"]["content"]) == (200, "attic")


# -- what waits


@pytest.mark.parametrize("side", ["here", "there"])
async def test_a_request_that_only_a_computer_could_serve_that_was_unpaired_ends_soon(house: House, side: str) -> None:
    """No wait brings it back."""
    studio = house.peers[0]
    studio.now = studio.snapshot("rare")
    await studio.say.put(told("change", studio.now))
    standing = asyncio.Event()

    async def stands(talk: Talk) -> None:
        await talk.begin()
        await talk.say(told("state", {"state": "queued", "place": 1}))
        standing.set()
        await talk.gone()

    studio.scripts["/peer/v1/run"] = stands
    async with asyncio.timeout(BOUND_S):
        while not any(model.name == "rare" for model in house.node._registry.model_infos()):
            house.news.clear()
            await house.news.wait()
    waiting = asyncio.ensure_future(house.ask(model="rare", stream=True))
    async with asyncio.timeout(BOUND_S):
        await standing.wait()
    if side == "here":
        await house.links[0].stop()
    else:
        port = studio.port
        await studio.stop()
        studio.scripts = dict.fromkeys(studio.scripts, status(401, "unauthorized"))
        await studio.start(port=port)
    async with asyncio.timeout(ASK_S):
        code, got, _ = await waiting
    assert (b"model_not_found" if side == "here" else b"peer_failed") in got, (code, got)
    assert b"[DONE]" not in got
    assert house.asked[1:] == [0, 0]
