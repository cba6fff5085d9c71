"""A scheduler with engines in memory, fake effects and a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from router.errors import failure
from router.health import Health
from router.jobs import Job, Outcome, Result
from router.registry import Registry
from router.scheduler import Scheduler
from router.states import JobState
from tests.fakes import FakeClock, FakeEffects, MemoryEngine, make_job

FAULT = failure("engine_failed", "The engine refused.")


class World:
    """``jitter`` takes the longest backoff, so that a test can say when a job comes back."""

    def __init__(
        self,
        *engines: MemoryEngine,
        route: str | Callable[[str], str] = "peers-first",
        jitter: Callable[[float, float], float] = lambda low, high: high,
    ) -> None:
        self.clock = FakeClock()
        self.effects = FakeEffects(self.clock)
        self.registry = Registry("here", lambda: "here", health=Health(self.clock, lambda low, high: 1.0))
        self.width: dict[str, int] = {}
        self.scheduler = Scheduler(
            self.registry,
            self.effects,
            self.clock,
            width=lambda engine: self.width.get(engine, 1),
            route=route if callable(route) else lambda _: route,
            jitter=jitter,
        )
        self.registry.changed = self.scheduler.refresh
        self.ended: list[Job] = []
        self._seq = 0
        for engine in engines or (MemoryEngine(),):
            self.appear(engine)

    def appear(self, engine: MemoryEngine) -> None:
        self.width.setdefault(engine.id, engine.width)
        self.registry.add(engine)
        self.look(engine)

    def look(self, engine: MemoryEngine, **look: Any) -> None:
        self.registry.update(engine.id, engine.look(**look))

    def job(self, model: str = "m", **changes: Any) -> Job:
        self._seq += 1
        return make_job(
            self._seq,
            model,
            created_at=self.clock.wall(),
            created_mono=self.clock.mono(),
            **({"on_end": self.ended.append} | changes),
        )

    def submit(self, model: str = "m", **changes: Any) -> Job:
        job = self.job(model, **changes)
        self.scheduler.submit(job)
        return job

    def load(self, job: Job) -> None:
        """What the runner does: the job's model becomes resident on its engine."""
        assert job.lane is not None
        engine = self.registry.engines[job.lane.engine]
        assert isinstance(engine, MemoryEngine)
        engine.make_resident(job.lane_model)
        self.look(engine)
        self.scheduler.loaded(job, job.try_no)

    def end(self, job: Job, result: Result = Result.DONE, **facts: Any) -> None:
        """The running attempt of ``job`` ends; it loads first where it must."""
        if job.state is JobState.LOADING and result is Result.DONE:
            self.load(job)
        error = None if result in (Result.DONE, Result.STOPPED) else facts.pop("error", FAULT)
        self.scheduler.finished(job, job.try_no, Outcome(result, error, **facts))

    def fail(self, job: Job, **facts: Any) -> None:
        self.end(job, Result.FAILED, **facts)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.effects.run_due()

    @property
    def running(self) -> list[Job]:
        return [job for job in self.scheduler.jobs.values() if job.state.running]

    def run_all(self, take_s: float = 1.0) -> list[Job]:
        """End whatever runs, one after the other, until nothing does; the jobs in the order they ended."""
        order = []
        while self.running:
            job = self.running[0]
            self.clock.advance(take_s)
            self.end(job)
            order.append(job)
        return order
