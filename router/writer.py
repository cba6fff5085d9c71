"""The writer thread: owns the only connection and commits each batch as one transaction."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import peewee

from router.database import OpenReport, checkpoint, close_database, open_database, roll_back, tidy
from router.work import Work, bare, is_disk_fault, is_our_fault, resolve

log = logging.getLogger(__name__)

Batch: TypeAlias = list[Work]
Settle: TypeAlias = Callable[[Batch, list[Exception | None]], None]

CHECKPOINT_BATCHES = 400
IDLE_S = 2.0  # after so long without a batch the log is emptied


class Faults:
    """What tests replace to fail or die at a named point of the writer thread."""

    def reach(self, point: str) -> None:
        """Called at ``begin``, ``before_commit``, ``after_commit`` (before anybody is told)."""


class Writer:
    """One thread, one connection. ``batches`` takes what is to be committed, None to end.

    ``settle`` is called on the loop after each batch: its units, and for each None or why it failed.
    """

    def __init__(self, path: Path, settle: Settle, faults: Faults) -> None:
        self.batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._path = path
        self._settle = settle
        self._faults = faults

    def start(self) -> asyncio.Future[OpenReport]:
        """Start the thread on the running loop; the future says how opening the file went."""
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        opened: asyncio.Future[OpenReport] = self._loop.create_future()
        threading.Thread(target=self._run, args=(opened,), name="store", daemon=True).start()
        return opened

    async def stop(self) -> None:
        """End the thread after the batches it has; the file is closed then."""
        self.batches.put(None)
        await self._ended

    def _run(self, opened: asyncio.Future[OpenReport]) -> None:
        try:
            db, report = open_database(self._path)
        except Exception as error:
            self._tell(resolve, opened, error)
            return
        self._tell(resolve, opened, None, report)
        since_checkpoint = 0
        while (batch := self._take(db, since_checkpoint > 0)) is not None:
            if batch:
                self._tell(self._settle, *self._write(db, batch))
            since_checkpoint = since_checkpoint + 1 if batch else 0
            del batch  # an idle writer keeps no bodies in memory
            if since_checkpoint >= CHECKPOINT_BATCHES:
                since_checkpoint = 0
                checkpoint(db)
        close_database(db)
        self._tell(self._ended.set_result, None)

    def _take(self, db: peewee.SqliteDatabase, untidy: bool) -> Batch | None:
        """The next batch, None at the end; an empty one after an idle while in which the log was emptied."""
        try:
            return self.batches.get(timeout=IDLE_S if untidy else None)
        except queue.Empty:
            tidy(db)
            return []

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
                return batch, [_alone(db, work) if work.reads else bare(error) for work in batch]
        parts = [part for work in batch for part in work.parts()]
        try:
            return parts, self._one_by_one(db, parts)
        except Exception as error:
            roll_back(db)
            return parts, [bare(error)] * len(parts)

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


def _alone(db: peewee.SqliteDatabase, reading: Work) -> Exception | None:
    """Read outside of any transaction; why it failed, or None."""
    try:
        reading.run(db)
    except Exception as error:
        return bare(error)
    return None


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
        if is_our_fault(error):
            log.exception("a statement is wrong")
        return error
    db.execute_sql("RELEASE part")
    return None
