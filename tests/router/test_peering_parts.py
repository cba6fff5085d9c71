"""Two real nodes on this computer's own addresses: paired, one asks the other, over TLS and without mDNS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from router.errors import QuorumError
from router.node import Node
from router.settings import NodeOptions, Value
from router.states import PeerState
from router.web.network import lan_addresses
from router.wire_peers import JoinPairing, PairingAnswer, PeerInfo, PeerPatch
from tests.fakes import BOUND_S, HANG, ScriptedEngine, chunk, happens, head, stream

MakeNode = Callable[..., Awaitable[Node]]
BODY = {"model": "llama", "messages": [{"role": "user", "content": "hello"}], "stream": True}


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[MakeNode]:
    """Start nodes by name; all are stopped afterwards."""
    if not lan_addresses():
        pytest.skip("this computer has no address in a network")
    nodes: list[Node] = []

    async def start(name: str, *engines: ScriptedEngine, **settings: Value) -> Node:
        given: dict[str, Value] = {"port": 0, "peer_port": 0, "builtin_engine": False, "find_models": False}
        given |= {"name": name, "engines": ",".join(engine.url for engine in engines) or "http://127.0.0.1:9/v1"}
        node = Node(NodeOptions(tmp_path / name, given | settings, discovery=False, log_level="warning"))
        await node.start()
        nodes.append(node)
        await node.ready()
        return node

    yield start
    await asyncio.gather(*(node.stop() for node in nodes))


async def until(node: Node, holds: Callable[[], bool]) -> None:
    """Look each time the node tells its pages something."""
    async with asyncio.timeout(BOUND_S):
        with node._bus.queue() as queue:
            while not holds():
                await queue.get()


async def pair(one: Node, other: Node) -> None:
    """``other`` shows the digits and accepts; ``one`` types them."""
    opened = await other._peers.open_pairing()
    joining = asyncio.ensure_future(one._peers.join(JoinPairing(code=opened.code, address=opened.addresses[0])))
    await until(other, lambda: other._peers.pairing().state == "asking" or joining.done())
    if not joining.done():
        other._peers.answer(PairingAnswer(accept=True))
    await joining


def known(node: Node) -> PeerInfo:
    return node._peers.infos()[0]


async def reach(node: Node, state: PeerState = PeerState.HEALTHY) -> PeerInfo:
    await until(node, lambda: bool(node._peers.infos()) and known(node).state is state)
    return known(node)


async def ask(node: Node, body: dict[str, Any] = BODY) -> tuple[int, str, dict[str, str]]:
    async with (
        aiohttp.ClientSession(trust_env=False) as http,
        http.post(f"{node.address}/v1/chat/completions", json=body) as reply,
    ):
        return reply.status, await reply.text(), dict(reply.headers)


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine("llama") as scripted:
        scripted.play(head(), stream("from", " there"))
        yield scripted


async def test_a_paired_computer_answers_for_the_model_it_has(make: MakeNode, engine: ScriptedEngine) -> None:
    here, there = await asyncio.gather(make("laptop"), make("studio", engine))
    await pair(here, there)
    studio = await reach(here)
    await until(here, lambda: known(here).models == ["llama"])
    status, text, headers = await ask(here)

    assert (status, " there" in text, text.endswith("data: [DONE]\n\n")) == (200, True, True), text
    assert headers["X-Quorum-Node"] == studio.id
    assert headers["X-Quorum-Reason"] in ("peer-warm", "peer-cold")
    assert (studio.name, studio.paired, studio.may_use) == ("studio", True, True)
    assert [model.node_name for model in here._registry.model_infos()] == ["studio"]
    assert here.info().models == 0


async def test_what_was_paired_is_reached_again_after_a_restart(
    make: MakeNode, engine: ScriptedEngine, tmp_path: Path
) -> None:
    here, there = await asyncio.gather(make("laptop"), make("studio", engine))
    await pair(here, there)
    await reach(here)
    await here.stop()
    again = await make("laptop")
    assert (await reach(again)).name == "studio"


async def test_a_model_whose_computer_is_away_is_known_after_a_restart_and_gone_once_it_is_unpaired(
    make: MakeNode, engine: ScriptedEngine
) -> None:
    here, there = await asyncio.gather(make("laptop"), make("studio", engine))
    await pair(here, there)
    await until(here, lambda: bool(here._peers.infos()) and known(here).models == ["llama"])
    await asyncio.gather(here.stop(), there.stop())
    here = await make("laptop")
    await until(here, lambda: bool(here._registry.model_infos()))
    status, text, _ = await ask(here)
    assert (status, "no_holder_available" in text) == (503, True), text
    [model] = here._registry.model_infos()
    assert (model.name, model.node_name, model.residency) == ("llama", "studio", "cold")
    assert model.problem

    await here._peers.unpair(known(here).id)
    assert (await ask(here))[0] == 404
    await here.stop()
    here = await make("laptop")
    assert (await ask(here))[0] == 404


async def test_the_name_and_the_use_that_the_owner_gave_a_computer_survive_every_restart(
    make: MakeNode, engine: ScriptedEngine
) -> None:
    here, there = await asyncio.gather(make("laptop"), make("studio", engine))
    await pair(here, there)
    await until(here, lambda: bool(here._peers.infos()) and known(here).models == ["llama"])
    changed = await here._peers.patch(known(here).id, PeerPatch(own_name=" Big box ", send=False))
    assert (changed.name, changed.own_name, changed.send) == ("Big box", "Big box", False)
    assert [model.node_name for model in here._registry.model_infos()] == ["Big box"]
    status, text, _ = await ask(here)
    assert (status, "You send it no work." in text) == (503, True), text

    port = there._peering.port
    await asyncio.gather(here.stop(), there.stop())
    here, there = await asyncio.gather(make("laptop"), make("studio", engine, peer_port=port))
    studio = await reach(here)
    assert (studio.name, studio.send) == ("Big box", False)
    await until(here, lambda: known(here).models == ["llama"])
    assert (await ask(here))[0] == 503

    changed = await here._peers.patch(studio.id, PeerPatch(own_name="", send=True))
    assert (changed.name, changed.own_name, changed.send) == ("studio", "", True)
    assert (await ask(here))[0] == 200


async def test_a_grant_taken_back_hides_the_models_and_giving_it_again_shows_them(
    make: MakeNode, engine: ScriptedEngine
) -> None:
    here, there = await asyncio.gather(make("laptop"), make("studio", engine))
    await pair(here, there)
    await until(here, lambda: bool(here._peers.infos()) and known(here).models == ["llama"])
    await there._peers.patch(known(there).id, PeerPatch(may_use=False))
    await until(here, lambda: known(here).models == [])
    assert (await ask(here))[0] == 404
    await there._peers.patch(known(there).id, PeerPatch(may_use=True))
    await until(here, lambda: known(here).models == ["llama"])
    assert (await ask(here))[0] == 200


async def test_unpairing_cuts_what_runs_and_refuses_what_follows(make: MakeNode) -> None:
    async with ScriptedEngine("llama") as engine:
        engine.play(head(), chunk(role=True), chunk("half"), HANG)
        here, there = await asyncio.gather(make("laptop"), make("studio", engine))
        await pair(here, there)
        await until(here, lambda: bool(here._peers.infos()) and known(here).models == ["llama"])
        async with (
            aiohttp.ClientSession(trust_env=False) as http,
            http.post(f"{here.address}/v1/chat/completions", json=BODY) as reply,
        ):
            text = await reply.content.readuntil(b"half")
            await there._peers.unpair(known(there).id)
            text += await reply.content.read()
        assert b'"interrupted"' in text
        assert b"[DONE]" not in text
        asked = await engine.request()
        await happens(asked.gone)
        assert there._peers.infos() == []
        assert (await ask(here))[0] >= 400
        assert len(engine.asked) == 1


async def test_a_pause_there_is_known_here(make: MakeNode, engine: ScriptedEngine) -> None:
    here, there = await asyncio.gather(make("laptop"), make("studio", engine))
    await pair(here, there)
    await until(here, lambda: bool(here._peers.infos()) and known(here).models == ["llama"])
    there.pause()
    await until(here, lambda: "pause" in known(here).reason.lower() or known(here).state is PeerState.DRAINING)
    assert not engine.asked


async def test_the_desktop_hears_of_other_computers(make: MakeNode, engine: ScriptedEngine) -> None:
    here, there = await asyncio.gather(make("laptop"), make("studio", engine))
    told: asyncio.Queue[list[PeerInfo]] = asyncio.Queue()
    here.on_peers = told.put_nowait
    await pair(here, there)
    async with asyncio.timeout(BOUND_S):
        while [(one.name, one.state, one.models) for one in await told.get()] != [
            ("studio", PeerState.HEALTHY, ["llama"])
        ]:
            pass


async def test_a_computer_is_not_paired_with_itself(make: MakeNode) -> None:
    here = await make("laptop")
    opened = await here._peers.open_pairing()
    with pytest.raises(QuorumError, match="itself"):
        await here._peers.join(JoinPairing(code=opened.code, address=opened.addresses[0]))
