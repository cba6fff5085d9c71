"""A page gets a snapshot and then few, small changes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from router.events import Bus
from router.jobs import Job
from router.runner import JobMoved
from router.settings import Settings
from router.states import JobState, NodeMode, PeerState
from router.view import LIST_MAX, RECENT_JOBS, View
from router.wire import ChatInfo, JobInfo, NodeInfo
from router.wire_peers import PairingInfo, PeerInfo
from tests.fakes import make_job
from tests.world import World


class Watched:
    """A view of a scheduler in memory, and what it pushed."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.world = World()
        self.settings = Settings(None, {})
        self.view = View(
            self.bus, self.world.registry, self.world.scheduler, self.settings, self.node, lambda engine: 1
        )

    def node(self) -> NodeInfo:
        return NodeInfo(
            id="n", name="n", version="1", mode=NodeMode.RUNNING, address="", port=1, started_at=0.0,
            running=self.world.scheduler.running,
        )  # fmt: skip


@pytest.fixture
async def watched() -> Watched:
    return Watched()


async def test_changes_that_come_together_are_pushed_as_one(watched: Watched) -> None:
    with watched.bus.queue() as queue:
        jobs = [watched.world.submit() for _ in range(5)]
        for job in jobs:
            watched.bus.publish(JobMoved(job, None))
        change = await asyncio.wait_for(queue.get(), 1.0)
        assert len(change.jobs) == 5
        assert change.node.running == 1
        assert [job.place for job in change.jobs] == [None, 1, 2, 3, 4]
        assert queue.empty()


async def moved(watched: Watched, queue: asyncio.Queue[Any], *jobs: Job) -> dict[str, JobInfo]:
    """Publish moves of ``jobs``; what the page is told of any job then."""
    for job in jobs:
        watched.bus.publish(JobMoved(job, None))
    change = await asyncio.wait_for(queue.get(), 1.0)
    return {info.id: info for info in change.jobs}


async def test_when_the_line_moves_everybody_in_it_is_told_their_new_place(watched: Watched) -> None:
    with watched.bus.queue() as queue:
        jobs = [watched.world.submit() for _ in range(4)]
        await moved(watched, queue, *jobs)
        watched.world.end(jobs[0])
        told = await moved(watched, queue, jobs[0], jobs[1])
        assert [told[job.id].place for job in jobs] == [None, None, 1, 2]

        watched.world.scheduler.to_front(jobs[3].id)
        watched.view.changed("node")
        change = await asyncio.wait_for(queue.get(), 1.0)
        assert {info.id: info.place for info in change.jobs} == {jobs[3].id: 1, jobs[2].id: 2}


async def test_a_pause_tells_those_who_wait_why(watched: Watched) -> None:
    with watched.bus.queue() as queue:
        jobs = [watched.world.submit() for _ in range(2)]
        await moved(watched, queue, *jobs)
        watched.world.scheduler.set_mode(NodeMode.PAUSED)
        watched.view.changed("node")
        change = await asyncio.wait_for(queue.get(), 1.0)
        assert [(info.id, info.why, info.eta_s) for info in change.jobs] == [(jobs[1].id, "waits-paused", None)]
        watched.view.changed()
        watched.view.changed("node")
        assert (await asyncio.wait_for(queue.get(), 1.0)).jobs is None


async def test_of_a_long_line_only_its_beginning_is_told_and_the_rest_as_it_comes_near(watched: Watched) -> None:
    with watched.bus.queue() as queue:
        jobs = [watched.world.submit(batch=True) for _ in range(LIST_MAX + 3)]
        told = await moved(watched, queue, *jobs)
        assert len(told) == 1 + LIST_MAX
        watched.world.end(jobs[0])
        watched.world.clock.advance(1)
        assert len(await moved(watched, queue, jobs[0], jobs[1])) == 2
        later = (await asyncio.wait_for(queue.get(), 2.0)).jobs  # a long line is not looked at each time
        assert len(later) == LIST_MAX
        assert {info.id: info.place for info in later}[jobs[LIST_MAX + 1].id] == LIST_MAX
        assert jobs[LIST_MAX + 2].id not in {info.id for info in later}


async def test_a_snapshot_of_a_long_line_still_has_the_last_ended_jobs(watched: Watched) -> None:
    ended = [make_job(number, id=f"OLD{number}", state=JobState.DONE).info() for number in range(3)]
    watched.view.remember(ended)
    for _ in range(LIST_MAX + 10):
        watched.world.submit(batch=True)
    jobs = watched.view.snapshot([]).jobs
    assert len(jobs) == LIST_MAX + 3
    assert [info.id for info in jobs[LIST_MAX:]] == ["OLD2", "OLD1", "OLD0"]


async def test_what_changes_nothing_for_the_page_is_not_pushed(watched: Watched) -> None:
    with watched.bus.queue() as queue:
        watched.view.changed()
        watched.settings.update({"route": "fastest"})
        assert (await asyncio.wait_for(queue.get(), 1.0)).settings
        watched.view.changed()
        watched.view.gone("C")
        assert (await asyncio.wait_for(queue.get(), 1.0)).gone == ["C"]
        watched.view.changed()
        watched.view._push()
        assert queue.empty()


async def test_nothing_is_built_while_nobody_watches(watched: Watched) -> None:
    watched.bus.publish(JobMoved(watched.world.submit(), None))
    assert not watched.view._jobs


async def test_the_last_ended_jobs_are_kept_and_no_more(watched: Watched) -> None:
    for number in range(RECENT_JOBS + 10):
        watched.bus.publish(JobMoved(make_job(number, id=f"J{number}", state=JobState.DONE), JobState.WORKING))
    assert len(watched.view.recent) == RECENT_JOBS
    assert watched.view.jobs()[0].id == f"J{RECENT_JOBS + 9}"


async def test_lists_have_running_jobs_first_then_those_that_wait_in_order(watched: Watched) -> None:
    jobs = [watched.world.submit() for _ in range(3)]
    assert [info.id for info in watched.view.jobs()] == [job.id for job in jobs]
    assert [info.state for info in watched.view.jobs()] == ["loading", "queued", "queued"]


async def test_a_conversation_that_went_is_named(watched: Watched) -> None:
    info = ChatInfo(id="C", title="t", model="m", created_at=0.0, updated_at=0.0)
    with watched.bus.queue() as queue:
        watched.view.chat(info)
        watched.view.gone("C")
        change = await asyncio.wait_for(queue.get(), 1.0)
    assert change.gone == ["C"]
    assert change.chats is None


async def test_the_tray_hears_of_the_node_without_a_page(watched: Watched) -> None:
    heard: asyncio.Queue[NodeInfo] = asyncio.Queue()
    watched.view.on_info.append(heard.put_nowait)
    watched.bus.publish(JobMoved(watched.world.submit(), None))
    assert (await asyncio.wait_for(heard.get(), 1.0)).running == 1


async def test_the_tray_hears_of_other_computers_without_a_page(watched: Watched) -> None:
    studio = PeerInfo(id="s", name="studio", state=PeerState.HEALTHY, paired=True)
    heard: asyncio.Queue[list[PeerInfo]] = asyncio.Queue()
    watched.view.peers = lambda: [studio]
    watched.view.on_peers = heard.put_nowait
    watched.view.changed("peers")
    assert await asyncio.wait_for(heard.get(), 1.0) == [studio]


async def test_a_changed_setting_reaches_the_page(watched: Watched) -> None:
    with watched.bus.queue() as queue:
        watched.settings.update({"route": "fastest"})
        change = await asyncio.wait_for(queue.get(), 1.0)
    assert {info.name: info.value for info in change.settings}["route"] == "fastest"


async def test_pairing_and_other_computers_are_told_together(watched: Watched) -> None:
    studio = PeerInfo(id="s", name="studio", state=PeerState.HEALTHY, paired=True)
    watched.view.peers = lambda: [studio]
    watched.view.pairing = lambda: PairingInfo(state="open", code="123456")
    with watched.bus.queue() as queue:
        watched.view.changed("peers")
        change = await asyncio.wait_for(queue.get(), 1.0)
    assert (change.peers, change.pairing.code, change.node) == ([studio], "123456", None)
    assert watched.view.snapshot([]).peers == [studio]
