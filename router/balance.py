"""Moves jobs that wait: off computers that take nothing now, and to a holder that got free while another is busy."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from router.candidates import Candidates
from router.engines.base import Kind
from router.jobs import Job
from router.lanes import Lane
from router.registry import Registry


class Balance:
    """``replace`` places a job that is in no lane; ``recall`` ends an attempt and places its job again.

    ``parked`` are the jobs that were sent to another computer and wait in its line.
    """

    def __init__(
        self,
        registry: Registry,
        jobs: Mapping[str, Job],
        lanes: dict[tuple[str, bool], Lane],
        candidates: Candidates,
        opens: Callable[[Lane], bool],
        replace: Callable[[Job], None],
        recall: Callable[[Job], None],
    ) -> None:
        self.parked: dict[str, Job] = {}
        self._registry = registry
        self._jobs = jobs
        self._lanes = lanes
        self._candidates = candidates
        self._opens = opens
        self._replace = replace
        self._recall = recall
        self._filling = False

    def park(self, job: Job) -> None:
        """A job was sent to another computer and waits in its line: whoever is free meanwhile may have it."""
        if job.id not in self.parked:
            self.parked[job.id] = job
            for lane in tuple(self._lanes.values()):
                self.fill(lane)

    def fill(self, lane: Lane) -> None:
        """A lane has room and nobody waits in it: let jobs that wait elsewhere come."""
        if self._filling or len(self._lanes) < 2:
            return
        self._filling = True
        try:
            while lane.free and not lane.waiting and self._opens(lane):
                if (job := self._waiting(lane)) is not None:
                    self._move(job)
                elif (job := self._parked(lane)) is not None:
                    if job.decision is not None and (there := job.decision.chosen) is not None:
                        job.tried.add((there.node, there.engine))
                    self._recall(job)
                else:
                    return
                if job.lane is not lane:  # it found something better than what was offered
                    return
        finally:
            self._filling = False

    def _waiting(self, lane: Lane) -> Job | None:
        """The job that comes first of those in other lines that could run here."""
        embedding = self._embedding(lane)
        heads = [
            job
            for (_, kind), other in self._lanes.items()
            if other is not lane and other.waiting and kind is embedding
            for job in other.heads()
        ]
        return self._first(heads, lane)

    def _parked(self, lane: Lane) -> Job | None:
        embedding = self._embedding(lane)
        there = [job for job in self.parked.values() if job.lane is not lane]
        return self._first([job for job in there if (job.kind is Kind.EMBEDDING) is embedding], lane)

    def _first(self, jobs: list[Job], lane: Lane) -> Job | None:
        """Interactive ones first, then those whose model is warm here, then the oldest."""
        able = [
            (job.batch, swap, job.seq, job) for job in jobs if (swap := self._candidates.swap(job, lane)) is not None
        ]
        return min(able, key=lambda entry: entry[:3])[3] if able else None

    def _embedding(self, lane: Lane) -> bool:
        return self._lanes.get((lane.engine, True)) is lane

    def _move(self, job: Job) -> None:
        if job.lane is not None:
            job.lane.remove(job)
        self._replace(job)

    def empty(self, lane: Lane) -> None:
        """The lane's engine is gone: all that wait for it are placed again."""
        for job in tuple(lane.order(lambda _: True)):
            self._move(job)
        self._recall_all(lane)

    def leave(self, lane: Lane) -> None:
        """Nobody goes on waiting for a computer that takes nothing now: it is lost, paused or left alone.

        Nor for an own engine that is down, unless nobody waits for the job: those stay in line.
        """
        if self._registry.local(lane.engine):
            if lane.waiting and not self._registry.answers(lane.engine):
                for job in tuple(lane.order(lambda _: True)):
                    if not job.lives_on:
                        self._move(job)
            return
        self._sweep(lane)
        if any(not self._registry.takes(lane.engine, job.lane_model) for job in lane.heads()):
            for job in tuple(lane.order(lambda _: True)):
                if not self._registry.takes(lane.engine, job.lane_model):
                    self._move(job)
        if not self._registry.snapshots[lane.engine].mode.takes_work:
            self._recall_all(lane)

    def _recall_all(self, lane: Lane) -> None:
        """Those that still wait in its line are taken back."""
        for job in tuple(self.parked.values()):
            if job.lane is lane:
                self._recall(job)

    def _sweep(self, lane: Lane) -> None:
        """Leases that no job has any more are given back, but only once their computer says that it runs nothing."""
        look = self._registry.snapshots[lane.engine]
        if not lane.in_flight or not look.ready or look.in_flight or look.waiting:
            return
        if not any(job.state.running and job.lane and job.lane.engine == lane.engine for job in self._jobs.values()):
            lane.in_flight = 0
            self._registry.replicas.sweep(lane.engine)

    def open_lanes(self) -> None:
        """Engines that have appeared may take what waits elsewhere."""
        for embedding in {embedding for (_, embedding), lane in self._lanes.items() if lane.waiting}:
            for engine in self._registry.engines:
                if (engine, embedding) not in self._lanes:
                    self.fill(self._candidates.lane(engine, Kind.EMBEDDING if embedding else Kind.CHAT))
