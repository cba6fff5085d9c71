"""Sleep and wake as two paired computers live through them: nothing fails by it, and nobody is held to have failed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from router.awake import Gap
from router.events import Bus
from router.health import Failure
from router.node import Node
from router.peering import Peering
from router.power import NoPower
from router.runner import JobMoved
from router.sleep import Sleep, take_back
from router.states import JobState, PeerState
from router.web.service import Service
from router.wire_peers import JoinPairing, PairingAnswer, PeerInfo
from tests.fakes import BOUND_S, HANG, FakeClock, MemoryEngine, ScriptedEngine, Wait, chunk, happens, head, stream
from tests.router.conftest import MakeNode
from tests.world import World

ASK = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


# -- one computer


class Others:
    """This node among others, as far as sleep is concerned."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.news = asyncio.Event()

    def _note(self, what: str) -> None:
        self.did.append(what)
        self.news.set()

    async def goodbye(self, *, asleep: bool = False) -> None:
        self._note("goodbye, asleep" if asleep else "goodbye")

    def back(self) -> None:
        self._note("back")

    def poke(self) -> None:
        self._note("poke")

    def line(self, node_id: str) -> None:
        return None

    async def until(self, *did: str) -> None:
        async with asyncio.timeout(BOUND_S):
            while self.did != list(did):
                self.news.clear()
                await self.news.wait()


class Bed:
    """``Sleep`` over a scheduler without a network; ``doze`` is a sleep that the clocks tell of."""

    def __init__(self) -> None:
        self.world = World()
        self.clock = FakeClock()
        self.slept = 0.0
        self.others = Others()
        self.power = NoPower("nobody tells")
        self.bus = Bus()
        self.quits = self.drops = 0
        service = SimpleNamespace(
            registry=self.world.registry,
            scheduler=self.world.scheduler,
            settings={"stay_awake": True},
            bus=self.bus,
            quit=self._quit,
        )
        self.sleep = Sleep(
            cast("Service", service),
            self.others,
            cast("Any", None),
            self.clock,
            self._drop,
            power=self.power,
            gap=Gap(self.clock, lambda: self.slept),
        )

    def _quit(self) -> bool:
        self.quits += 1
        return True

    def _drop(self) -> None:
        self.drops += 1

    def doze(self, seconds: float) -> None:
        self.slept += seconds
        self.clock.jump(seconds)


@pytest.fixture
async def bed() -> AsyncIterator[Bed]:
    made = Bed()
    yield made
    if made.sleep._stayed is not None:
        made.sleep._stayed.cancel()


async def test_a_sleep_that_only_the_clocks_tell_of_is_seen(bed: Bed) -> None:
    bed.sleep.look()
    bed.doze(3600)
    bed.sleep.look()
    await bed.others.until("back")
    assert bed.drops == 1
    bed.sleep.look()
    assert bed.others.did == ["back"]


async def test_the_first_job_after_a_sleep_notices_it_before_it_is_sent(bed: Bed) -> None:
    bed.doze(60)
    bed.bus.publish(JobMoved(bed.world.job(), None))
    assert bed.others.did == [], "not in the middle of the scheduler's own step"
    await asyncio.sleep(0)
    assert bed.others.did == ["back"]


async def test_ejections_end_with_a_sleep(bed: Bed) -> None:
    health = bed.world.registry.health
    health.failed("peer-x", "m", Failure.SILENT, "It said nothing.")
    assert health.ejected("peer-x", "m")
    bed.doze(60)
    bed.sleep.look()
    await bed.others.until("back")
    assert not health.ejected("peer-x", "m")


async def test_goodbyes_come_first_and_the_way_back_after_the_sleep(bed: Bed) -> None:
    await bed.sleep.sleeps()
    assert (bed.others.did, bed.sleep.asleep) == (["goodbye, asleep"], True)
    bed.doze(600)
    bed.sleep.woke()
    await bed.others.until("goodbye, asleep", "back")
    assert not bed.sleep.asleep


async def test_a_wake_that_is_told_twice_is_one(bed: Bed) -> None:
    await bed.sleep.sleeps()
    bed.doze(600)
    bed.sleep.look()
    await bed.others.until("goodbye, asleep", "back")
    bed.sleep.woke()
    bed.sleep.woke()
    bed.sleep.look()
    await asyncio.sleep(0)
    assert bed.others.did == ["goodbye, asleep", "back"]


async def test_a_sleep_that_does_not_come_ends_by_itself(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.sleep.STAYED_S", 0.01)
    await bed.sleep.sleeps()
    await bed.others.until("goodbye, asleep", "back")
    assert not bed.sleep.asleep


async def test_a_shutdown_of_the_computer_ends_the_node_in_order(bed: Bed) -> None:
    bed.sleep.shuts_down()
    assert bed.quits == 1


@pytest.mark.parametrize(
    ("url", "again"),
    [
        ("", False),
        ("http://127.0.0.1:8000/v1", False),
        ("http://localhost:8000/v1", False),
        ("http://[::1]:8000/v1", False),
        ("http://192.168.1.9:8000/v1", True),
        ("https://engines.example/v1", True),
    ],
)
async def test_a_request_at_an_engine_in_the_network_is_asked_again_and_one_here_goes_on(
    bed: Bed, url: str, again: bool
) -> None:
    engine = bed.world.registry.engines["e"]
    engine.url = url  # type: ignore[misc]
    job = bed.world.submit("m")
    bed.doze(60)
    bed.sleep.look()
    await bed.others.until("back")
    assert (job.try_no, job.attempt) == (2 if again else 1, 0)
    bed.world.end(job)
    assert job.state is JobState.DONE


# -- jobs at others


def test_what_others_run_and_has_said_nothing_is_placed_anew_without_a_charge() -> None:
    far, near = MemoryEngine("far", width=4), MemoryEngine("near", ["other"])
    far.local = False  # type: ignore[attr-defined]
    far.node = "studio"  # type: ignore[attr-defined]
    world = World(far, near)
    far.make_resident("m")
    world.look(far)
    silent, speaks = world.submit("m"), world.submit("m")
    local = world.submit("other")
    assert {job.state for job in (silent, speaks)} <= {JobState.LOADING, JobState.WORKING}
    speaks.answer.feed(b"data: {}\n\n", 1)
    tries = silent.try_no, speaks.try_no, local.try_no
    take_back(world.scheduler, "far", "This computer slept.")
    assert (silent.try_no, speaks.try_no, local.try_no) == (tries[0] + 1, tries[1], tries[2])
    assert (silent.attempt, silent.tries[-1].result, silent.tries[-1].detail) == (0, "moved", "This computer slept.")
    assert silent.state.running
    world.end(silent)
    world.end(speaks)
    assert [job.state for job in (silent, speaks)] == [JobState.DONE] * 2


# -- two computers


class Two:
    """The laptop asks, the studio holds the model ``m``; all between them is real but the network."""

    def __init__(self, laptop: Node, studio: Node, http: aiohttp.ClientSession) -> None:
        self.laptop = laptop
        self.studio = studio
        self.http = http
        self.news = asyncio.Event()
        laptop._view.on_info.append(lambda info: self.news.set())

    def peer(self) -> PeerInfo:
        """The studio, as the laptop shows it."""
        (info,) = self.laptop._peers.infos()
        return info

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(BOUND_S):
            while not true():
                self.news.clear()
                try:
                    async with asyncio.timeout(0.05):
                        await self.news.wait()
                except TimeoutError:
                    continue

    def ask(self, **more: Any) -> Any:
        return self.http.post(f"{self.laptop.address}/v1/chat/completions", json=ASK | more)

    async def answer(self) -> tuple[int, str]:
        async with self.ask(stream=True) as reply:
            return reply.status, await reply.text()

    def doze(self, node: Node, seconds: float) -> None:
        """Its clocks say that it slept."""
        gap = node._sleep._gap
        mono, wall, slept = gap._seen
        gap._seen = mono, wall - seconds, slept - seconds
        node._sleep.look()

    @property
    def link(self) -> Any:
        ((_, link),) = self.laptop._peering._links.values()
        return link


@pytest.fixture
async def two(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> Two:
    defaults = Peering.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "addresses", lambda: ["127.0.0.1"])
    monkeypatch.setattr("router.rounds.HOLDER_LOOK_S", 0.1)
    studio = await make_node(engine, data="studio", share=True, name="studio", concurrency=8, peer_port=0)
    laptop = await make_node(data="laptop", name="laptop", max_attempts=1, peer_port=0)
    opened = await studio._peers.open_pairing()
    joining = asyncio.ensure_future(
        laptop._peers.join(JoinPairing(code=opened.code, address=f"127.0.0.1:{studio._peering.port}", may_use=True))
    )
    made = Two(laptop, studio, http)
    await made.until(lambda: studio._peers.pairing().state == "asking")
    studio._peers.answer(PairingAnswer(accept=True))
    await joining
    await made.until(lambda: made.peer().state is PeerState.HEALTHY and made.peer().models == ["m"])
    return made


async def test_a_computer_that_falls_asleep_says_so_and_is_back_as_soon_as_it_wakes(two: Two) -> None:
    await two.studio._sleep.sleeps()
    await two.until(lambda: two.peer().state is PeerState.OFFLINE)
    assert two.peer().reason == "It is asleep."
    two.link.poke()
    two.link.poke()
    await two.until(lambda: not two.link._wake.is_set())
    assert (two.peer().state, two.peer().reason) == (PeerState.OFFLINE, "It is asleep.")
    two.studio._sleep.woke()
    await two.until(lambda: two.peer().state is PeerState.HEALTHY)


async def test_what_waited_at_a_computer_that_falls_asleep_goes_on_when_it_wakes_and_nothing_failed(
    two: Two, engine: ScriptedEngine
) -> None:
    engine.play(head(), HANG)
    asking = asyncio.ensure_future(two.answer())
    await engine.request()
    engine.scripts.clear()
    engine.play(head() + stream("late"))
    (job,) = two.laptop._scheduler.jobs.values()
    await two.studio._sleep.sleeps()
    await happens(engine.asked[0].gone, BOUND_S)
    await two.until(lambda: job.state is JobState.QUEUED)
    assert (job.attempt, job.tries[-1].result, job.tries[-1].detail) == (0, "moved", "It went to sleep.")
    two.studio._sleep.woke()
    status, text = await asyncio.wait_for(asking, 3)
    assert status == 200
    assert "late" in text
    assert "[DONE]" in text
    assert two.laptop._registry.health.ejected(two.link.engine.id, "m") == ""


async def test_what_was_being_said_as_it_fell_asleep_is_an_interruption_at_once(
    two: Two, engine: ScriptedEngine
) -> None:
    engine.play(head(), chunk("half"), HANG)
    async with two.ask(stream=True) as reply:
        await reply.content.readuntil(b"half")
        await two.studio._sleep.sleeps()
        async with asyncio.timeout(2):
            text = (await reply.content.read()).decode()
    assert '"interrupted"' in text
    assert "[DONE]" not in text
    assert len(engine.asked) == 1


async def test_nothing_new_is_taken_while_it_goes_to_sleep(two: Two, engine: ScriptedEngine) -> None:
    two.studio._peering._surface.runs.asleep = True  # type: ignore[attr-defined]
    status, text = await two.answer()
    assert (status, engine.asked) == (502, [])
    assert "goes to sleep" in text


async def test_after_a_sleep_of_this_computer_a_request_at_another_one_is_asked_again(
    two: Two, engine: ScriptedEngine
) -> None:
    engine.play(head(), HANG)
    asking = asyncio.ensure_future(two.answer())
    await engine.request()
    engine.scripts.clear()
    engine.play(head() + stream("again"))
    (job,) = two.laptop._scheduler.jobs.values()
    two.doze(two.laptop, 3600)
    status, text = await asyncio.wait_for(asking, 3)
    assert (status, "again" in text, "[DONE]" in text) == (200, True, True)
    assert job.attempt == 0
    assert [(tried.result, tried.detail) for tried in job.tries] == [("moved", "This computer slept."), ("ok", "")]


async def test_after_a_sleep_no_old_connection_is_used_and_a_healthy_peer_stays_so_until_it_was_asked(
    two: Two, engine: ScriptedEngine
) -> None:
    engine.play(head() + stream("one"))
    await two.answer()
    transport = two.link.engine._transport
    assert len(transport._idle) == 1
    old = transport._idle[0]
    states: list[PeerState] = []
    two.link._changed, told = (lambda: (states.append(two.link.state), told())), two.link._changed
    two.doze(two.laptop, 3600)
    began = time.monotonic()
    engine.play(head() + stream("two"))
    status, text = await two.answer()
    assert time.monotonic() - began < 3
    assert (status, '"two"' in text) == (200, True)
    assert old.transport is None or old not in transport._idle
    await two.until(lambda: two.peer().state is PeerState.HEALTHY)
    assert PeerState.UNHEALTHY not in states


async def test_nobody_is_refused_while_the_others_are_being_asked(two: Two, engine: ScriptedEngine) -> None:
    engine.play(head() + stream("back"))
    two.link._liveness.broke("It went silent.")
    assert two.peer().state is PeerState.UNHEALTHY
    async with two.ask() as refused:
        assert refused.status == 503
    two.link._liveness.broke("It went silent.")
    gap = two.laptop._sleep._gap
    mono, wall, slept = gap._seen
    gap._seen = mono, wall - 60, slept - 60  # nobody has looked yet
    status, text = await asyncio.wait_for(two.answer(), 3)
    assert (status, "back" in text) == (200, True)


async def test_an_answer_that_goes_on_over_the_jump_of_the_clock_ends_whole(
    two: Two, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = asyncio.Event()
    engine.play(head(), chunk(role=True), chunk("before "), Wait(go), stream("after"))
    async with two.ask(stream=True) as reply:
        await reply.content.readuntil(b"before ")
        for node in (two.laptop, two.studio):
            monkeypatch.setattr(node._clock, "wall", lambda: time.time() + 7200, raising=False)
            node._sleep.look()
        await asyncio.sleep(0)
        go.set()
        text = (await reply.content.read()).decode()
    assert "after" in text
    assert text.endswith("data: [DONE]\n\n")


async def test_own_jobs_of_a_computer_that_sleeps_go_on_when_it_wakes(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    go = asyncio.Event()
    engine.play(head(), chunk("a"), Wait(go), stream("b"))
    node = await make_node(engine)
    async with http.post(f"{node.address}/v1/chat/completions", json=ASK | {"stream": True}) as reply:
        await reply.content.readuntil(b'"a"')
        await node._sleep.sleeps()
        node._sleep.woke()
        go.set()
        text = (await reply.content.read()).decode()
    assert text.endswith("data: [DONE]\n\n")
    listed = await http.get(
        f"{node.address}/local/v1/status", headers={"Authorization": f"Bearer {node.control_token}"}
    )
    assert json.loads(await listed.text())["node"]["sleep"] == node._sleep.detail
