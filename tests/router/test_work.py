"""Units of work: what a caller is told, and many rows in few statements."""

from __future__ import annotations

import asyncio
import sqlite3

import peewee
import pytest

from router.errors import QuorumError, StoreError
from router.work import Bulk, Call, Put, as_store_error, is_disk_fault, resolve, sqlite_code
from tests.router.store_kit import disk_full, fsync_failed


@pytest.fixture
def db() -> peewee.SqliteDatabase:
    db = peewee.SqliteDatabase(":memory:")
    db.execute_sql("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT NOT NULL)")
    return db


def refused(db: peewee.SqliteDatabase, sql: str, *params: object) -> peewee.PeeweeException:
    with pytest.raises(peewee.PeeweeException) as caught:
        db.execute_sql(sql, params)
    return caught.value


def test_the_code_behind_an_error_is_found_through_the_wrapper(db: peewee.SqliteDatabase) -> None:
    error = refused(db, "INSERT INTO t VALUES (1, NULL)")

    assert sqlite_code(error) == sqlite3.SQLITE_CONSTRAINT
    assert sqlite_code(ValueError()) == 0


@pytest.mark.parametrize("error", [disk_full(), fsync_failed(), OSError(5, "no"), MemoryError()])
def test_faults_of_the_disk_are_told_from_faults_of_a_statement(db: peewee.SqliteDatabase, error: Exception) -> None:
    assert is_disk_fault(error)
    assert not is_disk_fault(refused(db, "SELECT nothing"))
    assert not is_disk_fault(ValueError())


def test_a_caller_is_told_nothing_of_the_values(db: peewee.SqliteDatabase) -> None:
    db.execute_sql("INSERT INTO t VALUES (1, 'secret')")
    told = as_store_error(refused(db, "INSERT INTO t VALUES (?, ?)", 1, "secret"))

    assert told.duplicate
    assert told.code == "store_failed"
    assert "secret" not in told.message + told.hint
    assert "full" in as_store_error(disk_full()).message
    assert "SQLITE_IOERR_FSYNC" in as_store_error(fsync_failed()).message


@pytest.mark.parametrize("count", [0, 1, 3, 4, 63, 64, 65, 200])
def test_many_rows_go_in_few_statements(db: peewee.SqliteDatabase, count: int) -> None:
    add = Bulk("INSERT INTO t (a, b) VALUES ", "(?, ?)", " ON CONFLICT (a) DO UPDATE SET b = excluded.b")
    drop = Bulk("DELETE FROM t WHERE a IN (", "?", ") RETURNING b")

    add.run(db, [(number, "old") for number in range(count)])
    add.run(db, [(number, str(number)) for number in range(count)])

    assert [b for (b,) in db.execute_sql("SELECT b FROM t ORDER BY a")] == [str(number) for number in range(count)]
    assert sorted(b for (b,) in drop.run(db, [(number,) for number in range(count)])) == sorted(map(str, range(count)))
    assert db.execute_sql("SELECT count(*) FROM t").fetchone() == (0,)


async def test_a_future_ends_once_and_with_the_callers_own_error() -> None:
    loop = asyncio.get_running_loop()
    ended, own, gone = loop.create_future(), loop.create_future(), loop.create_future()
    gone.cancel()

    resolve(ended, None, 1)
    resolve(ended, ValueError())
    resolve(own, QuorumError("not_found", "There is no such thing."))
    resolve(gone, None)

    assert await ended == 1
    with pytest.raises(QuorumError, match="no such thing"):
        await own


async def test_a_put_survives_a_fault_of_the_disk_only(db: peewee.SqliteDatabase) -> None:
    put = Put("INSERT INTO t VALUES (?, ?)", (1, "x" * 1000))

    assert put.silent
    assert put.size > 1000
    assert put.settle(disk_full())
    assert not put.settle(None)
    assert not put.settle(refused(db, "INSERT INTO t VALUES (1, NULL)"))


async def test_a_call_gives_its_result(db: peewee.SqliteDatabase) -> None:
    call = Call(lambda db: db.execute_sql("SELECT 7").fetchone()[0], asyncio.get_running_loop().create_future())

    call.run(db)
    assert not call.settle(None)
    assert await call.future == 7

    failed = Call(lambda db: None, asyncio.get_running_loop().create_future())
    assert not failed.settle(disk_full())
    with pytest.raises(StoreError, match="full"):
        await failed.future
