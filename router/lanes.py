"""The order in which waiting jobs run on one engine: drain the loaded model first, but let nobody starve.

A lane is plain data of the scheduler: no clock, no I/O. Removal is lazy (an entry whose ticket is no longer its job's
is skipped), so adding and picking cost O(log n) in jobs and O(m) in the (class, person, model) lines that wait.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from router.jobs import Job

PASSED_OVER_MAX = 16
PASSED_OVER_S = 60.0

_tickets = itertools.count(1)  # of all lanes: an entry left behind in one must not match a ticket of another


@dataclass(slots=True)
class _Line:
    """Jobs of one (class, person, model), oldest first, and how often and since when its head has been passed over.

    Jobs that already waited when that began (tickets up to ``horizon``) are a backlog that ends by itself and is
    drained without counting; those that came later and are younger count, so that newcomers can't starve anybody.
    """

    batch: bool
    person: str
    model: str
    turn: int
    heap: list[tuple[int, int, Job]] = field(default_factory=list)
    passed: int = 0
    passed_since: float | None = None
    horizon: int = 0

    def head(self) -> tuple[int, int, Job] | None:
        while self.heap and self.heap[0][2].ticket != self.heap[0][1]:
            heapq.heappop(self.heap)
        return self.heap[0] if self.heap else None

    def first(self, now: float) -> bool:
        """Whether its head goes before everything else: moved to the front, or starved."""
        if self.heap[0][0] < 0:
            return True
        late = self.passed_since is not None and now - self.passed_since >= PASSED_OVER_S
        return late or self.passed >= PASSED_OVER_MAX


class Lane:
    """Waiting and running jobs of one engine (or of its embedder). ``width`` jobs run at once."""

    def __init__(self, engine: str, width: int) -> None:
        self.engine = engine
        self.width = width
        self.in_flight = 0
        self.waiting = 0
        self._lines: dict[tuple[bool, str, str], _Line] = {}
        self._newest = 0
        self._turns = 0
        self.running_model = ""
        self._front = 0

    @property
    def free(self) -> bool:
        return self.in_flight < self.width

    def add(self, job: Job) -> None:
        """Put a job in line by its ``seq``."""
        self._newest = job.ticket = next(_tickets)
        job.lane = self
        key = (job.batch, job.person, job.lane_model)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(job.batch, job.person, job.lane_model, self._turns)
        heapq.heappush(line.heap, (job.seq, job.ticket, job))
        self.waiting += 1

    def remove(self, job: Job) -> None:
        """Take a waiting job out of line; one that doesn't wait here is left alone."""
        if job.ticket and job.lane is self:
            job.ticket = 0
            self.waiting -= 1

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
        heads = self._heads()
        if not heads:
            return None
        chosen = self._choose(heads, resident, now)
        seq, ticket, job = heapq.heappop(chosen.heap)
        self._turns += 1
        for line in heads:
            if line.person == chosen.person and line.batch == chosen.batch:
                line.turn = self._turns
            if line is not chosen and line.heap[0][0] < seq:
                if line.passed_since is None:
                    line.passed_since, line.horizon = now, self._newest
                elif ticket > line.horizon:
                    line.passed += 1
        chosen.passed, chosen.passed_since = 0, None
        job.ticket = 0
        self.waiting -= 1
        self.running_model = job.lane_model
        return job

    def _heads(self) -> list[_Line]:
        """The lines in which somebody waits; empty ones are dropped."""
        empty = [key for key, line in self._lines.items() if line.head() is None]
        for key in empty:
            del self._lines[key]
        return list(self._lines.values())

    @staticmethod
    def _choose(heads: list[_Line], resident: Callable[[str], bool], now: float) -> _Line:
        """[1] front or starved, [2] interactive, [3] resident model, [4] the person served longest ago, [5] oldest."""
        if len(heads) == 1:
            return heads[0]
        first = [line for line in heads if line.first(now)]
        if first:
            return min(first, key=lambda line: line.heap[0][0])
        interactive = [line for line in heads if not line.batch] or heads
        warm = {model: resident(model) for model in {line.model for line in interactive}}
        loaded = [line for line in interactive if warm[line.model]]
        if loaded:
            return min(loaded, key=lambda line: (line.turn, line.heap[0][0]))
        return min(interactive, key=lambda line: line.heap[0][0])

    def order(self, resident: Callable[[str], bool]) -> Iterator[Job]:
        """The waiting jobs, roughly in the order they will run (starvation and turns of persons not foreseen)."""
        warm = {model: resident(model) for model in {line.model for line in self._lines.values()}}
        entries = [
            (seq >= 0, line.batch, not warm[line.model], seq, ticket, job)
            for line in self._lines.values()
            for seq, ticket, job in line.heap
            if job.ticket == ticket
        ]
        entries.sort(key=lambda entry: entry[:5])
        return (entry[5] for entry in entries)
