"""How long jobs take here, as measured: the ETA of those that wait and the Retry-After of those that are refused."""

from __future__ import annotations

from collections.abc import Iterable

from router.jobs import Job
from router.lanes import Lane

WEIGHT = 0.2
UNKNOWN_S = 10.0


class Rates:
    """Moving means of the seconds a job works and a model loads, by engine and model."""

    def __init__(self) -> None:
        self._work_s: dict[tuple[str, str], float] = {}
        self._load_s: dict[tuple[str, str], float] = {}

    def learn(self, job: Job) -> None:
        """Learn from a job that is done."""
        if job.lane is None or job.receipt is None:
            return
        key = (job.lane.engine, job.lane_model)
        worked_s = (job.receipt.total_s or 0.0) - job.receipt.queued_s - job.receipt.loading_s
        self._learn(self._work_s, key, max(0.0, worked_s))
        if job.receipt.loading_s > 0:
            self._learn(self._load_s, key, job.receipt.loading_s)

    @staticmethod
    def _learn(means: dict[tuple[str, str], float], key: tuple[str, str], value: float) -> None:
        old = means.get(key)
        means[key] = value if old is None else old + WEIGHT * (value - old)

    def work_s(self, engine: str, model: str) -> float:
        """Seconds one job of ``model`` works at ``engine``."""
        return self._work_s.get((engine, model), UNKNOWN_S)

    def load_s(self, engine: str, model: str) -> float:
        """Seconds the load of ``model`` takes at ``engine``; 0 while unknown."""
        return self._load_s.get((engine, model), 0.0)

    def etas(self, lane: Lane, waiting: list[Job]) -> list[float]:
        """Seconds until each of ``waiting`` (in the order they will run) starts, swaps of models included."""
        loaded = lane.running_model
        at = self.work_s(lane.engine, loaded) / 2 / lane.width if loaded and not lane.free else 0.0
        etas = []
        for job in waiting:
            if loaded and job.lane_model != loaded:
                at += self.load_s(lane.engine, job.lane_model)
            loaded = job.lane_model
            etas.append(round(at, 1))
            at += self.work_s(lane.engine, job.lane_model) / lane.width
        return etas

    def turn_s(self, lanes: Iterable[Lane]) -> float:
        """Seconds until some lane takes its next job: when a full queue should have a place again."""
        turns = [self.work_s(lane.engine, lane.running_model) / lane.width for lane in lanes if lane.waiting]
        return min(300.0, max(1.0, min(turns, default=1.0)))
