"""A job that waits is not bound to where it waits."""

from __future__ import annotations

from router.errors import failure
from router.health import Failure
from router.jobs import Job, Outcome, Result
from router.states import JobState, NodeMode
from router.wire import State
from tests.fakes import MemoryEngine, listening
from tests.fakes_peer import MemoryPeer
from tests.world import World

QUEUED, WORKING, DONE, FAILED = JobState.QUEUED, JobState.WORKING, JobState.DONE, JobState.FAILED


def own(**more: object) -> MemoryEngine:
    return MemoryEngine(loads=False, **more)  # type: ignore[arg-type] # width and room


def at(job: Job) -> tuple[str, JobState]:
    assert job.lane is not None
    return job.lane.engine, job.state


def test_a_job_that_waits_at_a_busy_computer_moves_when_another_holder_gets_free() -> None:
    world = World(own(), *(MemoryPeer(f"p{n}") for n in (1, 2)))
    running = [world.submit() for _ in range(3)]
    waiting = [world.submit() for _ in range(3)]
    assert {job.state for job in waiting} == {QUEUED}
    for free in running:
        engine = at(free)[0]
        world.end(free)
        moved = [job for job in waiting if job.state is WORKING]
        assert engine in {at(job)[0] for job in moved}
    assert [job.state for job in waiting] == [WORKING] * 3


def test_interactive_jobs_move_before_batch_jobs_and_warm_ones_before_cold_ones() -> None:
    here = MemoryEngine("e", ("a", "b"), room=1)
    here.make_resident("a")
    world = World(here, peer := MemoryPeer("p", ("a", "b")))
    running = world.submit("a")
    other = world.submit("a")
    assert {at(running)[0], at(other)[0]} == {"e", peer.id}
    at_peer = running if at(running)[0] == peer.id else other
    here_job = other if at_peer is running else running
    world.look(here, ready=False)
    batch, cold, warm = world.submit("a", batch=True), world.submit("b"), world.submit("a")
    world.look(here)
    assert {at(job) for job in (batch, cold, warm)} == {(peer.id, QUEUED)}
    world.end(here_job)
    assert at(warm) == ("e", WORKING)
    world.end(warm)
    assert at(cold)[0] == "e"
    world.end(cold)
    assert at(batch)[0] == "e"


def test_what_waits_for_a_computer_that_is_lost_goes_elsewhere_or_waits_without_charge() -> None:
    world = World(own(), peer := MemoryPeer())
    first, _, third, fourth = (world.submit() for _ in range(4))
    there = [job for job in (third, fourth) if at(job) == (peer.id, QUEUED)]
    assert there
    world.look(peer, ready=False, detail="Its stream broke.")
    assert {at(job)[0] for job in (third, fourth)} == {"e"}
    assert at(first) == (peer.id, WORKING), "what runs there goes on"

    alone = World(peer := MemoryPeer())
    running, waiting = alone.submit(), alone.submit()
    alone.look(peer, ready=False, detail="Its stream broke.")
    assert (waiting.state, waiting.why, waiting.attempt) == (QUEUED, "waits-holder", 0)
    alone.pass_time(5)
    alone.look(peer)
    alone.pass_time(5)
    alone.end(running)
    assert at(waiting) == (peer.id, WORKING)


def test_what_waits_for_an_ejected_model_goes_elsewhere_at_once() -> None:
    world = World(own(width=2), peer := MemoryPeer())
    jobs = [world.submit() for _ in range(5)]
    assert any(at(job) == (peer.id, QUEUED) for job in jobs)
    world.registry.health.failed(peer.id, "m", Failure.SILENT)
    assert not any(at(job) == (peer.id, QUEUED) for job in jobs)


def test_a_computer_that_appears_takes_what_waits_here() -> None:
    world = World(own())
    jobs = [world.submit() for _ in range(3)]
    world.appear(MemoryPeer(width=2))
    assert [at(job) for job in jobs] == [("e", WORKING), ("peer-p", WORKING), ("peer-p", WORKING)]


def test_while_this_computer_is_paused_its_requests_go_to_others() -> None:
    world = World(own(), peer := MemoryPeer())
    world.scheduler.set_mode(NodeMode.PAUSED)
    first, second = world.submit(), world.submit()
    assert (at(first), at(second)) == ((peer.id, WORKING), (peer.id, QUEUED))
    world.end(first)
    assert at(second) == (peer.id, WORKING)
    world.scheduler.set_mode(NodeMode.DRAINING)
    assert world.scheduler.mode is NodeMode.DRAINED, "nothing runs on this computer"


def test_a_job_sent_to_a_computer_where_it_still_waits_is_taken_back_for_a_free_one() -> None:
    world = World(own(), peer := MemoryPeer())
    there, here = world.submit(), world.submit()
    reader = listening(there)
    assert (at(there)[0], at(here)[0]) == (peer.id, "e")
    world.scheduler.heard(there, there.try_no, State(state=QUEUED, place=3, why="waits-turn"))
    world.end(here)
    assert at(there) == ("e", WORKING)
    assert world.effects.stopped == [there]
    assert (there.attempt, there.tries[0].result) == (0, "moved")
    assert reader.states[0].place == 3
    world.scheduler.finished(there, 1, Outcome(Result.FAILED, failure("peer_failed", "late")))
    world.end(there)
    assert there.state is DONE


def test_a_job_that_finds_a_line_where_none_was_told_is_taken_back_while_somebody_is_free() -> None:
    world = World(own(), peer := MemoryPeer())
    job = world.submit()
    assert at(job)[0] == peer.id
    world.scheduler.heard(job, job.try_no, State(state=QUEUED, place=3))
    assert at(job) == ("e", WORKING)
    assert (job.attempt, job.tries[0].result) == (0, "moved")


def test_what_waits_in_the_line_of_a_computer_that_is_unpaired_goes_elsewhere_at_once() -> None:
    world = World(own(), peer := MemoryPeer())
    there, here = world.submit(), world.submit()
    world.scheduler.heard(there, there.try_no, State(state=QUEUED, place=3))
    assert (at(there)[0], at(here)) == (peer.id, ("e", WORKING))
    world.registry.remove(peer.id)
    assert at(there) == ("e", QUEUED)
    world.end(here)
    assert at(there) == ("e", WORKING)


def test_a_leaked_lease_is_swept_only_once_the_peer_says_too_that_it_runs_nothing() -> None:
    world = World(peer := MemoryPeer())
    world.submit()
    lost = world.submit()
    world.scheduler.jobs.pop(world.running[0].id)  # as a fault of this node would
    peer.in_flight = 1
    world.look(peer)
    assert (world.scheduler.running, lost.state) == (1, QUEUED), "the peer still says that something runs"
    peer.in_flight = 0
    world.look(peer)
    assert (at(lost), world.scheduler.running) == ((peer.id, WORKING), 1)
    world.end(lost)
    assert (world.scheduler.running, world.registry.replicas.in_flight(peer.id)) == (0, 0)


def test_a_lease_that_a_job_holds_is_never_swept_whatever_the_peer_says() -> None:
    world = World(peer := MemoryPeer())
    job = world.submit()
    world.look(peer, version="2")
    assert (job.state, world.scheduler.running) == (WORKING, 1)


def test_a_job_that_works_there_is_left_there() -> None:
    world = World(own(), MemoryPeer())
    there, here = world.submit(), world.submit()
    world.scheduler.heard(there, there.try_no, State(state=QUEUED))
    world.scheduler.heard(there, there.try_no, State(state=JobState.LOADING, loading_pct=40))
    assert there.loading_pct == 40
    world.end(here)
    assert at(there)[0] == "peer-p"
    world.scheduler.heard(there, 0, State(state=QUEUED))
    world.scheduler.heard(here, here.try_no, State(state=QUEUED))


def test_what_still_waits_at_a_computer_that_pauses_is_taken_back() -> None:
    world = World(own(width=2), peer := MemoryPeer())
    job = world.submit()
    world.scheduler.heard(job, job.try_no, State(state=QUEUED))
    peer.mode = NodeMode.PAUSED
    world.look(peer)
    assert at(job) == ("e", WORKING)
