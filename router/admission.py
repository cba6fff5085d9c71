"""How many accepted jobs may wait: a bound for each class, beyond which everybody still has a few places of their own.

So a lone person may use the whole queue, and nobody's flood refuses another one's few jobs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from router.errors import QueueFullError
from router.jobs import Job

INTERACTIVE_MAX: Final = 512
BATCH_MAX: Final = 10_000
OWN_MAX: Final = 32  # places of one person in a full queue
SPARE: Final = 512  # places beyond the bound for such jobs of all persons together
LONGEST_S: Final = 300.0


class Admission:
    """Counts the jobs that wait, by class and person. Part of the scheduler, on the loop."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[bool, str], int] = {}
        self._all = [0, 0]

    def require(self, job: Job, turn_s: Callable[[], float]) -> None:
        """Raise QueueFullError unless ``job`` may wait; ``turn_s`` tells in how many seconds the next job starts."""
        bound = BATCH_MAX if job.batch else INTERACTIVE_MAX
        waiting, own = self._all[job.batch], self._waiting.get((job.batch, job.who), 0)
        if waiting < bound or (own < OWN_MAX and waiting < bound + SPARE):
            return
        turns = waiting - bound + 1
        if waiting < bound + SPARE:
            turns = min(turns, own - OWN_MAX + 1)
        raise QueueFullError(min(LONGEST_S, turns * turn_s()))

    def came(self, job: Job) -> None:
        """``job`` waits from now on."""
        who = (job.batch, job.who)
        self._waiting[who] = self._waiting.get(who, 0) + 1
        self._all[job.batch] += 1

    def left(self, job: Job) -> None:
        """``job`` waits no more."""
        who = (job.batch, job.who)
        self._all[job.batch] -= 1
        if self._waiting[who] == 1:
            del self._waiting[who]
        else:
            self._waiting[who] -= 1
