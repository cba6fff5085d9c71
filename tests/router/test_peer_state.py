"""What this node tells paired computers about itself: at once, to those who may know, and goodbye at the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import pytest

import router.peer_state
from router.node import Node
from router.wire_snapshot import read_snapshot
from tests.fakes import HANG, ScriptedEngine, chunk, head, stream
from tests.router.conftest import MakeNode
from tests.router.web.peer_kit import ASK, LAPTOP, Site, Stream, surface_of


@pytest.fixture
async def node(make_node: MakeNode, engine: ScriptedEngine) -> Node:
    return await make_node(engine, share=True, name="studio")


@pytest.fixture
async def site(node: Node) -> AsyncIterator[Site]:
    async with surface_of(node) as made:
        yield made


async def when(states: Stream, **wanted: object) -> dict[str, object]:
    """The next state with these values."""
    while True:
        event = await states.next()
        if event.kind in ("snapshot", "change"):
            told: dict[str, object] = event.json
            if all(told[name] == value for name, value in wanted.items()):
                return told


async def test_the_first_event_is_a_whole_snapshot_that_the_other_side_can_read(site: Site) -> None:
    async with site.state() as states:
        first = await states.next()
    assert first.kind == "snapshot"
    told = read_snapshot(first.data.encode(), site.id)
    assert (told.name, told.mode, told.protocol) == ("studio", "running", 1)
    assert [(model.name, model.engine_kind) for model in told.models] == [("m", "openai")]
    assert (told.in_flight, told.waiting) == (0, 0)
    assert told.width >= 1


async def test_a_job_that_runs_is_told(site: Site, engine: ScriptedEngine) -> None:
    engine.play(head(), chunk("a"), HANG)
    async with site.state() as states:
        await states.next()
        async with site.run():
            await when(states, in_flight=1)
        await when(states, in_flight=0)


async def test_pause_and_drain_are_told_at_once(site: Site) -> None:
    async with site.state() as states:
        await states.next()
        async with asyncio.timeout(1):
            site.node.pause()
            await when(states, mode="paused")
            site.node.drain()
            await when(states, mode="drained")
            site.node.resume()
            await when(states, mode="running")


async def test_one_that_may_not_use_models_hears_of_none(site: Site) -> None:
    await site.trust.grant(LAPTOP, may_use=False)
    async with site.state() as states:
        assert (await states.next()).json["models"] == []
        await site.trust.grant(LAPTOP, may_use=True)
        assert len((await states.next()).json["models"]) == 1
        await site.trust.grant(LAPTOP, may_use=False)
        assert (await states.next()).json["models"] == []


async def test_whether_models_are_shared_at_all_and_with_whom_is_told(site: Site) -> None:
    async with site.state() as states:
        told = (await states.next()).json
        assert (told["shared"], told["granted"]) == (True, True)
        await site.trust.grant(LAPTOP, may_use=False)
        told = (await states.next()).json
        assert (told["shared"], told["granted"]) == (True, False)


async def test_with_sharing_off_no_models_are_told(make_node: MakeNode, engine: ScriptedEngine) -> None:
    node = await make_node(engine)
    async with surface_of(node) as site, site.state() as states:
        told = (await states.next()).json
        assert (told["models"], told["shared"], told["granted"]) == ([], False, True)
        node.settings.update({"share": True})
        while not (await states.next()).json["models"]:
            pass
        node.settings.update({"share": False})
        while (await states.next()).json["models"]:
            pass


async def test_nothing_new_is_a_beat(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router.peer_state, "BEAT_S", 0.02)
    async with site.state() as states:
        while (await states.next()).data != "beat":
            pass


def test_beats_are_what_the_registry_expects() -> None:
    assert router.peer_state.BEAT_S == 5.0


async def test_many_changes_are_told_as_the_newest_state(site: Site) -> None:
    async with site.state() as states:
        await states.next()
        for _ in range(50):
            site.node.pause()
            site.node.resume()
        site.node.drain()
        told = await when(states, mode="drained")
        assert told["node_id"] == site.id
        assert len(states.raw.split(b"event: change")) < 10


async def test_goodbye_is_said_within_100_ms_of_the_stop(site: Site) -> None:
    async with site.state() as states:
        await states.next()
        stopping = asyncio.ensure_future(site.surface.stop())
        async with asyncio.timeout(0.1):
            await states.until("goodbye")
        await stopping
    assert site.surface.port == 0


async def test_goodbye_before_sleep_leaves_the_port_open(site: Site) -> None:
    async with site.state() as states:
        await states.next()
        await site.surface.goodbye()
        assert (await states.rest())[-1].kind == "goodbye"
    async with site.state() as states:
        assert (await states.next()).kind == "snapshot"


async def test_streams_that_end_are_forgotten(site: Site) -> None:
    async with site.state() as states:
        await states.next()
        assert len(site.surface.feed) == 1
    async with site.state() as again:
        await again.next()
        async with asyncio.timeout(5):
            await site.surface.goodbye()
    assert len(site.surface.feed) == 0


async def test_of_one_peer_that_follows_too_often_the_oldest_stream_gives_way(site: Site) -> None:
    """One that changed its address leaves streams behind that nobody ends: they must not keep it out."""
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(site.state()) for _ in range(router.peer_state.STREAMS_A_PEER)]
        for states in streams:
            await states.next()
        newest = await stack.enter_async_context(site.state())
        assert (await newest.next()).kind == "snapshot"
        with pytest.raises(aiohttp.ClientError):
            await streams[0].until("goodbye")
        assert len(site.surface.feed) == router.peer_state.STREAMS_A_PEER
        site.node.pause()
        for states in (*streams[1:], newest):
            await when(states, mode="paused")


async def test_speeds_that_were_measured_are_told(site: Site, engine: ScriptedEngine) -> None:
    timings = {"prompt_n": 9, "prompt_per_second": 100.0, "predicted_n": 2, "predicted_per_second": 20.0}
    last = chunk(finish="stop", timings=timings)
    engine.play(head() + stream("a").partition(chunk(finish="stop"))[0] + last + b"data: [DONE]\n\n")
    async with site.run() as answer:
        await answer.rest()
    async with site.state() as states:
        [model] = (await states.next()).json["models"]
    assert (model["prefill_per_s"], model["tokens_per_s"]) == (100.0, 20.0)


async def test_no_prompt_and_no_path_is_told(site: Site, engine: ScriptedEngine) -> None:
    engine.play(HANG)
    async with site.state() as states, site.run():
        told = await when(states, in_flight=1)
    text = json.dumps(told)
    assert ASK["messages"][0]["content"] not in text  # type: ignore[index]
    assert engine.url not in text
    assert str(site.node._dir) not in text
