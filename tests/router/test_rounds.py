"""Tries, rounds and waits, as a job meets them that nobody runs."""

from __future__ import annotations

import pytest

from router.errors import failure
from router.states import JobState
from router.wire import State
from tests.fakes import MemoryEngine
from tests.fakes_peer import MemoryPeer
from tests.world import World

QUEUED, WORKING, DONE, FAILED = JobState.QUEUED, JobState.WORKING, JobState.DONE, JobState.FAILED


def warm(engine_id: str = "e", *models: str) -> MemoryEngine:
    """An engine that loads by itself, so that jobs work at once."""
    return MemoryEngine(engine_id, models or ("m",), loads=False)


def test_a_failed_try_goes_to_another_holder_at_once_and_never_back_in_that_round() -> None:
    world = World(warm("e"), warm("f"), warm("g"))
    job = world.submit()
    for _ in range(3):
        world.fail(job)
    engines = [attempt.engine for attempt in job.tries]
    assert sorted(engines) == ["e", "f", "g"]
    assert (job.state, job.attempt, job.why, job.eta_s) == (QUEUED, 1, "retry", 1.0)
    world.pass_time(1)
    assert job.state is WORKING
    assert job.tried == set()


def test_a_round_without_a_holder_waits_a_growing_bounded_random_time() -> None:
    drawn: list[tuple[float, float]] = []

    def jitter(low: float, high: float) -> float:
        drawn.append((low, high))
        return high / 2

    world = World(warm(), jitter=jitter)
    job = world.submit(max_attempts=100)
    for _ in range(10):
        world.fail(job)
        assert job.state is QUEUED
        delay_s = world.effects.timers[0].delay_s
        world.pass_time(delay_s - 0.01)
        assert job.state is QUEUED
        world.pass_time(0.02)
        assert job.state is WORKING
    assert drawn == [(0, top) for top in (1, 2, 4, 8, 16, 32, 60, 60, 60, 60)]


def test_a_job_fails_after_its_attempts_with_the_last_error_and_a_receipt_of_its_tries() -> None:
    world = World(warm("e"), warm("f"))
    job = world.submit(max_attempts=2)
    last = failure("engine_failed", "Connection refused the last time.")
    world.fail(job)
    world.fail(job)
    world.pass_time(60)
    world.fail(job)
    world.fail(job, error=last)
    assert (job.state, job.error, job.attempt) == (FAILED, last, 2)
    assert job.receipt is not None
    assert [attempt.result for attempt in job.receipt.tries] == ["engine_failed"] * 4
    assert job.receipt.tries[-1].detail == last.message
    assert world.effects.timers == []


def test_one_transient_error_never_fails_a_job() -> None:
    world = World(warm())
    job = world.submit()
    world.fail(job)
    world.pass_time(60)
    world.end(job)
    assert (job.state, job.error) == (DONE, None)


def test_a_fault_that_lasts_is_final_at_the_only_holder() -> None:
    world = World(warm())
    job = world.submit()
    error = failure("engine_failed", "The file ends too early.")
    world.fail(job, error=error, lasting=True)
    assert (job.state, job.error, len(job.tries)) == (FAILED, error, 1)


def test_a_fault_that_lasts_leaves_another_holder_its_rounds() -> None:
    world = World(warm("e"), warm("f"))
    job = world.submit()
    world.fail(job)
    world.fail(job, lasting=True)
    assert (job.state, job.why) == (QUEUED, "retry")


def test_a_resumed_job_whose_model_is_not_here_yet_waits_for_it() -> None:
    world = World(warm("e", "other"))
    job = world.job(keep=True)
    world.scheduler.resume_job(job)
    for _ in range(10):
        world.pass_time(3600)
    assert (job.state, job.attempt, job.why) == (QUEUED, 0, "waits-holder")
    world.appear(warm("f", "m"))
    world.pass_time(60)
    assert job.state is WORKING


def test_jobs_of_a_model_that_vanished_wait_for_it_uncharged() -> None:
    engine = warm()
    world = World(engine)
    running, waiting = world.submit(), world.submit(max_attempts=3)
    world.registry.remove("e")
    assert (waiting.state, waiting.attempt) == (QUEUED, 0)
    world.appear(engine)
    world.pass_time(60)
    world.end(running)
    assert waiting.state is WORKING
    world.end(waiting)
    assert world.scheduler.lanes["e", False].in_flight == 0


@pytest.mark.parametrize(("keep", "hours"), [(False, 0.1), (True, 25)])
def test_jobs_of_a_model_that_stays_away_fail_with_the_reason(keep: bool, hours: float) -> None:
    world = World(warm())
    world.submit()
    waiting = world.submit(keep=keep)
    world.registry.remove("e")
    for _ in range(20):
        world.pass_time(hours * 3600 / 20)
    assert (waiting.state, waiting.error and waiting.error.code) == (FAILED, "model_not_found")


def test_a_job_whose_computers_stay_away_fails_with_the_reason() -> None:
    world = World(peer := MemoryPeer())
    world.submit()
    waiting = world.submit()
    world.look(peer, ready=False, detail="Its stream broke.")
    for _ in range(14):
        world.pass_time(5)
    assert waiting.state is FAILED
    assert waiting.error is not None
    assert waiting.error.code == "no_holder_available"


@pytest.mark.parametrize(("keep", "state"), [(False, FAILED), (True, QUEUED)])
def test_who_waits_only_for_a_computer_that_is_unpaired_is_told_unless_the_job_lives_on(
    keep: bool, state: JobState
) -> None:
    world = World(peer := MemoryPeer())
    job = world.submit(keep=keep)
    world.scheduler.heard(job, job.try_no, State(state=QUEUED, place=3))
    world.registry.remove(peer.id)
    assert job.state is state


@pytest.mark.parametrize(("keep", "state"), [(False, FAILED), (True, QUEUED)])
def test_so_is_one_whose_computers_do_not_know_this_one_any_more(keep: bool, state: JobState) -> None:
    world = World(peer := MemoryPeer())
    running, job = world.submit(), world.submit(keep=keep)
    assert (running.state, job.state) == (WORKING, QUEUED)
    world.look(peer, ready=False, trusted=False, detail="Not paired.")
    assert job.state is state
