"""What the writer does to the tables of jobs."""

from __future__ import annotations

import msgspec
import peewee
import pytest

from router.errors import StoreError
from router.job_row import JobRow
from router.job_writes import Change, Changes, Prune, SetAnswer
from router.migrations import migrate
from router.states import JobState
from tests.router.store_kit import disk_full


@pytest.fixture
def db() -> peewee.SqliteDatabase:
    db = peewee.SqliteDatabase(":memory:")
    db.execute_sql("PRAGMA foreign_keys = 1")
    migrate(db)
    return db


def change(number: int, body: bytes | None = b"asked", **fields: object) -> Change:
    row = JobRow(row_id=number, id=f"j{number}", created_at=float(number), **fields)  # type: ignore[arg-type]
    made = Change(row)
    made.body = body
    made.prepare()
    return made


def write(db: peewee.SqliteDatabase, *changes: Change) -> int:
    work = Changes(list(changes), lambda changes, delta, error: None)
    work.run(db)
    for each in changes:
        each.row.stored = True
    return work.delta


def bodies(db: peewee.SqliteDatabase) -> dict[int, tuple[bytes | None, bytes | None]]:
    return {job: (asked, said) for job, asked, said in db.execute_sql("SELECT job, request, answer FROM bodies")}


def test_a_job_that_ended_before_its_first_commit_leaves_no_body(db: peewee.SqliteDatabase) -> None:
    assert write(db, change(1, state=JobState.DONE), change(2, state=JobState.QUEUED)) == 5
    assert list(bodies(db)) == [2]


def test_the_body_of_a_job_that_is_not_kept_goes_with_its_end(db: peewee.SqliteDatabase) -> None:
    plain, kept = change(1), change(2, keep=True)
    write(db, plain, kept)
    for each in (plain, kept):
        each.row.state = JobState.DONE
        each.body = None
        each.prepare()

    assert write(db, plain, kept) == -5
    assert list(bodies(db)) == [2]


def test_running_again_after_a_rollback_counts_once(db: peewee.SqliteDatabase) -> None:
    work = Changes([change(1)], lambda changes, delta, error: None)
    work.run(db)
    work.run(db)

    assert work.delta == 5


def test_rows_fail_alone(db: peewee.SqliteDatabase) -> None:
    work = Changes([change(number) for number in range(3)], lambda changes, delta, error: None)

    assert [[each.row.id for each in part.changes] for part in work.parts()] == [["j0"], ["j1"], ["j2"]]


def test_an_answer_is_kept_for_jobs_that_keep_one_only(db: peewee.SqliteDatabase) -> None:
    write(db, change(1), change(2, keep=True))
    grown: list[int] = []
    for job in ("j1", "j2", "j2", "nobody"):
        answer = SetAnswer(job, b"said!!", "text/plain", grown.append)
        answer.run(db)
        assert not answer.settle(None)

    assert bodies(db) == {1: (b"asked", None), 2: (b"asked", b"said!!")}
    assert grown == [0, 6, 0, 0]


def test_an_answer_waits_for_a_full_disk_and_nothing_else() -> None:
    answer = SetAnswer("j1", b"said", "", lambda grown: None)

    assert answer.settle(disk_full())
    assert not answer.settle(StoreError("closed"))
    assert answer.size == 4


def test_pruning_goes_in_steps_and_leaves_what_lives(
    db: peewee.SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.job_writes.PRUNE_STEP_ROWS", 2)
    done = {"state": JobState.DONE, "keep": True}
    write(
        db,
        change(1, **done, completed_at=10.0),
        change(2, **done, completed_at=99.0),
        change(3),
        change(4, **done, completed_at=11.0, idempotency_key="once"),
        change(5, **done, completed_at=5.0, idempotency_key="old"),
    )

    first = Prune(0, 50.0, 8.0, 8.0)(db)
    second = Prune(first[2] or 0, 50.0, 8.0, 8.0)(db)
    third = Prune(second[2] or 0, 50.0, 8.0, 8.0)(db)

    assert (first, second, third) == ((1, 5, 2), (0, 0, 4), (1, 5, None))
    left = db.execute_sql("SELECT id, idempotency_key FROM jobs ORDER BY row_id").fetchall()
    assert left == [("j2", None), ("j3", None), ("j4", "once")]


def test_old_bodies_go_though_their_rows_stay(db: peewee.SqliteDatabase) -> None:
    write(db, change(1, state=JobState.DONE, keep=True, completed_at=10.0, idempotency_key="once"))

    assert Prune(0, 5.0, 50.0, 5.0)(db) == (0, 5, None)
    assert bodies(db) == {}
    assert db.execute_sql("SELECT id, idempotency_key FROM jobs").fetchall() == [("j1", "once")]
    assert Prune(0, 5.0, 50.0, 50.0)(db) == (0, 0, None)
    assert db.execute_sql("SELECT id, idempotency_key FROM jobs").fetchall() == [("j1", None)]


def test_the_snapshot_is_what_the_row_was() -> None:
    made = change(1)
    made.row.state = JobState.DONE

    assert made.snapshot != msgspec.structs.astuple(made.row)
