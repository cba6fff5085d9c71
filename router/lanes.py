"""One engine's lane: the jobs that wait for it in line, and how many of it run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from router.jobs import Job
from router.line import Line
from router.placement import HolderView, Word
from router.prediction import UNMEASURED, Speed
from router.registry import Holder

_tickets = itertools.count(1)  # of all lanes: an entry left behind in one must not match a ticket of another


class Lane:
    """Waiting and running jobs of one engine (or of its embedder), here or elsewhere. ``width`` jobs run at once."""

    def __init__(self, engine: str, width: int, local: bool = True) -> None:
        self.engine = engine
        self.local = local
        self.width = width
        self.in_flight = 0
        self.running_model = ""
        self._line = Line()
        self._front = 0

    @property
    def waiting(self) -> int:
        return len(self._line)

    @property
    def free(self) -> bool:
        return self.in_flight < self.width

    def view(self, holder: Holder, blocked: Word | None, speed: Speed = UNMEASURED) -> HolderView:
        """A holder whose jobs run here, as placement sees it; ``blocked`` is this node's own reason to take none."""
        return HolderView(
            node=holder.node,
            engine=holder.engine,
            model=holder.model,
            local=holder.local,
            warm=holder.warm,
            in_flight=self.in_flight + holder.others,
            waiting=self.waiting,
            width=max(self.width, holder.width),
            last_used=holder.last_used,
            free_vram_bytes=holder.free_vram_bytes,
            blocked=holder.blocked or blocked,
            detail=holder.detail,
            digest=holder.digest,
            speed=speed,
        )

    def add(self, job: Job) -> None:
        """Put a job in line by its ``seq``."""
        job.ticket = next(_tickets)
        job.lane = self
        self._line.add(job)

    def remove(self, job: Job) -> None:
        """Take a waiting job out of line; one that doesn't wait here is left alone."""
        if job.ticket and job.lane is self:
            self._line.remove(job)
            job.ticket = 0

    def to_front(self, job: Job) -> None:
        """Let a waiting job be the next of all."""
        if job.ticket and job.lane is self:
            self.remove(job)
            self._front -= 1
            job.seq = self._front
            job.batch = False
            self.add(job)

    def pick(self, resident: Callable[[str], bool], now: float) -> Job | None:
        """Take the next job out of line; ``now`` is monotonic seconds."""
        job = self._line.pick(resident, now)
        if job is not None:
            job.ticket = 0
            self.running_model = job.lane_model
        return job

    def heads(self) -> list[Job]:
        """The oldest waiting job of each class and model."""
        return self._line.heads()

    def order(
        self,
        resident: Callable[[str], bool],
        now: float = 0.0,
        takes_s: Callable[[Job, bool], float] = lambda job, cold: 0.0,
    ) -> Iterator[Job]:
        """The waiting jobs in the order they will run: see ``Line.drained``."""
        return self._line.drained(resident, now, takes_s)
