"""Attempts as tasks, with a real scheduler and an engine in memory: loads, calls, stops, retries, the node's end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from router.aio import SystemClock, Tasks
from router.engines.base import Call, Reply
from router.errors import EngineFault
from router.events import Bus
from router.jobs import Job
from router.registry import Registry
from router.relay import Limits
from router.runner import JobMoved, Runner
from router.scheduler import Scheduler
from router.states import JobState
from tests.fakes import BOUND_S, DONE, MemoryEngine, chunk, happens, listening, make_job, pieces, stream

WORDS = stream("Hel", "lo")


class House:
    """A runner with its scheduler, as the node builds them."""

    def __init__(self, *engines: MemoryEngine, limits: Limits | None = None) -> None:
        self.clock = SystemClock()
        self.registry = Registry("here", lambda: "here")
        self.tasks = Tasks()
        self.bus = Bus()
        self.polled: list[str] = []
        self.moves: list[tuple[JobState | None, JobState]] = []
        self.ended = asyncio.Event()
        self.runner = Runner(self.registry, self.bus, self.tasks, self.clock, self.poll, limits or Limits())
        self.scheduler = Scheduler(
            self.registry, self.runner, self.clock, width=lambda _: 1, route=lambda _: "", jitter=lambda low, high: 0.0
        )
        self.runner.scheduler = self.scheduler
        self.registry.changed = self.scheduler.refresh
        self.bus.listen(JobMoved, lambda moved: self.moves.append((moved.old, moved.job.state)))
        for engine in engines:
            self.registry.add(engine)
            self.registry.update(engine.id, engine.look())

    def poll(self, engine_id: str) -> None:
        self.polled.append(engine_id)
        engine = self.registry.engines[engine_id]
        assert isinstance(engine, MemoryEngine)
        self.registry.update(engine_id, engine.look())

    def submit(self, seq: int = 1, **changes: Any) -> Job:
        job = make_job(seq, **({"on_end": lambda job: self.ended.set(), "created_mono": self.clock.mono()} | changes))
        self.scheduler.submit(job)
        return job

    async def idle(self) -> None:
        """Every task ends by itself."""
        if self.tasks._running:
            await asyncio.wait(tuple(self.tasks._running), timeout=BOUND_S)
        assert len(self.tasks) == 0

    async def end_of(self, job: Job) -> JobState:
        await happens(self.ended)
        self.ended.clear()
        return job.state


def says(*events: bytes) -> Any:
    return lambda call: Reply(200, "text/event-stream", pieces(*events))


async def gated(gate: asyncio.Event, *events: bytes) -> AsyncIterator[bytes]:
    """The first of ``events`` at once, the others when ``gate`` opens."""
    first, *rest = events
    yield first
    await gate.wait()
    for event in rest:
        yield event


@pytest.fixture
async def engine() -> MemoryEngine:
    made = MemoryEngine()
    made.reply = says(WORDS)
    return made


async def test_a_job_loads_its_model_asks_the_engine_and_is_done(engine: MemoryEngine) -> None:
    house = House(engine)
    job = house.submit(keep_alive_s=60.0)
    reader = listening(job)
    assert await house.end_of(job) is JobState.DONE
    assert house.moves == [
        (None, JobState.QUEUED),
        (JobState.QUEUED, JobState.LOADING),
        (JobState.LOADING, JobState.WORKING),
        (JobState.WORKING, JobState.DONE),
    ]
    assert (engine.loaded, house.polled) == (["m"], ["e"])
    (call,) = engine.calls
    assert (call.kind, call.model, call.body, call.stream) == (job.kind, "m", job.body, True)
    assert (call.keep_alive_s, call.request_id) == (60.0, job.id)
    assert reader.got == WORDS
    await house.idle()


async def test_the_engine_is_asked_by_its_own_name_of_the_model() -> None:
    engine = MemoryEngine(models=("Own-Name",))
    engine.reply = says(WORDS)
    house = House(engine)
    job = house.submit(model="own-name:latest")
    await house.end_of(job)
    (call,) = engine.calls
    assert (call.model, json.loads(call.body)["model"]) == ("Own-Name", "Own-Name")
    assert json.loads(call.body) | {"model": job.model} == json.loads(job.body)


async def test_the_progress_of_a_load_is_told(engine: MemoryEngine) -> None:
    engine.load_gate = asyncio.Event()
    engine.percents = [10, 60]
    house = House(engine)
    job = house.submit()
    reader = listening(job)
    engine.load_gate.set()
    await house.end_of(job)
    assert [state.loading_pct for state in reader.states if state.loading_pct is not None] == [10, 60]


async def test_a_failed_load_lets_another_holder_try_and_its_state_is_looked_at(engine: MemoryEngine) -> None:
    bad = MemoryEngine("bad")
    bad.load_fault = EngineFault("Not enough memory.", code="models_busy")
    house = House(bad, engine)
    job = house.submit()
    assert await house.end_of(job) is JobState.DONE
    assert [(attempt.engine, attempt.result) for attempt in job.tries] == [("bad", "models_busy"), ("e", "ok")]
    assert house.polled == ["bad", "e"]


async def test_an_engine_that_failed_a_job_for_good_is_looked_at(engine: MemoryEngine) -> None:
    engine.make_resident("m")
    engine.reply = None
    house = House(engine)
    job = house.submit(max_attempts=2)
    assert await house.end_of(job) is JobState.FAILED
    await house.idle()
    assert (len(engine.calls), house.polled) == (2, ["e"])


async def test_a_load_that_nobody_can_help_is_final(engine: MemoryEngine) -> None:
    engine.load_fault = EngineFault("The model is quarantined.", retryable=False)
    house = House(engine)
    job = house.submit()
    assert await house.end_of(job) is JobState.FAILED
    assert job.error is not None
    assert (job.error.message, engine.calls) == ("The model is quarantined.", [])


async def test_a_model_that_crashes_its_engine_while_loading_is_poison_after_three_runs(engine: MemoryEngine) -> None:
    engine.load_fault = EngineFault("The engine stopped.", crashed=True)
    house = House(engine)
    job = house.submit(max_attempts=9)
    assert await house.end_of(job) is JobState.FAILED
    assert (job.error and job.error.code, len(job.tries)) == ("poison", 3)


async def test_a_refusal_is_tried_again_until_the_attempts_are_spent(engine: MemoryEngine) -> None:
    engine.reply = lambda call: Reply(503, "application/json", pieces(b'{"error": "busy"}'))
    house = House(engine)
    job = house.submit(max_attempts=3)
    assert await house.end_of(job) is JobState.FAILED
    assert (len(engine.calls), job.error and job.error.message) == (3, "busy")


async def test_a_cancelled_job_leaves_the_engine_at_once_and_the_next_one_runs(engine: MemoryEngine) -> None:
    gate = asyncio.Event()
    engine.reply = lambda call: Reply(200, "text/event-stream", gated(gate, chunk("a"), DONE))
    house = House(engine)
    job, following = house.submit(1), house.submit(2)
    reader = listening(job)
    await happens(reader.came)
    house.scheduler.cancel(job.id)
    assert await house.end_of(job) is JobState.CANCELLED
    second = listening(following)
    gate.set()
    assert await house.end_of(following) is JobState.DONE
    assert (engine.left_early, second.got) == (1, chunk("a") + DONE)
    await house.idle()


async def test_a_cancelled_load_is_given_up(engine: MemoryEngine) -> None:
    engine.load_gate = asyncio.Event()
    house = House(engine)
    job = house.submit()
    await asyncio.wait(tuple(house.tasks._running), timeout=0.01)
    house.scheduler.cancel(job.id)
    assert await house.end_of(job) is JobState.CANCELLED
    async with asyncio.timeout(BOUND_S):
        await house.tasks.close()
    assert (engine.loaded, engine.calls) == ([], [])


async def test_a_job_cancelled_before_its_task_began_leaves_nothing_behind(engine: MemoryEngine) -> None:
    house = House(engine)
    job = house.submit()
    house.scheduler.cancel(job.id)
    assert await house.end_of(job) is JobState.CANCELLED
    await house.tasks.close()
    assert (house.runner._running, house.scheduler.running, engine.calls) == ({}, 0, [])


async def test_an_engine_that_vanished_before_the_attempt_is_a_failed_try(engine: MemoryEngine) -> None:
    house = House(engine)
    job = house.submit(max_attempts=1)
    house.registry.remove("e")
    assert await house.end_of(job) is JobState.FAILED
    assert job.tries[0].detail == "The engine is gone."


@pytest.mark.parametrize(("said", "state"), [(b"", JobState.DONE), (chunk("half"), JobState.FAILED)])
async def test_a_fault_of_ours_gives_the_lease_back_and_never_answers_twice(
    engine: MemoryEngine, said: bytes, state: JobState, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        if said:
            yield said
        raise KeyError("a bug")

    replies = [Reply(200, "text/event-stream", broken()), Reply(200, "text/event-stream", pieces(WORDS))]
    engine.reply = lambda call: replies.pop(0)
    house = House(engine)
    job = house.submit()
    assert await house.end_of(job) is state
    assert [attempt.result for attempt in job.tries] == ["internal", "ok"][: 1 if said else 2]
    assert house.scheduler.running == 0
    assert "an attempt ended with KeyError" in caplog.text
    following = house.submit(2)
    replies.append(Reply(200, "text/event-stream", pieces(WORDS)))
    assert await house.end_of(following) is JobState.DONE


async def test_the_deadline_of_a_job_bounds_its_attempt(engine: MemoryEngine) -> None:
    engine.reply = lambda call: Reply(200, "text/event-stream", gated(asyncio.Event(), chunk("a"), DONE))
    house = House(engine)
    job = house.submit(deadline_s=0.1)
    assert await house.end_of(job) is JobState.FAILED
    assert job.error is not None
    assert "0.1 s" in job.error.message


async def test_at_the_end_of_the_node_what_can_finish_finishes_and_the_rest_waits_uncharged() -> None:
    quick, slow = MemoryEngine("quick", ("q",)), MemoryEngine("slow", ("s",))
    gate = asyncio.Event()
    quick.reply = lambda call: Reply(200, "text/event-stream", gated(gate, chunk("a"), DONE))
    slow.reply = lambda call: Reply(200, "text/event-stream", gated(asyncio.Event(), chunk("a"), DONE))
    house = House(quick, slow)
    done, left, waiting = house.submit(1, model="q"), house.submit(2, model="s"), house.submit(3, model="s")
    for reader in [listening(done), listening(left)]:
        await happens(reader.came)
    house.scheduler.stop_accepting()
    gate.set()
    async with asyncio.timeout(BOUND_S):
        await house.runner.finish_all(0.3)
    assert (done.state, left.state, waiting.state) == (JobState.DONE, JobState.QUEUED, JobState.QUEUED)
    assert (left.attempt, left.error, slow.left_early) == (0, None, 1)
    assert house.scheduler.running == 0
    await house.runner.finish_all(0.3)  # nothing runs: it returns at once


@pytest.mark.parametrize("keep", [True, False])
async def test_an_engine_that_failed_a_job_that_lives_on_is_looked_at_before_the_next_is_sent(
    engine: MemoryEngine, keep: bool
) -> None:
    house = House(engine)
    looked = asyncio.Event()

    def reply(call: Call) -> Reply:
        raise EngineFault("It refused the connection.")

    def poll(engine_id: str) -> asyncio.Task[None]:
        house.polled.append(engine_id)
        return house.tasks.spawn("poll", look())

    async def look() -> None:
        await asyncio.sleep(0)
        house.registry.update(engine.id, replace(engine.look(), ready=False, models=(), away=True))
        looked.set()

    engine.loads, engine.reply = False, reply
    house.runner._poll = poll
    back = asyncio.Event()
    house.bus.listen(JobMoved, lambda moved: back.set() if moved.old is JobState.WORKING else None)
    first, second = house.submit(1, keep=keep), house.submit(2, keep=keep)
    await happens(back)
    assert looked.is_set() is keep
    assert (first.attempt, second.try_no) == ((1, 0) if keep else (1, 1))


async def test_a_timer_of_the_scheduler_is_a_timer_of_the_loop() -> None:
    house, rang = House(), asyncio.Event()
    house.runner.later(0.01, rang.set)
    await happens(rang)
