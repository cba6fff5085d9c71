"""Two real nodes in one process, paired with six digits: what one asks of the other over TLS, as a client sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from router.identity import load_identity
from router.keychain import Keychain
from router.node import Node
from router.pairing import Answer, PairingAsk, join
from router.peer_link import PeerLink
from router.peer_tls import client_session
from router.states import PeerState
from router.trust import Trust
from tests.fakes import BOUND_S, DONE, HANG, ScriptedEngine, chunk, happens, head, stream, whole
from tests.router.conftest import MakeNode
from tests.router.peer_kit import no_keyring
from tests.router.web.peer_kit import Site, surface_of

ASK = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@dataclass
class Two:
    """The laptop asks, the studio holds the model ``m``."""

    laptop: Node
    studio: Site
    link: PeerLink
    moved: asyncio.Event
    http: aiohttp.ClientSession

    async def until(self, state: PeerState, *, models: int | None = None) -> None:
        """Wait until the laptop sees the studio so."""
        async with asyncio.timeout(BOUND_S):
            while self.link.state is not state or (models is not None and len(self.held()) != models):
                self.moved.clear()
                await self.moved.wait()

    def held(self) -> tuple[Any, ...]:
        return self.laptop._registry.snapshots[self.link.engine.id].models

    def ask(self, **more: Any) -> Any:
        return self.http.post(f"{self.laptop.address}/v1/chat/completions", json=ASK | more)


@pytest.fixture
async def two(make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession) -> AsyncIterator[Two]:
    studio = await make_node(engine, data="studio", share=True, name="studio", concurrency=8)
    laptop = await make_node(data="laptop", name="laptop", max_attempts=1)

    async def accept(ask: PairingAsk) -> Answer:
        return Answer(accept=True, may_use=True)

    identity = load_identity(laptop._dir)
    trust = Trust(laptop._store, identity, laptop._dir, laptop._clock, Keychain(laptop._dir, "laptop", no_keyring))
    await trust.open()
    async with surface_of(studio, paired=False) as site, client_session() as session:
        code = site.desk.open(accept).code
        peer = await join("127.0.0.1", site.port, code, identity, trust, ("laptop", [], 7412), may_use=False)
        moved = asyncio.Event()
        link = PeerLink(
            peer,
            own_id=identity.node_id,
            session=session,
            registry=laptop._registry,
            tasks=laptop._tasks,
            clock=laptop._clock,
            changed=moved.set,
        )
        made = Two(laptop, site, link, moved, http)
        await link.start()
        await made.until(PeerState.HEALTHY, models=1)
        yield made
        await link.stop()


async def test_a_model_that_only_the_other_one_holds_answers_and_its_name_is_told(
    two: Two, engine: ScriptedEngine
) -> None:
    sent = stream("Hel", "lo", usage={"prompt_tokens": 3, "completion_tokens": 2})
    engine.play(head() + sent)
    async with two.ask(stream=True) as answer:
        assert answer.status == 200
        assert await answer.read() == sent
        assert answer.headers["X-Quorum-Node"] == two.studio.id
        assert answer.headers["X-Quorum-Reason"].startswith("peer-")
    assert json.loads(engine.asked[0].body)["messages"] == ASK["messages"]


async def test_a_whole_answer_comes_back_as_it_is(two: Two, engine: ScriptedEngine) -> None:
    body = b'{"choices": [{"message": {"role": "assistant", "content": "hi"}}],\n "usage": {"prompt_tokens": 3}}'
    engine.play(whole(body))
    async with two.ask() as answer:
        assert (answer.status, json.loads(await answer.read())) == (200, json.loads(body))


async def test_what_the_engine_there_rejects_is_rejected_here(two: Two, engine: ScriptedEngine) -> None:
    engine.play(whole(b'{"error": {"message": "too long"}}', 400))
    async with two.ask(stream=True) as answer:
        assert answer.status == 400
        assert "too long" in await answer.text()
    assert len(engine.asked) == 1


async def test_a_break_there_after_the_first_content_is_an_interruption_here(two: Two, engine: ScriptedEngine) -> None:
    engine.play(head() + chunk("Hel"))
    async with two.ask(stream=True) as answer:
        text = await answer.text()
    assert "Hel" in text
    assert "interrupted" in text
    assert "[DONE]" not in text
    assert len(engine.asked) == 1


async def test_a_client_that_leaves_ends_the_generation_over_there(two: Two, engine: ScriptedEngine) -> None:
    engine.play(head(), chunk("a"), HANG)
    async with two.ask(stream=True) as answer:
        await answer.content.readany()
        answer.close()
        await happens((await engine.request()).gone, 1.0)


async def test_eight_at_once_each_get_their_own_answer(two: Two, engine: ScriptedEngine) -> None:
    for number in range(8):
        engine.play(head() + stream(f"w{number}"))

    async def one() -> str:
        async with two.ask(stream=True) as answer:
            return str(await answer.text())

    got = await asyncio.gather(*(one() for _ in range(8)))
    assert all(text.endswith(DONE.decode()) for text in got)
    assert sorted(next(f"w{n}" for n in range(8) if f'"w{n}"' in text) for text in got) == [f"w{n}" for n in range(8)]


async def test_pause_there_is_known_here_and_resume_too(two: Two) -> None:
    two.studio.node.pause()
    await two.until(PeerState.DRAINING)
    two.studio.node.resume()
    await two.until(PeerState.HEALTHY)


async def test_a_stop_there_is_known_here_at_once(two: Two) -> None:
    stopping = asyncio.ensure_future(two.studio.surface.stop())
    async with asyncio.timeout(0.5):
        await two.until(PeerState.OFFLINE)
    await stopping


async def test_a_revocation_there_ends_what_runs_and_nothing_is_asked_again(two: Two, engine: ScriptedEngine) -> None:
    engine.play(head(), chunk("a"), HANG)
    async with two.ask(stream=True) as answer:
        await answer.content.readany()
        await two.studio.trust.revoke(two.laptop.info().id)
        assert "interrupted" in await answer.text()
    async with asyncio.timeout(BOUND_S):
        while two.laptop._registry.snapshots[two.link.engine.id].trusted:
            two.moved.clear()
            await two.moved.wait()
    async with two.ask() as answer:
        assert answer.status == 503
    assert len(engine.asked) == 1


async def test_a_grant_taken_away_takes_the_models_away(two: Two) -> None:
    await two.studio.trust.grant(two.laptop.info().id, may_use=False)
    await two.until(PeerState.HEALTHY, models=0)
    await two.studio.trust.grant(two.laptop.info().id, may_use=True)
    await two.until(PeerState.HEALTHY, models=1)
