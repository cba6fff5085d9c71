"""Units of work for the store's writer thread: each succeeds or fails alone, whatever it is committed with."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import peewee

from router.errors import StoreError

Params = Sequence[object]

# Failures of the disk or of the file: nothing of the transaction counts, and the same may work later.
DISK_FAULTS = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_INTERRUPT,
    }
)


def _inner(error: BaseException) -> BaseException:
    """SQLite's own exception behind peewee's, which may wrap it twice."""
    while isinstance(error, peewee.PeeweeException) and isinstance(inner := getattr(error, "orig", None), Exception):
        error = inner
    return error


def bare(error: Exception) -> Exception:
    """``error`` without its frames, which would keep values in memory and the file open as long as it is kept."""
    at: BaseException | None = error
    while at is not None:
        at.__traceback__ = None
        at = at.__cause__ or at.__context__
    return error


def sqlite_code(error: BaseException) -> int:
    """SQLite's primary result code behind ``error``; 0 when it isn't SQLite's."""
    return int(getattr(_inner(error), "sqlite_errorcode", 0)) & 0xFF


def is_disk_fault(error: BaseException) -> bool:
    """Whether the whole transaction failed for a reason outside of it."""
    return isinstance(error, OSError | MemoryError) or sqlite_code(error) in DISK_FAULTS


def is_our_fault(error: BaseException) -> bool:
    """Whether the SQL itself or the values' types are wrong: a bug, to be seen in the log."""
    return isinstance(error, peewee.PeeweeException) and sqlite_code(error) in (sqlite3.SQLITE_ERROR, 0)


def as_store_error(error: BaseException) -> StoreError:
    """What a caller is told; never the values of a row."""
    if isinstance(error, StoreError):
        return error
    code = sqlite_code(error)
    if code == sqlite3.SQLITE_FULL:
        return StoreError("The disk of the data folder is full; nothing was stored.")
    if code == sqlite3.SQLITE_CONSTRAINT:
        return StoreError("The database refused a row that breaks one of its rules.", duplicate="UNIQUE" in str(error))
    return StoreError(
        f"The database could not store it ({getattr(_inner(error), 'sqlite_errorname', type(error).__name__)})."
    )


class Work:
    """One unit. ``run`` is called on the writer thread inside a transaction, possibly again after a rollback."""

    __slots__ = ()

    silent = False
    """Nobody waits for it: a failure is reported by the store, and memory for it is bounded."""

    reads = False
    """It changes nothing, so that it needs no room on the disk."""

    def run(self, db: peewee.SqliteDatabase) -> None:
        """Do it. An exception undoes this unit only."""
        raise NotImplementedError

    def parts(self) -> Sequence[Work]:
        """What can fail alone inside this unit."""
        return (self,)

    def settle(self, error: Exception | None) -> bool:
        """On the loop, once committed (None) or failed; True asks to be run again when the disk has recovered."""
        return False

    @property
    def size(self) -> int:
        """About how many bytes it keeps in memory while it waits."""
        return 256


class Put(Work):
    """A statement nobody waits for: survives a disk fault and is tried again."""

    __slots__ = ("params", "sql")

    silent = True

    def __init__(self, sql: str, params: Params = ()) -> None:
        self.sql = sql
        self.params = params

    def run(self, db: peewee.SqliteDatabase) -> None:
        db.execute_sql(self.sql, self.params)

    def settle(self, error: Exception | None) -> bool:
        return error is not None and is_disk_fault(error)

    @property
    def size(self) -> int:
        return 256 + sum(len(value) for value in self.params if isinstance(value, bytes | str))


class Call(Work):
    """A function whose result (or own exception) somebody waits for."""

    __slots__ = ("fn", "future", "value")

    def __init__(self, fn: Callable[[peewee.SqliteDatabase], Any], future: asyncio.Future[Any]) -> None:
        self.fn = fn
        self.future = future
        self.value: Any = None

    def run(self, db: peewee.SqliteDatabase) -> None:
        self.value = self.fn(db)

    def settle(self, error: Exception | None) -> bool:
        resolve(self.future, error, self.value)
        return False


class Read(Call):
    """A call that changes nothing: a disk that can't be written does not keep it from its result."""

    __slots__ = ()

    reads = True


def resolve(future: asyncio.Future[Any], error: Exception | None, value: Any = None) -> None:
    """Give ``future`` its end; SQLite's errors become StoreError, others (a caller's own) stay what they are."""
    if future.done():
        return
    if error is None:
        future.set_result(value)
    elif isinstance(error, peewee.PeeweeException | sqlite3.Error | OSError | MemoryError):
        told = as_store_error(error)
        told.__cause__ = bare(error)
        future.set_exception(told)
    else:
        future.set_exception(error)


class Bulk:
    """One statement text for many rows at once.

    Each statement hands the interpreter lock over and back several times, so row by row a busy loop would slow the
    writer, and the writer the loop.
    """

    SIZES = (64, 16, 4, 1)

    def __init__(self, head: str, row: str, tail: str) -> None:
        self._texts = [(size, head + ", ".join([row] * size) + tail) for size in self.SIZES]

    def run(self, db: peewee.SqliteDatabase, rows: Sequence[Params]) -> list[Any]:
        """Execute for all ``rows``; what the statements return."""
        found: list[Any] = []
        start, left = 0, len(rows)
        for size, text in self._texts:
            while left >= size:
                found += db.execute_sql(text, _flat(rows[start : start + size])).fetchall()
                start += size
                left -= size
        return found


def _flat(rows: Iterable[Params]) -> list[object]:
    return [value for row in rows for value in row]
