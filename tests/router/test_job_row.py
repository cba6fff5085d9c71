"""A row comes back from the database as it went in."""

from __future__ import annotations

import msgspec
import peewee
import pytest

from router.job_row import COLUMNS, SELECTED, UPSERT, JobRow, bind, drop_bodies, unbind
from router.jobs import Origin
from router.migrations import migrate
from router.states import JobState
from router.wire import ErrorInfo, Receipt, Try, Verdict

RECEIPT = Receipt(
    node="n",
    engine="llama",
    model="tiny",
    digest=None,
    reason="warm here",
    verdicts=[Verdict(node="n", engine="llama", verdict="warm")],
    tries=[Try(number=1, node="n", engine="llama", result="ok")],
    queued_s=0.5,
    loading_s=0.0,
)
FULL = JobRow(
    row_id=7,
    id="01A",
    kind="chat",
    origin=Origin.JOBS,
    person="Ann",
    key_id="k1",
    chat_id="c1",
    model="tiny",
    digest="ab" * 32,
    state=JobState.FAILED,
    attempt=2,
    max_attempts=5,
    try_no=4,
    boot_id="b",
    crashes=1,
    not_before=12.5,
    priority=1,
    stream=True,
    keep=True,
    node="n",
    engine="llama",
    receipt=RECEIPT,
    error=ErrorInfo(code="poison", message="It crashed.", hint="Don't.", status=500),
    idempotency_key="once",
    request_hash="ff",
    webhook="http://127.0.0.1:1/",
    origin_node="p",
    origin_job="01P",
    origin_try=3,
    created_at=1.0,
    updated_at=2.0,
    started_at=1.5,
    completed_at=2.0,
    deadline_s=60.0,
    keep_alive_s=-1.0,
    stored=True,
)


@pytest.fixture
def db() -> peewee.SqliteDatabase:
    db = peewee.SqliteDatabase(":memory:")
    db.execute_sql("PRAGMA foreign_keys = 1")
    migrate(db)
    return db


def stored(db: peewee.SqliteDatabase) -> list[JobRow]:
    return [unbind(columns) for columns in db.execute_sql(f"SELECT {SELECTED} FROM jobs ORDER BY row_id")]  # noqa: S608


@pytest.mark.parametrize("row", [FULL, JobRow(row_id=1, id="01B", created_at=1.0, stored=True)], ids=["full", "bare"])
def test_every_field_comes_back(db: peewee.SqliteDatabase, row: JobRow) -> None:
    UPSERT.run(db, [bind(msgspec.structs.astuple(row))])

    (found,) = stored(db)
    assert found == row
    assert type(found.state) is JobState


def test_the_columns_are_those_of_the_table_in_its_order(db: peewee.SqliteDatabase) -> None:
    assert tuple(name for _, name, *_ in db.execute_sql("PRAGMA table_info(jobs)")) == COLUMNS


def test_a_second_write_changes_what_may_change(db: peewee.SqliteDatabase) -> None:
    row = msgspec.structs.replace(FULL, state=JobState.QUEUED, receipt=None, error=None)
    UPSERT.run(db, [bind(msgspec.structs.astuple(row))])
    UPSERT.run(db, [bind(msgspec.structs.astuple(msgspec.structs.replace(FULL, created_at=99.0)))])

    assert stored(db) == [FULL]


def test_bodies_and_chunks_are_dropped_and_counted(db: peewee.SqliteDatabase) -> None:
    UPSERT.run(db, [bind(msgspec.structs.astuple(FULL))])
    db.execute_sql("INSERT INTO bodies VALUES (7, ?, ?, 'text/plain', 1)", (b"12345", b"123"))
    db.execute_sql("INSERT INTO chunks (job, try_no, seq, data) VALUES (7, 1, 0, ?)", (b"1",))

    assert drop_bodies(db, [(7,), (8,)]) == 8
    assert db.execute_sql("SELECT (SELECT count(*) FROM bodies) + (SELECT count(*) FROM chunks)").fetchone() == (0,)
