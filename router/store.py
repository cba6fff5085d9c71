"""The database behind one writer thread: whatever waits is committed as one transaction (group commit).

The loop side collects work and hands one batch at a time over; the thread commits it and reports back with a single
call. Nobody but the thread touches the connection, and nobody but the loop touches the lists here: no locks.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import peewee

from router.database import OpenReport, checkpoint, close_database, open_database, roll_back
from router.errors import QuorumError, StoreError
from router.work import Call, Params, Put, Work, as_store_error, is_disk_fault

log = logging.getLogger(__name__)

T = TypeVar("T")
Source = Callable[[], Sequence[Work]]
Batch = list[Work]

LINGER_S = 0.005  # what nobody waits for waits this long for company: a short job then costs one write, not four
RETRY_FIRST_S = 0.05
RETRY_MOST_S = 1.0
KEPT_UNITS = 10_000  # what is kept in memory while the disk fails
KEPT_BYTES = 64 * 1024 * 1024
CHECKPOINT_BATCHES = 400


class Faults:
    """What tests replace to fail or die at a named point of the writer thread."""

    def reach(self, point: str) -> None:
        """Called at ``begin``, ``before_commit``, ``after_commit`` (before anybody is told)."""


class Store:
    """The node's database. Every method is called on the loop; ``path`` is the file."""

    def __init__(self, path: Path, *, faults: Faults | None = None) -> None:
        self.path = path
        self.healthy = True
        self.on_failure: Callable[[str], None] = lambda message: None
        self.on_recovery: Callable[[], None] = lambda: None
        self._faults = faults or Faults()
        self._sources: list[Source] = []
        self._waiting: list[Work] = []
        self._kept_bytes = 0
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._in_flight = False
        self._wanted = False
        self._urgent = False
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._retry_s = RETRY_FIRST_S
        self._closing: asyncio.Future[None] | None = None
        self._closed = True

    # opening and closing

    async def open(self) -> OpenReport:
        """Create, check or migrate the file and start the writer. Raises StartError; then nothing was overwritten."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[OpenReport] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._thread, args=(opened,), name="store", daemon=True).start()
        report = await opened
        self._closed = False
        return report

    async def close(self) -> None:
        """Write what waits, then close the file. A disk that fails now loses only what nobody was promised."""
        if self._closed:
            return
        self._closed = True
        self._closing = self._loop.create_future()
        self._hand_over_soon()
        await self._closing
        self._batches.put(None)
        await self._ended

    # what others call

    def attach(self, source: Source) -> None:
        """Ask ``source`` for work whenever a batch is made; its work goes before what was put."""
        self._sources.append(source)

    def wake(self, *, urgent: bool) -> None:
        """A source has work; ``urgent`` when somebody waits for it."""
        if self._closed and self._closing is None:
            raise StoreError("The database is closed.")
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
        self._waiting.append(work)
        self.wake(urgent=False)

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

    def _call(self, fn: Callable[[peewee.SqliteDatabase], Any]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(Call(fn, future))
        self.wake(urgent=True)
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
        batch: Batch = [work for source in self._sources for work in source()]
        batch += self._waiting
        self._waiting = []
        self._wanted = self._urgent = False
        if batch:
            self._in_flight = True
            self._batches.put(batch)
        elif self._closing is not None and not self._closing.done():
            self._closing.set_result(None)

    def _settle(self, units: Batch, errors: Sequence[Exception | None]) -> None:
        """The writer's report: everybody of the batch is told, and the next batch goes."""
        self._in_flight = False
        fault = next((error for error in errors if error is not None and is_disk_fault(error)), None)
        again: Batch = []
        for unit, error in zip(units, errors, strict=True):
            if unit.settle(error):
                again.append(unit)
            elif error is not None and unit.silent:
                self._report(as_store_error(error).message)
        if fault is None:
            self._recovered()
        else:
            self._failed(as_store_error(fault).message, again)
        self._next()

    def _next(self) -> None:
        """Decide when the next batch goes: now, after the linger, or after the backoff of a failing disk."""
        if not self.healthy:
            if self._closing is not None and not self._closing.done():
                self._closing.set_result(None)
            self._timer = self._loop.call_later(self._retry_s, self._hand_over)
            self._retry_s = min(self._retry_s * 2, RETRY_MOST_S)
        elif self._urgent or self._closing is not None:
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

    # the writer thread

    def _thread(self, opened: asyncio.Future[OpenReport]) -> None:
        try:
            db, report = open_database(self.path)
        except QuorumError as error:
            self._tell(opened.set_exception, error)
            return
        except Exception as error:
            log.exception("the database can't be opened")
            self._tell(opened.set_exception, error)
            return
        self._tell(opened.set_result, report)
        since_checkpoint = 0
        while (batch := self._batches.get()) is not None:
            self._tell(self._settle, *self._write(db, batch))
            since_checkpoint += 1
            if since_checkpoint >= CHECKPOINT_BATCHES:
                since_checkpoint = 0
                checkpoint(db)
        close_database(db)
        self._tell(self._ended.set_result, None)

    def _tell(self, call: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            log.warning("the loop ended before the store was closed")

    def _write(self, db: peewee.SqliteDatabase, batch: Batch) -> tuple[Batch, list[Exception | None]]:
        """Commit ``batch``: the units that ended, and for each None or why it failed."""
        try:
            self._transaction(db, batch)
            return batch, [None] * len(batch)
        except Exception as error:
            roll_back(db)
            if is_disk_fault(error):
                return batch, [error] * len(batch)
        parts = [part for work in batch for part in work.parts()]
        try:
            return parts, self._one_by_one(db, parts)
        except Exception as error:
            roll_back(db)
            return parts, [error] * len(parts)

    def _transaction(self, db: peewee.SqliteDatabase, batch: Batch) -> None:
        db.execute_sql("BEGIN IMMEDIATE")
        self._faults.reach("begin")
        for work in batch:
            work.run(db)
        self._faults.reach("before_commit")
        db.execute_sql("COMMIT")
        self._faults.reach("after_commit")

    def _one_by_one(self, db: peewee.SqliteDatabase, parts: Batch) -> list[Exception | None]:
        """Again after a failure, each part in a savepoint, so that only what is wrong fails."""
        db.execute_sql("BEGIN IMMEDIATE")
        errors = [_attempt(db, part) for part in parts]
        self._faults.reach("before_commit")
        db.execute_sql("COMMIT")
        self._faults.reach("after_commit")
        return errors


def _attempt(db: peewee.SqliteDatabase, part: Work) -> Exception | None:
    """Why ``part`` failed, or None. Raises only what ends the whole transaction."""
    db.execute_sql("SAVEPOINT part")
    try:
        part.run(db)
    except Exception as error:
        if is_disk_fault(error):
            raise
        db.execute_sql("ROLLBACK TO part")
        db.execute_sql("RELEASE part")
        return error
    db.execute_sql("RELEASE part")
    return None
