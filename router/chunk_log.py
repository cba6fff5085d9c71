"""What a kept job says, into the store in pieces, so that a reader can pick it up after this process is gone."""

from __future__ import annotations

import asyncio

from router.answer import Answer
from router.job_rows import JobRows
from router.wire import Ended, State

FLUSH_S = 0.25
FLUSH_BYTES = 64 * 1024


class ChunkLog:
    """A Reader that writes what it hears at most every 250 ms or 64 KB."""

    keeps = True

    def __init__(self, rows: JobRows, job_id: str, answer: Answer) -> None:
        self._rows = rows
        self._job_id = job_id
        self._answer = answer
        self._parts: list[bytes] = []
        self._size = 0
        self._first_seq = 0
        self._timer: asyncio.TimerHandle | None = None

    def content(self, events: bytes, seq: int) -> None:
        """Collect."""
        if not self._parts:
            self._first_seq = seq
        self._parts.append(events)
        self._size += len(events)
        if self._size >= FLUSH_BYTES:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._flush)

    def state(self, state: State) -> None:
        """Moves are rows of their own."""

    def reset(self) -> None:
        """The store forgets an older try with the first piece of the next."""
        self._drop()

    def ended(self, ended: Ended) -> None:
        """The whole answer is stored at once by ``records``; the pieces that wait are written only if it broke off."""
        if ended.error is not None:
            self._flush()
        self._drop()

    def _drop(self) -> None:
        self._parts.clear()
        self._size = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush(self) -> None:
        parts = b"".join(self._parts)
        if parts:
            self._rows.append_chunks(self._job_id, self._answer.try_no, self._first_seq, parts)
        self._drop()
