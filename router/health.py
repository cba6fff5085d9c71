"""Which peers are left alone for a while: ejection of one model at one peer after failures, and the budget of retries.

Nothing here is asked about this machine's own engines: it is never ejected.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from router.aio import Clock

EJECT_FIRST_S: Final = 5.0
EJECT_MAX_S: Final = 300.0
SPREAD: Final = 0.2
CONNECT_MAX: Final = 2
FAILURES_MAX: Final = 3
LAST_CALLS: Final = 10
BUDGET_S: Final = 10
BUDGET_SHARE: Final = 0.2
BUDGET_LEAST: Final = 3


class Failure(StrEnum):
    """What a call to a peer failed with, as far as ejection tells apart."""

    SILENT = "silent"  # it did not accept in time
    UNREACHABLE = "unreachable"  # no connection
    SHED = "shed"  # 429 or 503: it counts, so that a fast refuser attracts nothing
    BROKEN = "broken"  # anything else


@dataclass(slots=True)
class _Record:
    """The last calls (True: good) for one model at one peer, and its ejection. Times are monotonic seconds."""

    calls: deque[bool] = field(default_factory=lambda: deque(maxlen=LAST_CALLS))
    unreachable: int = 0
    ejections: int = 0
    until: float | None = None
    trial: bool = False
    why: str = ""


class Health:
    """Ejections by (engine id of the peer, model). ``changed`` hears when somebody is ejected or comes back."""

    def __init__(self, clock: Clock, spread: Callable[[float, float], float] = random.uniform) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.budget = RetryBudget(clock)
        self._clock = clock
        self._spread = spread
        self._records: dict[tuple[str, str], _Record] = {}

    # -- what calls report

    def failed(self, peer: str, model: str, failure: Failure, why: str = "") -> None:
        """A call failed. What was under way when the peer was ejected adds nothing."""
        record = self._records.setdefault((peer, model), _Record())
        if record.until is not None and not record.trial:
            return
        record.calls.append(False)
        record.unreachable = record.unreachable + 1 if failure is Failure.UNREACHABLE else 0
        if (
            record.trial
            or failure is Failure.SILENT
            or record.unreachable >= CONNECT_MAX
            or record.calls.count(False) >= FAILURES_MAX
        ):
            self._eject(record, why)

    def _eject(self, record: _Record, why: str) -> None:
        delay_s = min(EJECT_MAX_S, EJECT_FIRST_S * 2**record.ejections) * self._spread(1 - SPREAD, 1 + SPREAD)
        record.until = self._clock.mono() + delay_s
        record.ejections = min(record.ejections + 1, 16)
        record.trial = False
        record.calls.clear()
        record.unreachable = 0
        record.why = why
        self.changed()

    def succeeded(self, peer: str, model: str) -> None:
        """A call was answered. After a good trial the peer is as good as new."""
        record = self._records.get((peer, model))
        if record is None:
            return
        record.unreachable = 0
        if record.until is None:
            record.calls.append(True)
            return
        if record.trial:
            del self._records[peer, model]
            self.changed()

    # -- leases

    def began(self, peer: str, model: str) -> None:
        """A lease was taken: at an ejected peer whose time is over this is the one trial."""
        record = self._records.get((peer, model))
        if record is not None and record.until is not None and record.until <= self._clock.mono():
            record.trial = True

    def ended(self, peer: str, model: str) -> None:
        """A lease was given back: a trial that told nothing (cancelled) leaves its place to another."""
        record = self._records.get((peer, model))
        if record is not None and record.trial:
            record.trial = False

    # -- what placement asks

    def ejected(self, peer: str, model: str) -> str:
        """Why nobody is sent there now, as a sentence; empty when somebody may be."""
        record = self._records.get((peer, model))
        if record is None or record.until is None:
            return ""
        left_s = record.until - self._clock.mono()
        if left_s > 0:
            return f"Left alone for {left_s:.0f} s more. {record.why}".strip()
        return f"One request tries it again. {record.why}".strip() if record.trial else ""

    def clear(self, peer: str = "") -> None:
        """Forget all ejections, or those of one peer: this machine slept, or the peer started anew."""
        gone = [key for key in self._records if peer in ("", key[0])]
        for key in gone:
            del self._records[key]
        if gone:
            self.changed()


class RetryBudget:
    """Retries at other computers: a fifth of the requests of the last 10 s, at least 3. Counted by whole seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seconds: deque[list[int]] = deque(maxlen=BUDGET_S)  # [second, requests, retries]

    def _second(self) -> list[int]:
        now = int(self._clock.mono())
        if not self._seconds or self._seconds[-1][0] != now:
            self._seconds.append([now, 0, 0])
        return self._seconds[-1]

    def request(self) -> None:
        """A request was accepted."""
        self._second()[1] += 1

    def retry(self) -> None:
        """One of them is tried once more, at another computer."""
        self._second()[2] += 1

    @property
    def spent(self) -> bool:
        """Whether the next retry goes straight to this machine."""
        oldest = int(self._clock.mono()) - BUDGET_S
        last = [second for second in self._seconds if second[0] > oldest]
        requests, retries = sum(s[1] for s in last), sum(s[2] for s in last)
        return retries >= max(BUDGET_LEAST, BUDGET_SHARE * requests)
