"""The database behind one writer thread: whatever waits is committed as one transaction (group commit).

The loop side collects work and hands one batch at a time over; the thread commits it and reports back with a single
call. Nobody but the thread touches the connection, and nobody but the loop touches the lists here: no locks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Any, TypeVar

import peewee

from router.database import OpenReport
from router.errors import StoreError
from router.work import Call, Params, Put, Read, Work, as_store_error, is_disk_fault
from router.writer import Batch, Faults, Writer

log = logging.getLogger(__name__)

T = TypeVar("T")
Source = Callable[[], Sequence[Work]]

LINGER_S = 0.005  # what nobody waits for waits this long for company: a short job then costs one write, not four
RETRY_FIRST_S = 0.05
RETRY_MOST_S = 1.0
KEPT_UNITS = 10_000  # what is kept in memory while the disk fails
KEPT_BYTES = 64 * 1024 * 1024
PROBE = Put("UPDATE meta SET value = value WHERE name = 'boot_id'")  # asks a failing disk whether it has recovered


class _State(Enum):
    CLOSED = auto()
    OPEN = auto()
    CLOSING = auto()


class Store:
    """The node's database. Every method is called on the loop; ``path`` is the file.

    ``healthy`` is False while the disk fails: ``on_failure`` was told why in one sentence, nothing is acknowledged, and
    it is tried again until ``on_recovery``.
    """

    def __init__(self, path: Path, *, faults: Faults | None = None) -> None:
        self.path = path
        self.healthy = True
        self.on_failure: Callable[[str], None] = lambda message: None
        self.on_recovery: Callable[[], None] = lambda: None
        self._writer = Writer(path, self._settle, faults or Faults())
        self._sources: list[Source] = []
        self._waiting: list[Work] = []
        self._in_flight = False
        self._wanted = False
        self._urgent = False
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._retry_s = RETRY_FIRST_S
        self._state = _State.CLOSED

    # opening and closing

    async def open(self) -> OpenReport:
        """Create, check or migrate the file and start the writer. Raises StartError; then nothing was overwritten."""
        self._loop = asyncio.get_running_loop()
        try:
            report = await self._writer.start()
        except asyncio.CancelledError:
            self._writer.batches.put(None)
            raise
        self._state = _State.OPEN
        return report

    async def close(self) -> None:
        """Write what waits, then close the file. A disk that fails now loses only what nobody was promised."""
        if self._state is not _State.OPEN:
            return
        self._state = _State.CLOSING
        self._flushed = self._loop.create_future()
        self._hand_over_soon()
        await self._flushed
        self._state = _State.CLOSED
        self._abandon()
        await self._writer.stop()

    # what others call

    def attach(self, source: Source) -> None:
        """Ask ``source`` for work whenever a batch is made; its work goes before what was put."""
        self._sources.append(source)

    def wake(self, *, urgent: bool) -> None:
        """A source has work; ``urgent`` when somebody waits for it. Raises StoreError then when closed."""
        if self._state is _State.CLOSED:
            if urgent:
                raise StoreError("The database is closed.")
            return
        self._wanted = True
        if urgent:
            self._urgent = True
            self._hand_over_soon()
        elif self._timer is None and not self._in_flight:
            self._timer = self._loop.call_later(LINGER_S, self._hand_over)

    def put(self, sql: str, params: Params = ()) -> None:
        """Execute in order with everything else, within a few milliseconds; nobody is told."""
        self.submit(Put(sql, params))

    def submit(self, work: Work) -> None:
        """Do ``work`` in order with everything else, within a few milliseconds."""
        self.wake(urgent=False)
        self._waiting.append(work)

    def commit(self, sql: str, params: Params = ()) -> asyncio.Future[None]:
        """Execute; the future ends when it is on the disk, or with StoreError."""
        return self._call(Put(sql, params).run)

    async def run(self, fn: Callable[[peewee.SqliteDatabase], T]) -> T:
        """``fn`` on the writer thread, in order; its result once committed.

        ``fn`` may be called again after a rollback, so it changes nothing but the database. Raises StoreError, or
        what ``fn`` raised.
        """
        result: T = await self._call(fn)
        return result

    def call(self, fn: Callable[[peewee.SqliteDatabase], T]) -> asyncio.Future[T]:
        """As ``run``, for who can't wait here. Raises StoreError at once when closed."""
        return self._call(fn)

    async def read(self, fn: Callable[[peewee.SqliteDatabase], T]) -> T:
        """As ``run`` for a ``fn`` that changes nothing: it also works while the disk can't be written."""
        result: T = await self._call(fn, Read)
        return result

    def _call(self, fn: Callable[[peewee.SqliteDatabase], Any], kind: type[Call] = Call) -> asyncio.Future[Any]:
        self.wake(urgent=True)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(kind(fn, future))
        return future

    # the loop's side

    def _hand_over_soon(self) -> None:
        """At the end of this turn of the loop, so that everybody woken in it shares one commit."""
        if self._in_flight or (not self.healthy and self._timer is not None):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._timer = None
        if self._in_flight:
            return
        batch = self._collect()
        if self._state is _State.CLOSING and not batch:
            self._flush_done()
            return
        if not self.healthy and all(work.reads for work in batch):
            batch.append(PROBE)  # reading says nothing of a disk that can't be written
        if batch:
            self._in_flight = True
            self._writer.batches.put(batch)

    def _collect(self) -> Batch:
        """Everything that waits, rows first."""
        batch: Batch = [work for source in self._sources for work in source()]
        batch += self._waiting
        self._waiting = []
        self._wanted = self._urgent = False
        return batch

    def _flush_done(self) -> None:
        if not self._flushed.done():
            self._flushed.set_result(None)

    def _abandon(self) -> None:
        """Closing on a failing disk: whoever still waits is told."""
        if left := self._collect():
            log.error("store: %d changes could not be written before closing", len(left))
        for work in left:
            self._settle_one(work, StoreError("The database was closed before it could be written."))

    def _settle(self, units: Batch, errors: Sequence[Exception | None]) -> None:
        """The writer's report: everybody of the batch is told, and the next batch goes."""
        self._in_flight = False
        fault = next((error for error in errors if error is not None and is_disk_fault(error)), None)
        again: Batch = []
        for unit, error in zip(units, errors, strict=True):
            if unit is not PROBE and self._settle_one(unit, error):
                again.append(unit)
            elif error is not None and unit.silent:
                self._report(as_store_error(error).message)
        if fault is None:
            self._recovered()
        else:
            self._failed(as_store_error(fault).message, again)
        self._next()

    def _settle_one(self, unit: Work, error: Exception | None) -> bool:
        try:
            return unit.settle(error)
        except Exception:
            log.exception("telling the end of a %s failed", type(unit).__name__)
            return False

    def _next(self) -> None:
        """Decide when the next batch goes: now, after the linger, or after the backoff of a failing disk."""
        if not self.healthy and self._state is not _State.OPEN:
            self._flush_done()
        elif not self.healthy:
            self._timer = self._loop.call_later(self._retry_s, self._hand_over)
            self._retry_s = min(self._retry_s * 2, RETRY_MOST_S)
        elif self._urgent or self._state is _State.CLOSING:
            self._hand_over_soon()
        elif self._wanted:
            self._timer = self._loop.call_later(LINGER_S, self._hand_over)

    def _recovered(self) -> None:
        self._retry_s = RETRY_FIRST_S
        if not self.healthy:
            self.healthy = True
            log.warning("the database can be written again")
            self.on_recovery()

    def _failed(self, message: str, again: list[Work]) -> None:
        self._waiting = self._bounded(again + self._waiting)
        if self.healthy:
            self.healthy = False
            self._report(message)

    def _bounded(self, works: list[Work]) -> list[Work]:
        """The newest of ``works`` that fit; those with a waiting caller always stay."""
        units, size, kept, lost = 0, 0, [], 0
        for work in reversed(works):
            if work.silent:
                units += 1
                size += work.size
                if units > KEPT_UNITS or size > KEPT_BYTES:
                    lost += 1
                    continue
            kept.append(work)
        if lost:
            self._report(f"{lost} changes that waited for the disk were dropped: too many.")
        return kept[::-1]

    def _report(self, message: str) -> None:
        log.error("store: %s", message)
        self.on_failure(message)
