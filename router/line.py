"""Who is next in line: the loaded model is drained first, and nobody starves.

Plain data: no clock, no I/O. Removal is lazy (an entry whose ticket waits no more is skipped), so adding and picking
cost O(log n) in jobs and O(g) in the groups (class and model) that wait.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from router.jobs import Job

PASSED_OVER_MAX: Final = 16
PASSED_OVER_S: Final = 60.0
FORESEEN: Final = 1000  # places that are foreseen exactly: each costs about as much as a pick

Entries: TypeAlias = list[tuple[int, int, Job]]
"""Jobs as a heap of (seq, ticket, job), the oldest first."""


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
    ages: Entries = field(default_factory=list)
    lines: dict[str, Entries] = field(default_factory=dict)
    turns: list[tuple[int, int, str]] = field(default_factory=list)
    passed: int = 0
    passed_since: float | None = None
    horizon: int = 0

    def first(self, oldest: Job, now: float) -> bool:
        """Whether its oldest goes before everything else: moved to the front, or starved."""
        late = self.passed_since is not None and now - self.passed_since >= PASSED_OVER_S
        return oldest.seq < 0 or late or self.passed >= PASSED_OVER_MAX

    def copy(self) -> _Group:
        lines = {person: list(entries) for person, entries in self.lines.items()}
        return replace(self, ages=list(self.ages), lines=lines, turns=list(self.turns))


class Line:
    """The jobs that wait at one engine, known by their tickets. ``len`` is their number."""

    def __init__(self) -> None:
        self._groups: dict[tuple[bool, str], _Group] = {}
        self._persons: dict[tuple[bool, str], _Person] = {}
        self._tickets: set[int] = set()
        self._newest = 0
        self._turns = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def add(self, job: Job) -> None:
        """Put a job in line by its ``seq``; its ticket is a new one."""
        self._newest = job.ticket
        self._tickets.add(job.ticket)
        group = self._groups.setdefault((job.batch, job.lane_model), _Group(job.batch, job.lane_model))
        person = self._persons.setdefault((job.batch, job.who), _Person(self._turns))
        entry = (job.seq, job.ticket, job)
        heapq.heappush(group.ages, entry)
        if job.who not in group.lines:
            group.lines[job.who] = []
            heapq.heappush(group.turns, (person.turn, job.seq, job.who))
        heapq.heappush(group.lines[job.who], entry)
        person.waiting += 1

    def remove(self, job: Job) -> None:
        """Take a job out of line; it is in it."""
        self._tickets.remove(job.ticket)
        person = self._persons[job.batch, job.who]
        person.waiting -= 1
        if not person.waiting:
            del self._persons[job.batch, job.who]

    def pick(self, resident: Callable[[str], bool], now: float) -> Job | None:
        """Take the next job out of line; ``now`` is monotonic seconds."""
        heads = self._heads()
        if not heads:
            return None
        chosen, job = self._choose(heads, resident, now)
        self._turns += 1
        self._persons[job.batch, job.who].turn = self._turns
        self.remove(job)
        for group, oldest in heads:
            if group is not chosen and oldest.seq < job.seq:
                if group.passed_since is None:
                    group.passed_since, group.horizon = now, self._newest
                elif job.ticket > group.horizon:
                    group.passed += 1
        chosen.passed, chosen.passed_since = 0, None
        return job

    def heads(self) -> list[Job]:
        """The oldest job of each class and model."""
        return [job for _, job in self._heads()]

    def _heads(self) -> list[tuple[_Group, Job]]:
        """The groups in which somebody waits, with their oldest; empty ones are dropped."""
        heads = [(group, job) for group in self._groups.values() if (job := self._oldest(group.ages)) is not None]
        if len(heads) < len(self._groups):
            self._groups = {(group.batch, group.model): group for group, _ in heads}
        return heads

    def _oldest(self, entries: Entries) -> Job | None:
        while entries and entries[0][1] not in self._tickets:
            heapq.heappop(entries)
        return entries[0][2] if entries else None

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
            job = self._oldest(group.lines[name])
            if job is None:
                heapq.heappop(group.turns)
                del group.lines[name]
                continue
            now = self._persons[group.batch, name].turn
            if (turn, seq) == (now, job.seq):
                return now, job
            heapq.heapreplace(group.turns, (now, job.seq, name))

    # -- what will be

    def drained(
        self, resident: Callable[[str], bool], now: float, takes_s: Callable[[Job, bool], float]
    ) -> Iterator[Job]:
        """The jobs in the order they will be picked if nobody comes, nobody leaves, and a load replaces what is loaded.

        ``takes_s`` tells how long a job keeps the next one waiting; True: its model must be loaded. Beyond ``FORESEEN``
        places the turns of persons and starvation are not foreseen.
        """
        line, loaded = self._copy(), resident
        for _ in range(FORESEEN):
            job = line.pick(loaded, now)
            if job is None:
                return
            cold = not loaded(job.lane_model)
            if cold:
                loaded = job.lane_model.__eq__
            now += takes_s(job, cold)
            yield job
        yield from line._roughly(loaded)

    def _copy(self) -> Line:
        line = Line()
        line._groups = {key: group.copy() for key, group in self._groups.items()}
        line._persons = {key: replace(person) for key, person in self._persons.items()}
        line._tickets = set(self._tickets)
        line._newest, line._turns = self._newest, self._turns
        return line

    def _roughly(self, resident: Callable[[str], bool]) -> Iterator[Job]:
        buckets: dict[tuple[bool, bool, bool], Entries] = {}
        for group in self._groups.values():
            cold = not resident(group.model)
            for entry in group.ages:
                if entry[1] in self._tickets:
                    buckets.setdefault((entry[0] >= 0, group.batch, cold), []).append(entry)
        for _, entries in sorted(buckets.items()):
            entries.sort()
            for entry in entries:
                yield entry[2]
