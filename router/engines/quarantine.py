"""Which model files stopped the engine too often. A changed file, ``forgive`` or a restart begins afresh."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

LOAD_CRASHES: Final = 2
BACKOFF_MAX_S: Final = 30.0


@dataclass(slots=True)
class _Record:
    load_crashes: int = 0
    suspects: list[frozenset[str]] = field(default_factory=list)  # jobs that ran at each crash
    in_a_row: int = 0
    last_mono: float = 0.0


class Quarantine:
    """Crashes by the stamp of a model file. ``now`` is monotonic seconds."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def crashed_loading(self, stamp: str, now: float) -> None:
        """The process died before the model served."""
        record = self._crashed(stamp, now)
        record.load_crashes += 1

    def crashed_working(self, stamp: str, jobs: frozenset[str], now: float) -> None:
        """The process died while ``jobs`` ran; an idle death blames nobody."""
        record = self._crashed(stamp, now)
        if jobs:
            record.suspects.append(jobs)

    def worked(self, stamp: str) -> None:
        """A request was answered in full: the next start needs no pause."""
        if (record := self._records.get(stamp)) is not None:
            record.in_a_row = 0

    def forgive(self, stamp: str) -> None:
        """Forget what this file did."""
        self._records.pop(stamp, None)

    def problem(self, stamp: str) -> str:
        """Why the file is not loaded any more; empty when it may be."""
        record = self._records.get(stamp)
        if record is None:
            return ""
        if record.load_crashes >= LOAD_CRASHES:
            return f"It is set aside: the engine stopped {record.load_crashes} times while loading it."
        # One job that ran at every crash is the likelier culprit: it fails as poison, the model stays.
        if len(record.suspects) > 1 and not frozenset.intersection(*record.suspects):
            return f"It is set aside: the engine stopped {len(record.suspects)} times while it answered."
        return ""

    def pause_s(self, stamp: str, now: float) -> float:
        """Seconds to wait before the next start: none after one crash, then 1, 2, 4, ... up to 30."""
        record = self._records.get(stamp)
        if record is None or record.in_a_row < 2:
            return 0.0
        return max(0.0, record.last_mono + min(BACKOFF_MAX_S, 2.0 ** (record.in_a_row - 2)) - now)

    def _crashed(self, stamp: str, now: float) -> _Record:
        record = self._records.setdefault(stamp, _Record())
        record.in_a_row += 1
        record.last_mono = now
        return record
