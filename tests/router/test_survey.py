"""People are told where a job stands, when it should start, and why it waits."""

from __future__ import annotations

from router.states import NodeMode
from router.survey import CHEAP_JOBS
from tests.fakes import MemoryEngine
from tests.world import World


def test_each_job_in_line_has_its_place_and_reason() -> None:
    world = World(MemoryEngine("e", ["a", "b"]))
    first = world.submit("a")
    same, other = world.submit("a"), world.submit("b")
    world.scheduler.survey()
    assert [(job.place, job.why) for job in (same, other)] == [(1, "waits-load"), (2, "waits-other-load")]
    world.load(first)
    world.scheduler.survey()
    assert [job.why for job in (same, other)] == ["waits-turn", "waits-other-model"]
    assert same.eta_s is not None
    assert other.eta_s is not None
    assert same.eta_s < other.eta_s
    assert first.place is None


def test_while_paused_nobody_is_told_a_time() -> None:
    world = World()
    world.submit()
    waiting = world.submit()
    world.scheduler.set_mode(NodeMode.PAUSED)
    world.scheduler.survey()
    assert (waiting.place, waiting.eta_s, waiting.why) == (1, None, "waits-paused")


def test_a_long_line_is_not_surveyed_for_everybody_who_asks() -> None:
    world = World()
    jobs = [world.submit(batch=True) for _ in range(CHEAP_JOBS + 2)]
    world.scheduler.survey()
    assert jobs[-1].place == CHEAP_JOBS + 1
    world.scheduler.cancel(jobs[1].id)
    world.scheduler.survey()
    assert jobs[-1].place == CHEAP_JOBS + 1
    world.clock.advance(1.1)
    world.scheduler.survey()
    assert jobs[-1].place == CHEAP_JOBS


def test_the_line_is_in_the_order_of_its_lane() -> None:
    world = World()
    world.submit()
    jobs = [world.submit(batch=batch) for batch in (True, False, False)]
    assert [job.id for job in world.scheduler.line()] == [jobs[1].id, jobs[2].id, jobs[0].id]


def test_a_model_that_is_loading_counts_as_loaded() -> None:
    world = World(MemoryEngine("e", ["a", "b"], room=1))
    first, other, same = world.submit("a"), world.submit("b"), world.submit("a")
    world.scheduler.survey()
    assert [job.id for job in world.scheduler.line()] == [same.id, other.id]
    assert [job.id for job in world.run_all()] == [first.id, same.id, other.id]


def test_the_line_tells_whose_turn_is_when() -> None:
    world = World()
    running = world.submit(person="anna")
    anna = [world.submit(person="anna") for _ in range(3)]
    ben = world.submit(person="ben")
    world.scheduler.survey()
    assert [(job.place, job.eta_s) for job in (*anna, ben)] == [(1, 5.0), (3, 25.0), (4, 35.0), (2, 15.0)]
    shown = [job.id for job in world.scheduler.line()]
    assert [job.id for job in world.run_all()] == [running.id, *shown]
