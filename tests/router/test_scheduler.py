"""The scheduler's promises, with fake effects and a clock that the test moves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from router.admission import BATCH_MAX, INTERACTIVE_MAX
from router.engines.base import Kind
from router.errors import ModelNotFoundError, QueueFullError, QuorumError, failure
from router.jobs import Job, Origin, Outcome, Result
from router.scheduler import EMBEDDING_WIDTH
from router.states import IllegalMoveError, JobState, NodeMode
from tests.fakes import MemoryEngine, listening
from tests.world import FAULT, World

QUEUED, LOADING, WORKING = JobState.QUEUED, JobState.LOADING, JobState.WORKING
DONE, FAILED, CANCELLED = JobState.DONE, JobState.FAILED, JobState.CANCELLED


def warm(engine_id: str = "e", *models: str, **more: Any) -> MemoryEngine:
    """An engine that loads by itself, so that jobs work at once."""
    return MemoryEngine(engine_id, models or ("m",), loads=False, **more)


def names(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


# -- accepting


def test_a_job_on_a_cold_model_loads_then_works_then_is_done() -> None:
    world = World()
    job = world.submit()
    assert (job.state, world.effects.started) == (LOADING, [(job, 1)])
    world.clock.advance(2)
    world.load(job)
    assert (job.state, job.loading_s) == (WORKING, 2)
    world.end(job)
    assert world.effects.moves_of(job) == [QUEUED, LOADING, WORKING, DONE]
    assert world.effects.moves[0] == (job.id, None, QUEUED)
    assert world.scheduler.jobs == {}


def test_a_job_on_a_resident_model_works_at_once() -> None:
    world = World(warm())
    job = world.submit()
    assert world.effects.moves_of(job) == [QUEUED, WORKING]


def test_a_job_of_an_unknown_model_is_refused_with_near_names_and_leaves_nothing() -> None:
    world = World(MemoryEngine(models=("llama-3.2", "qwen3")))
    with pytest.raises(ModelNotFoundError) as raised:
        world.submit("lama-3.2")
    assert raised.value.near == ("llama-3.2",)
    assert (world.scheduler.jobs, world.effects.moves) == ({}, [])


def test_a_job_that_nobody_can_run_now_is_refused_with_the_reason_of_each() -> None:
    world = World()
    world.look(MemoryEngine(), ready=False, detail="It is starting.")
    with pytest.raises(QuorumError) as raised:
        world.submit()
    assert (raised.value.code, raised.value.status) == ("no_holder_available", 503)
    assert "e: unhealthy" in raised.value.message
    assert "It is starting." in raised.value.message
    assert world.scheduler.jobs == {}


def test_a_full_queue_is_429_with_a_time_to_wait_and_nothing_accepted_is_dropped() -> None:
    world = World(warm())
    jobs = [world.submit() for _ in range(1 + INTERACTIVE_MAX)]
    with pytest.raises(QueueFullError) as raised:
        world.submit()
    assert raised.value.status == 429
    assert 1 <= (raised.value.retry_after_s or 0) <= 60
    assert set(world.scheduler.jobs) == {job.id for job in jobs}
    world.end(jobs[0])
    world.submit()


def test_the_bounds_of_interactive_and_batch_jobs_are_apart_whatever_runs() -> None:
    world = World(warm(width=2))
    for _ in range(2 + BATCH_MAX):
        world.submit(batch=True)
    with pytest.raises(QueueFullError):
        world.submit(batch=True)
    for _ in range(INTERACTIVE_MAX):
        world.submit()
    with pytest.raises(QueueFullError):
        world.submit()
    assert world.scheduler.running == 2


def test_one_persons_flood_does_not_refuse_another_ones_job() -> None:
    world = World(warm())
    running = world.submit(person="anna")
    for _ in range(INTERACTIVE_MAX):
        world.submit(person="anna")
    with pytest.raises(QueueFullError):
        world.submit(person="anna")
    first = world.submit(person="ben")
    assert first.state is QUEUED
    world.end(running)
    world.end(world.running[0])
    assert first.state is WORKING, "persons take turns"


def test_a_job_moved_to_the_front_takes_the_place_of_an_interactive_one() -> None:
    world = World(warm())
    running, batch = world.submit(), world.submit(batch=True)
    for _ in range(INTERACTIVE_MAX - 1):
        world.submit()
    world.scheduler.to_front(batch.id)
    with pytest.raises(QueueFullError):
        world.submit()
    world.end(running)
    world.submit()


def test_a_node_that_stops_accepts_nothing_and_starts_nothing() -> None:
    world = World(warm())
    first, second = world.submit(), world.submit()
    world.scheduler.stop_accepting()
    with pytest.raises(QuorumError, match="stopping"):
        world.submit()
    world.end(first)
    assert (first.state, second.state) == (DONE, QUEUED)


def test_a_held_job_is_accepted_but_runs_only_once_it_is_released() -> None:
    world = World(warm())
    job, cancelled = world.submit(held=True), world.submit(held=True)
    assert (job.state, world.effects.moves[0], world.effects.started) == (QUEUED, (job.id, None, QUEUED), [])
    world.scheduler.cancel(cancelled.id)
    for _ in range(2):
        world.scheduler.release(job)
        world.scheduler.release(cancelled)
    assert (job.state, cancelled.state, len(world.effects.started)) == (WORKING, CANCELLED, 1)


# -- order and width


def test_a_lane_runs_as_many_jobs_as_it_is_wide() -> None:
    world = World(warm(width=3))
    jobs = [world.submit() for _ in range(5)]
    assert [job.state for job in jobs] == [WORKING] * 3 + [QUEUED] * 2
    world.width["e"] = 4
    world.scheduler.refresh()
    assert [job.state for job in jobs] == [WORKING] * 4 + [QUEUED]
    world.width["e"] = 1
    world.scheduler.refresh()
    world.end(jobs[0])
    assert jobs[4].state is QUEUED


def test_a_hundred_jobs_alternating_between_two_models_load_twice() -> None:
    engine = MemoryEngine(models=("a", "b"))
    world = World(engine)
    for number in range(100):
        world.submit("ab"[number % 2])
    ran = world.run_all(take_s=0.5)
    assert engine.loaded == ["a", "b"]
    assert len(ran) == 100
    assert {job.state for job in ran} == {DONE}


def test_interactive_jobs_run_before_batch_jobs_and_the_front_before_all() -> None:
    world = World(warm())
    world.submit()
    batch, chat, front = world.submit(batch=True), world.submit(), world.submit(batch=True)
    assert world.scheduler.to_front(front.id)
    assert names(world.run_all())[1:] == names([front, chat, batch])


def test_only_a_waiting_job_can_be_moved_to_the_front() -> None:
    world = World(warm())
    running = world.submit()
    assert not world.scheduler.to_front(running.id)
    assert not world.scheduler.to_front("nobody")


def test_embeddings_do_not_wait_behind_a_chat() -> None:
    world = World(warm())
    chats = [world.submit() for _ in range(3)]
    embeddings = [world.submit(kind=Kind.EMBEDDING) for _ in range(EMBEDDING_WIDTH + 1)]
    assert [job.state for job in chats] == [WORKING, QUEUED, QUEUED]
    assert [job.state for job in embeddings] == [WORKING] * EMBEDDING_WIDTH + [QUEUED]


def test_the_place_in_line_is_one_for_the_next() -> None:
    world = World(warm())
    jobs = [world.submit() for _ in range(3)]
    assert [(job.place, job.id) for job in world.scheduler.line()] == [(1, jobs[1].id), (2, jobs[2].id)]
    assert world.scheduler.waiting == 2


def test_a_waiting_job_says_what_it_waits_for() -> None:
    world = World(MemoryEngine("e", ["m", "n"]))
    running, same, other = world.submit(), world.submit(), world.submit("n")

    def reasons() -> list[tuple[str, bool]]:
        world.scheduler.survey()
        return [(job.why, job.eta_s is None) for job in (same, other)]

    assert reasons() == [("waits-load", False), ("waits-other-load", False)]
    world.load(running)
    assert reasons() == [("waits-turn", False), ("waits-other-model", False)]
    world.scheduler.set_mode(NodeMode.PAUSED)
    assert reasons() == [("waits-paused", True)] * 2
    world.scheduler.set_mode(NodeMode.DRAINING)
    assert reasons() == [("waits-draining", True)] * 2
    world.scheduler.set_mode(NodeMode.RUNNING)
    world.end(running)
    assert (same.why, same.place, same.eta_s) == ("", None, None)


# -- leases and fencing


def test_a_lease_is_given_back_exactly_once_however_often_the_end_is_told() -> None:
    world = World(warm())
    job, waiting, last = world.submit(), world.submit(), world.submit()
    for _ in range(3):
        world.scheduler.finished(job, 1, Outcome(Result.DONE))
    assert (waiting.state, last.state, world.scheduler.running) == (WORKING, QUEUED, 1)
    world.scheduler.cancel(waiting.id)
    world.scheduler.finished(waiting, 1, Outcome(Result.FAILED, FAULT))
    world.end(last)
    assert world.scheduler.running == 0
    assert world.scheduler.lanes["e", False].in_flight == 0


def test_a_result_of_an_earlier_try_is_discarded() -> None:
    world = World(warm("e"), warm("f"))
    job = world.submit()
    world.fail(job)
    assert (job.try_no, job.state) == (2, WORKING)
    world.scheduler.finished(job, 1, Outcome(Result.DONE, completion_tokens=99))
    world.scheduler.loaded(job, 1)
    world.scheduler.progress(job, 1, 50)
    assert (job.state, job.loading_pct) == (WORKING, None)
    world.end(job)
    assert job.receipt is not None
    assert (job.receipt.completion_tokens, [t.number for t in job.receipt.tries]) == (None, [1, 2])


def test_progress_of_a_load_is_told_once_a_percent() -> None:
    world = World()
    job = world.submit()
    reader = listening(job)
    for percent in (10, 10, 20):
        world.scheduler.progress(job, 1, percent)
    assert [state.loading_pct for state in reader.states] == [10, 20]
    world.load(job)
    assert job.loading_pct is None


def test_a_job_cannot_be_done_while_it_loads() -> None:
    world = World()
    job = world.submit()
    with pytest.raises(IllegalMoveError):
        world.scheduler.finished(job, 1, Outcome(Result.DONE))


# -- retry


@pytest.mark.parametrize("result", [Result.REJECTED, Result.INTERRUPTED])
def test_a_request_the_engine_rejects_and_an_answer_that_broke_off_are_final(result: Result) -> None:
    world = World(warm("e"), warm("f"))
    job = world.submit()
    error = failure("bad_request" if result is Result.REJECTED else "interrupted", "No.")
    world.end(job, result, error=error)
    assert (job.state, job.error, len(world.effects.started)) == (FAILED, error, 1)


def test_a_stopping_node_requeues_what_ran_without_charge() -> None:
    world = World(warm())
    job = world.submit()
    world.scheduler.stop_accepting()
    world.end(job, Result.STOPPED)
    assert (job.state, job.attempt, job.error) == (QUEUED, 0, None)
    assert world.scheduler.running == 0
    assert world.effects.timers == []


def test_a_stopping_node_starts_no_retry() -> None:
    world = World(warm())
    job = world.submit()
    world.fail(job)
    world.scheduler.stop_accepting()
    world.pass_time(60)
    assert job.state is QUEUED


def test_another_try_voids_what_an_earlier_one_said() -> None:
    world = World(warm("e"), warm("f"))
    job = world.submit(keep=True)
    job.answer.keep = True
    reader = listening(job)
    job.answer.feed(b"data: half\n\n", 1)
    world.fail(job)
    assert (reader.resets, reader.got, job.answer.try_no, job.answer.chunks) == (1, b"", 2, [])


# -- poison and resumed jobs


def test_a_job_that_crashes_its_engine_three_times_is_poison_and_others_proceed() -> None:
    world = World(warm())
    job, other = world.submit(max_attempts=10), world.submit()
    for _ in range(2):
        world.fail(job, crashed=True)
        assert job.state is QUEUED
        if other.state is WORKING:
            world.end(other)
        world.pass_time(60)
        assert job.state is WORKING
    world.fail(job, crashed=True)
    assert (job.state, job.error and job.error.code) == (FAILED, "poison")
    assert other.state is DONE
    assert len(job.tries) == 3


def test_failures_that_are_no_crash_are_not_poison() -> None:
    world = World(warm())
    job = world.submit(max_attempts=10)
    for _ in range(5):
        world.fail(job)
        world.pass_time(60)
    assert job.state is WORKING


def test_a_job_of_an_earlier_run_goes_on_and_keeps_its_attempt() -> None:
    world = World(warm())
    job = world.job(attempt=2, crashes=1, try_no=4)
    world.scheduler.resume_job(job)
    assert (job.state, job.attempt, world.effects.started) == (WORKING, 2, [(job, 5)])


def test_a_job_found_running_after_three_crashes_is_poison() -> None:
    world = World(warm())
    job = world.job(crashes=3)
    world.scheduler.resume_job(job)
    assert (job.state, job.error and job.error.code, world.effects.started) == (FAILED, "poison", [])
    assert world.ended == [job]


# -- cancel


def test_a_waiting_job_is_cancelled_without_touching_an_engine() -> None:
    world = World(warm())
    running, waiting = world.submit(), world.submit()
    assert world.scheduler.cancel(waiting.id) is waiting
    assert (waiting.state, world.effects.stopped) == (CANCELLED, [])
    world.end(running)
    assert len(world.effects.started) == 1


@pytest.mark.parametrize("loaded", [False, True])
def test_a_running_job_is_stopped_and_the_next_one_runs(loaded: bool) -> None:
    world = World()
    job, following = world.submit(), world.submit()
    if loaded:
        world.load(job)
    world.scheduler.cancel(job.id)
    assert (job.state, world.effects.stopped) == (CANCELLED, [job])
    assert following.state.running
    assert job.receipt is not None
    assert job.receipt.tries[0].result == "cancelled"


def test_a_job_in_backoff_is_cancelled_and_does_not_come_back() -> None:
    world = World(warm())
    job = world.submit()
    world.fail(job)
    world.scheduler.cancel(job.id)
    world.pass_time(60)
    assert (job.state, len(world.effects.started), world.scheduler.jobs) == (CANCELLED, 1, {})


def test_a_second_cancel_and_one_after_the_end_change_nothing() -> None:
    world = World(warm())
    job, done = world.submit(), world.submit()
    reader = listening(job)
    world.scheduler.cancel(job.id)
    assert world.scheduler.cancel(job.id) is None
    world.end(done)
    assert world.scheduler.cancel(done.id) is None
    assert (job.state, done.state, len(reader.ends), world.ended) == (CANCELLED, DONE, 1, [job, done])
    assert world.effects.moves_of(job).count(CANCELLED) == 1


# -- engines that come and go


def test_jobs_waiting_at_an_engine_that_vanishes_move_to_another_holder() -> None:
    world = World(warm("e"), warm("f", "other"))
    running, waiting = world.submit(), world.submit()
    world.appear(warm("g"))
    world.registry.remove("e")
    assert waiting.state is WORKING
    assert waiting.lane is not None
    assert waiting.lane.engine == "g"
    world.fail(running)
    assert (running.state, running.lane and running.lane.engine) == (QUEUED, "g")


def test_an_engine_that_is_too_busy_to_be_looked_at_is_still_asked() -> None:
    engine = warm()
    world = World(engine)
    running, waiting = world.submit(), world.submit()
    world.registry.update("e", engine.look(ready=False, detail="It did not answer within 5 s."))
    world.end(running)
    assert waiting.state is WORKING


LIVES_ON: list[dict[str, Any]] = [{"keep": True}, {"origin": Origin.JOBS, "batch": True}]


@pytest.mark.parametrize("lives_on", LIVES_ON, ids=["kept", "line of a batch"])
def test_jobs_that_live_on_wait_uncharged_while_their_engine_is_down(lives_on: dict[str, Any]) -> None:
    engine = warm()
    world = World(engine)
    running, *waiting = [world.submit(**lives_on) for _ in range(6)]
    world.registry.update("e", replace(engine.look(ready=False), models=(), away=True))
    world.fail(running)
    for _ in range(12):
        world.pass_time(3600)
    assert [(job.state, job.attempt) for job in (running, *waiting)] == [(QUEUED, 1)] + [(QUEUED, 0)] * 5
    world.scheduler.survey()
    assert {(job.why, job.eta_s) for job in (running, *waiting)} == {("waits-holder", None)}
    world.look(engine)
    world.pass_time(60)
    world.run_all()
    assert {job.state for job in (running, *waiting)} == {DONE}


def test_who_waits_for_an_answer_of_an_engine_that_is_down_goes_to_another_holder_or_is_told() -> None:
    engine = warm("e", "m", "n")
    world = World(engine, warm("f", "n"))
    world.scheduler.set_mode(NodeMode.PAUSED)
    away, elsewhere = world.submit("m"), world.submit("n")
    world.registry.update("e", replace(engine.look(ready=False), models=(), away=True))
    world.scheduler.set_mode(NodeMode.RUNNING)
    for _ in range(20):
        world.pass_time(4)
    assert (away.state, away.error and away.error.code) == (FAILED, "no_holder_available")
    assert (elsewhere.state, elsewhere.lane and elsewhere.lane.engine) == (WORKING, "f")


def test_what_is_in_flight_stays_true_when_an_engine_goes_and_comes_back() -> None:
    engine = warm()
    world = World(engine)
    job = world.submit()
    world.registry.remove("e")
    world.appear(engine)
    assert [info.in_flight for info in world.registry.model_infos()] == [1]
    world.end(job)
    assert [info.in_flight for info in world.registry.model_infos()] == [0]
    world.registry.remove("e")
    world.appear(engine)
    assert [info.in_flight for info in world.registry.model_infos()] == [0]


# -- pause and drain


def test_while_paused_what_runs_finishes_and_the_rest_waits() -> None:
    world = World(warm())
    running, waiting = world.submit(), world.submit()
    world.scheduler.set_mode(NodeMode.PAUSED)
    late = world.submit()
    world.end(running)
    assert (running.state, waiting.state, late.state, late.why) == (DONE, QUEUED, QUEUED, "waits-paused")
    world.scheduler.set_mode(NodeMode.RUNNING)
    assert names(world.run_all()) == names([waiting, late])


def test_a_job_that_fails_while_paused_waits_for_the_resume() -> None:
    world = World(warm("e"), warm("f"))
    job = world.submit()
    world.scheduler.set_mode(NodeMode.PAUSED)
    world.fail(job)
    assert job.state is QUEUED
    world.pass_time(60)
    assert job.state is QUEUED
    world.scheduler.set_mode(NodeMode.RUNNING)
    world.pass_time(60)
    assert job.state is WORKING


def test_a_draining_node_says_drained_once_nothing_runs() -> None:
    world = World(warm(width=2))
    first, second, third = world.submit(), world.submit(), world.submit()
    world.scheduler.set_mode(NodeMode.DRAINING)
    world.end(first)
    assert world.scheduler.mode is NodeMode.DRAINING
    world.scheduler.cancel(second.id)
    assert (world.scheduler.mode, third.state) == (NodeMode.DRAINED, QUEUED)
    world.scheduler.set_mode(NodeMode.RUNNING)
    assert third.state is WORKING


def test_an_idle_node_is_drained_at_once() -> None:
    world = World(warm())
    world.scheduler.set_mode(NodeMode.DRAINING)
    assert world.scheduler.mode is NodeMode.DRAINED


def test_a_draining_node_is_drained_when_its_last_job_waits_for_a_retry() -> None:
    world = World(warm())
    job = world.submit()
    world.scheduler.set_mode(NodeMode.DRAINING)
    world.fail(job)
    assert world.scheduler.mode is NodeMode.DRAINED


# -- what is told


def test_every_reader_is_told_the_end_once_and_the_receipt_names_who_served() -> None:
    world = World(warm("e"), warm("f"))
    job = world.submit()
    readers = [listening(job), listening(job)]
    world.clock.advance(1)
    world.fail(job)
    world.clock.advance(2)
    world.end(job, ttft_s=0.5, completion_tokens=7, prompt_tokens=3, cached_tokens=1, tokens_per_s=20.0)
    for reader in readers:
        assert [end.state for end in reader.ends] == [DONE]
        assert reader.ends[0].receipt == job.receipt
    receipt = job.receipt
    assert receipt is not None
    assert receipt.engine == job.tries[-1].engine != job.tries[0].engine
    assert [attempt.result for attempt in receipt.tries] == ["engine_failed", "ok"]
    assert (receipt.total_s, receipt.ttft_s, receipt.completion_tokens) == (3, 0.5, 7)
    assert {verdict.verdict for verdict in receipt.verdicts} == {"tried", "warm"}


def test_the_time_a_job_waited_is_told_even_when_it_never_ran() -> None:
    world = World(warm())
    running, waiting = world.submit(), world.submit()
    world.clock.advance(5)
    world.scheduler.cancel(waiting.id)
    world.end(running)
    assert waiting.receipt is not None
    assert (waiting.receipt.queued_s, running.receipt and running.receipt.queued_s) == (5, 0)


def test_a_jump_of_the_wall_clock_changes_no_order_and_fails_nothing() -> None:
    world = World(warm())
    first = world.submit()
    world.clock.jump(-86_400)
    second = world.submit()
    world.clock.jump(172_800)
    third = world.submit()
    assert names(world.run_all()) == names([first, second, third])
    assert {job.state for job in (first, second, third)} == {DONE}
    assert [job.receipt and job.receipt.total_s for job in (first, second, third)] == [1, 2, 3]


@pytest.mark.parametrize("seconds", [-86_400.0, 86_400.0])
def test_a_clock_that_jumps_changes_neither_the_order_nor_how_long_anybody_waits(seconds: float) -> None:
    world = World(warm())
    running, first = world.submit(max_attempts=2), world.submit()
    world.clock.jump(seconds)
    second = world.submit()
    world.scheduler.survey()
    assert [job.id for job in world.scheduler.line()] == [first.id, second.id]
    world.fail(running)
    assert running.state is QUEUED
    world.pass_time(60)
    for job in world.run_all():
        assert job.receipt is not None
        assert 0 <= job.receipt.queued_s < 70
    assert {job.state for job in (running, first, second)} == {DONE}
