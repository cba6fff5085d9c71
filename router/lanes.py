"""The order in which waiting jobs run on one engine: drain the loaded model first, but let nobody starve.

A lane is plain data of the scheduler: no clock, no I/O. Removal is lazy (an entry whose ticket is no longer its job's
is skipped), so adding and picking cost O(log n) in jobs and O(g) in the groups (class and model) that wait.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from router.jobs import Job
from router.placement import HolderView, Word
from router.prediction import UNMEASURED, Speed
from router.registry import Holder

PASSED_OVER_MAX = 16
PASSED_OVER_S = 60.0

        self.local = local
_tickets = itertools.count(1)  # of all lanes: an entry left behind in one must not match a ticket of another

_Heap = list[tuple[int, int, Job]]
"""Jobs as (seq, ticket, job), the oldest first."""


def _oldest(heap: _Heap) -> Job | None:
    while heap and heap[0][2].ticket != heap[0][1]:
        heapq.heappop(heap)
    return heap[0][2] if heap else None


@dataclass(slots=True)
class _Person:
    """Somebody who waits in one class: whose turn was longest ago is next."""

    turn: int
    waiting: int = 0


@dataclass(slots=True)
class _Group:
    """Jobs of one class and model, and how often and since when the oldest of them has been passed over.

    Jobs that already waited when that began (tickets up to ``horizon``) are a backlog that ends by itself and is
    drained without counting; those that came later and are younger count, so that newcomers can't starve anybody.
    """

    batch: bool
    model: str
    ages: _Heap = field(default_factory=list)
    lines: dict[str, _Heap] = field(default_factory=dict)
    turns: list[tuple[int, int, str]] = field(default_factory=list)
    passed: int = 0
    passed_since: float | None = None
    horizon: int = 0

    def first(self, oldest: Job, now: float) -> bool:
        """Whether its oldest goes before everything else: moved to the front, or starved."""
        late = self.passed_since is not None and now - self.passed_since >= PASSED_OVER_S
        return oldest.seq < 0 or late or self.passed >= PASSED_OVER_MAX


class Lane:
    """Waiting and running jobs of one engine (or of its embedder). ``width`` jobs run at once."""

    def __init__(self, engine: str, width: int, local: bool = True) -> None:
        self.engine = engine
        self.width = width
        self.in_flight = 0
        self.waiting = 0
        self.running_model = ""
        self._groups: dict[tuple[bool, str], _Group] = {}
        self._persons: dict[tuple[bool, str], _Person] = {}
        self._newest = 0
        self._turns = 0
        self._front = 0

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
        self._newest = job.ticket = next(_tickets)
        job.lane = self
        group = self._groups.setdefault((job.batch, job.lane_model), _Group(job.batch, job.lane_model))
        person = self._persons.setdefault((job.batch, job.person), _Person(self._turns))
        entry = (job.seq, job.ticket, job)
        heapq.heappush(group.ages, entry)
        if job.person not in group.lines:
            group.lines[job.person] = []
            heapq.heappush(group.turns, (person.turn, job.seq, job.person))
        heapq.heappush(group.lines[job.person], entry)
        person.waiting += 1
        self.waiting += 1

    def remove(self, job: Job) -> None:
        """Take a waiting job out of line; one that doesn't wait here is left alone."""
        if not job.ticket or job.lane is not self:
            return
        job.ticket = 0
        self.waiting -= 1
        person = self._persons[job.batch, job.person]
        person.waiting -= 1
        if not person.waiting:
            del self._persons[job.batch, job.person]

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
        chosen, job = self._choose(heads, resident, now)
        ticket = job.ticket
        self._turns += 1
        self._persons[job.batch, job.person].turn = self._turns
        self.remove(job)
        for group, oldest in heads:
            if group is not chosen and oldest.seq < job.seq:
                if group.passed_since is None:
                    group.passed_since, group.horizon = now, self._newest
                elif ticket > group.horizon:
                    group.passed += 1
        chosen.passed, chosen.passed_since = 0, None
        self.running_model = job.lane_model
        return job

    def heads(self) -> list[Job]:
        """The oldest waiting job of each class and model."""
        return [job for _, job in self._heads()]

    def _heads(self) -> list[tuple[_Group, Job]]:
        """The groups in which somebody waits, with their oldest; empty ones are dropped."""
        heads = [(group, job) for group in self._groups.values() if (job := _oldest(group.ages)) is not None]
        if len(heads) < len(self._groups):
            self._groups = {(group.batch, group.model): group for group, _ in heads}
        return heads

    def _choose(
        self, heads: list[tuple[_Group, Job]], resident: Callable[[str], bool], now: float
    ) -> tuple[_Group, Job]:
        """[1] front or starved, [2] interactive, [3] resident model, [4] the person served longest ago, [5] oldest."""
        first = [(group, oldest) for group, oldest in heads if group.first(oldest, now)]
        if first:
            return min(first, key=lambda head: head[1].seq)
        heads = [(group, oldest) for group, oldest in heads if not group.batch] or heads
        loaded = [group for group, _ in heads if resident(group.model)]
        if not loaded:
            loaded = [min(heads, key=lambda head: head[1].seq)[0]]
        turns = [(group, *self._next_turn(group)) for group in loaded]
        group, _, job = min(turns, key=lambda turn: (turn[1], turn[2].seq))
        return group, job

    def _next_turn(self, group: _Group) -> tuple[int, Job]:
        """The job of the person in ``group`` who was served longest ago, and when. Entries are corrected when met."""
        while True:
            turn, seq, name = group.turns[0]
            job = _oldest(group.lines[name])
            if job is None:
                heapq.heappop(group.turns)
                del group.lines[name]
                continue
            now = self._persons[group.batch, name].turn
            if (turn, seq) == (now, job.seq):
                return now, job
            heapq.heapreplace(group.turns, (now, job.seq, name))

    def order(self, resident: Callable[[str], bool]) -> Iterator[Job]:
        """The waiting jobs, roughly in the order they will run (starvation and turns of persons not foreseen)."""
        buckets: dict[tuple[bool, bool, bool], _Heap] = {}
        for group in self._groups.values():
            cold = not resident(group.model)
            for entry in group.ages:
                if entry[2].ticket == entry[1]:
                    buckets.setdefault((entry[0] >= 0, group.batch, cold), []).append(entry)
        for _, entries in sorted(buckets.items()):
            entries.sort()
            for entry in entries:
                yield entry[2]
