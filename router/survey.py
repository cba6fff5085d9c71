"""Where each waiting job stands, when it should start and why it waits: told to people, decides nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping

from router.aio import Clock
from router.jobs import Job
from router.lanes import Lane
from router.rates import Rates
from router.registry import Registry
from router.states import JobState, NodeMode

CHEAP_JOBS = 50
LOOK_AT_JOB_S = 0.002
AGAIN_S = 1.0


class Survey:
    """Notes ``place``, ``eta_s`` and ``why`` on the jobs in line; the more wait, the less often, but each second."""

    def __init__(
        self,
        jobs: Mapping[str, Job],
        lanes: Mapping[tuple[str, bool], Lane],
        registry: Registry,
        rates: Rates,
        clock: Clock,
    ) -> None:
        self._jobs = jobs
        self._lanes = lanes
        self._registry = registry
        self._rates = rates
        self._clock = clock
        self._taken = -AGAIN_S

    def take(self, mode: NodeMode) -> None:
        """Look at every line."""
        now = self._clock.mono()
        jobs = len(self._jobs)
        if jobs > CHEAP_JOBS and now - self._taken < min(AGAIN_S, jobs * LOOK_AT_JOB_S):
            return
        self._taken = now
        loading = {job.lane: job.lane_model for job in self._jobs.values() if job.state is JobState.LOADING}
        for lane in self._lanes.values():
            answers = self._registry.answers(lane.engine)
            line = list(lane.order(self._resident(lane, loading.get(lane)), now, self._takes_s(lane)))
            for place, (job, eta_s) in enumerate(zip(line, self._rates.etas(lane, line), strict=True), 1):
                job.place = place
                job.eta_s = eta_s if mode.takes_work and answers else None
                job.why = self._why(job, lane, mode, loading.get(lane)) if answers else "waits-holder"

    def _resident(self, lane: Lane, loading: str | None) -> Callable[[str], bool]:
        """What will be loaded when ``lane`` picks its next job."""
        warm = functools.partial(self._registry.warm, lane.engine)
        return warm if loading is None or warm(loading) else loading.__eq__

    def _takes_s(self, lane: Lane) -> Callable[[Job, bool], float]:
        """How long a job at ``lane`` keeps the next one waiting, and longer if its model must be loaded."""

        def takes_s(job: Job, cold: bool) -> float:
            load_s = self._rates.load_s(lane.engine, job.lane_model) if cold else 0.0
            return load_s + self._rates.work_s(lane.engine, job.lane_model) / lane.width

        return takes_s

    def line(self) -> Iterator[Job]:
        """The waiting jobs, lane by lane in the order they will run, as of the last look."""
        waiting = [job for job in self._jobs.values() if job.ticket]
        return iter(sorted(waiting, key=lambda job: (job.lane.engine if job.lane else "", job.place or 0)))

    def _why(self, job: Job, lane: Lane, mode: NodeMode, loading: str | None) -> str:
        """What a job in line waits for, in one word."""
        if not mode.takes_work:
            return "waits-paused" if mode is NodeMode.PAUSED else "waits-draining"
        if loading is not None:
            return "waits-load" if loading == job.lane_model else "waits-other-load"
        ready = job.lane_model == lane.running_model or self._registry.warm(lane.engine, job.lane_model)
        return "waits-turn" if ready else "waits-other-model"
