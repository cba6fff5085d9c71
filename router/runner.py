"""The scheduler's effects: attempts as tasks, timers, and the publishing of moves. No decision is made here."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from router.aio import Clock, Tasks
from router.engines.base import Call, Engine
from router.errors import EngineFault, failure
from router.events import Bus
from router.health import Failure
from router.jobs import Job, Outcome, Result
from router.registry import Registry
from router.relay import Limits, Relay
from router.scheduler import Scheduler
from router.states import JobState
from router.web.canonical import with_model
from router.wire import State

log = logging.getLogger(__name__)

LOOK_S: Final = 0.5  # a refusal is known within milliseconds


@dataclass(frozen=True, slots=True)
class JobMoved:
    """Published once for each move of a job; ``old`` is None for a new one."""

    job: Job
    old: JobState | None


class Runner:
    """Implements ``scheduler.Effects`` on one node's loop."""

    def __init__(
        self,
        registry: Registry,
        bus: Bus,
        tasks: Tasks,
        clock: Clock,
        poll: Callable[[str], asyncio.Task[None] | None],
        limits: Limits,
    ) -> None:
        self.scheduler: Scheduler | None = None
        self._registry = registry
        self._bus = bus
        self._tasks = tasks
        self._clock = clock
        self._poll = poll
        self._limits = limits
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(self, job: Job, try_no: int) -> None:
        """[3] One attempt, as a task of its own."""
        self._running[job.id] = self._tasks.spawn("attempt", self._attempt(job, try_no))

    def stop(self, job: Job) -> None:
        """Cancel the attempt: its connection to the engine closes, which ends the generation."""
        task = self._running.pop(job.id, None)
        if task is not None:
            task.cancel()

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        """A timer of the loop."""
        asyncio.get_running_loop().call_later(delay_s, act)

    def moved(self, job: Job, old: JobState | None) -> None:
        """[6] Tell store, page, tray and metrics."""
        self._bus.publish(JobMoved(job, old))

    async def finish_all(self, grace_s: float) -> None:
        """The node stops: give what runs ``grace_s`` seconds; what is left waits, uncharged, for the next start."""
        if self._running:
            await asyncio.wait(tuple(self._running.values()), timeout=grace_s)
        running = {job_id: task for job_id, task in self._running.items() if not task.done()}
        jobs = self._scheduler.jobs
        tries = {job_id: job.try_no for job_id in running if (job := jobs.get(job_id)) is not None}
        for task in running.values():
            task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)
        for job_id, try_no in tries.items():
            if (job := jobs.get(job_id)) is not None:
                self._scheduler.finished(job, try_no, Outcome(Result.STOPPED))

    @property
    def _scheduler(self) -> Scheduler:
        assert self.scheduler is not None  # noqa: S101 - set by the composition root before anything runs
        return self.scheduler

    async def _attempt(self, job: Job, try_no: int) -> None:
        try:
            outcome = await self._outcome(job, try_no)
        except Exception as error:  # a fault of ours must not keep the lease
            log.exception("an attempt ended with %s", type(error).__name__)
            result = Result.INTERRUPTED if job.answer.events else Result.FAILED
            outcome = Outcome(result, failure("internal", "Something in Quorum went wrong."))
        finally:
            if self._running.get(job.id) is asyncio.current_task():
                del self._running[job.id]
        self._scheduler.finished(job, try_no, outcome)
        if outcome.result is Result.FAILED and not job.state.live and job.tries:
            self._poll(job.tries[-1].engine)  # it may be gone: nobody should wait 30 s to see that

    async def _outcome(self, job: Job, try_no: int) -> Outcome:
        chosen = job.decision.chosen if job.decision else None
        engine = self._registry.engines.get(chosen.engine) if chosen else None
        if chosen is None or engine is None:
            return Outcome(Result.FAILED, failure("engine_failed", "The engine is gone."))
        if job.state is JobState.LOADING and (fault := await self._load(engine, job, try_no)) is not None:
            return fault
        limits = self._limits
        if job.deadline_s is not None:
            worked_s = self._clock.mono() - (job.started_mono or self._clock.mono())
            left_s = round(max(0.0, job.deadline_s - worked_s), 2)
            limits = Limits(limits.first_content_s, limits.between_content_s, left_s)
        relay = Relay(job, self._clock, limits)
        call = Call(
            kind=job.kind,
            model=chosen.model,
            body=with_model(job.body, job.model, chosen.model),
            stream=job.stream,
            keep_alive_s=job.keep_alive_s,
            request_id=job.id,
            try_no=try_no,
            deadline_s=limits.whole_s,
            digest=job.digest,
            told=functools.partial(self._told, relay, job, try_no),
        )
        outcome = await relay.run(engine, call)
        if outcome.result is Result.FAILED and chosen.local and job.lives_on:
            await self._look_at(engine)
        if relay.hung and not chosen.local:  # beats without content
            why = outcome.error.message if outcome.error else ""
            self._registry.health.failed(engine.id, chosen.model, Failure.SILENT, why)
        return outcome

    async def _look_at(self, engine: Engine) -> None:
        """Whether a failed engine is still there is known before the next job is sent: its whole line would fail."""
        looking = self._poll(engine.id)
        if looking is not None:
            await asyncio.wait({looking}, timeout=LOOK_S)

    def _told(self, relay: Relay, job: Job, try_no: int, state: State) -> None:
        """Another computer tells how the job stands there."""
        relay.heard(state)
        self._scheduler.heard(job, try_no, state)

    async def _load(self, engine: Engine, job: Job, try_no: int) -> Outcome | None:
        """Make the model resident; None when it is."""
        try:
            await engine.load(
                job.lane_model,
                keep_alive_s=job.keep_alive_s,
                progress=lambda percent: self._scheduler.progress(job, try_no, percent),
                kind=job.kind,
            )
        except EngineFault as fault:
            result = Result.FAILED if fault.retryable else Result.REJECTED
            return Outcome(result, fault.info(), crashed=fault.crashed, lasting=fault.lasting)
        finally:
            looking = self._poll(engine.id)
        if looking is not None:
            await asyncio.shield(looking)  # which model left is known before the lane's next pick
        self._scheduler.loaded(job, try_no)
        return None
