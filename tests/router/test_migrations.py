"""An older database becomes the newest without losing a row; a released version never changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import peewee
import pytest

from router.database import close_database, open_database
from router.errors import StartError
from router.migrations import (
    MIGRATIONS,
    foreign_parts,
    migrate,
    migration,
    newest,
    schema_of,
    shipped_schema,
    version_of,
)
from tests.router.store_kit import change, rows

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").glob("schema_v*.sql"))


def frozen(fixture: Path, path: Path) -> int:
    """A database of an old version, with a few rows; its version."""
    change(path, lambda db: db.executescript(fixture.read_text("utf-8")))
    return int(fixture.stem.removeprefix("schema_v"))


@pytest.fixture
def added() -> Iterator[None]:
    """One more version, for the time of a test."""

    @migration
    def more(db: peewee.SqliteDatabase) -> None:
        db.execute_sql("ALTER TABLE chats ADD COLUMN folder TEXT")
        db.execute_sql("UPDATE chats SET folder = 'from ' || title")

    yield
    MIGRATIONS.remove(more)


def test_every_released_version_is_frozen_as_a_fixture() -> None:
    assert [int(path.stem.removeprefix("schema_v")) for path in FIXTURES] == list(range(1, newest() + 1))


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
def test_a_released_version_never_changes(fixture: Path, tmp_path: Path) -> None:
    version = frozen(fixture, tmp_path / "old.db")
    db = peewee.SqliteDatabase(str(tmp_path / "old.db"))

    assert version_of(db) == version
    assert schema_of(db) == shipped_schema(version)
    db.close()


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
def test_an_old_database_keeps_its_rows(fixture: Path, tmp_path: Path) -> None:
    path = tmp_path / "quorum.db"
    version = frozen(fixture, path)

    db, report = open_database(path)

    assert report.set_aside is None
    assert report.migrated_from == (version if version < newest() else None)
    assert foreign_parts(db) == []
    assert db.execute_sql("SELECT id, state FROM jobs ORDER BY row_id").fetchall() == [
        ("01JOB0000000000000000000A1", "queued"),
        ("01JOB0000000000000000000A2", "done"),
    ]
    assert db.execute_sql("SELECT request FROM bodies").fetchall() == [(b'{"model":"tiny"}',)]
    assert db.execute_sql("SELECT chat_id, role, content FROM messages").fetchall() == [
        ("01CHAT000000000000000000C1", "user", "Grüße")
    ]
    close_database(db)


@pytest.mark.usefixtures("added")
def test_an_older_database_is_copied_before_it_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "quorum.db"
    frozen(FIXTURES[0], path)
    (tmp_path / "quorum.db.version-0-old").touch()

    db, report = open_database(path)
    close_database(db)

    assert report.migrated_from == 1
    assert rows(path, "SELECT folder FROM chats") == [("from Hello",)]
    assert rows(path, "PRAGMA user_version") == [(newest(),)]
    (copy,) = tmp_path.glob("quorum.db.version-*")
    assert copy.name.startswith("quorum.db.version-1-")
    assert copy.stat().st_mode & 0o777 == 0o600
    assert rows(copy, "PRAGMA user_version") == [(1,)]
    assert rows(copy, "SELECT title FROM chats") == [("Hello",)]


@pytest.mark.usefixtures("added")
def test_opening_again_changes_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "quorum.db"
    frozen(FIXTURES[0], path)
    close_database(open_database(path)[0])
    change(path, lambda db: db.execute("UPDATE chats SET folder = 'mine'"))

    db, report = open_database(path)
    close_database(db)

    assert report.migrated_from is None
    assert rows(path, "SELECT folder FROM chats") == [("mine",)]


@pytest.mark.usefixtures("added")
def test_an_older_database_with_a_foreign_trigger_is_set_aside_before_it_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "quorum.db"
    frozen(FIXTURES[0], path)
    change(path, lambda db: db.execute("CREATE TRIGGER spy AFTER UPDATE ON chats BEGIN DELETE FROM messages; END"))

    db, report = open_database(path)
    close_database(db)

    assert report.set_aside is not None
    assert rows(report.set_aside, "SELECT count(*) FROM messages") == [(1,)]


def test_a_step_that_fails_leaves_the_last_whole_version(tmp_path: Path) -> None:
    @migration
    def fails(db: peewee.SqliteDatabase) -> None:
        db.execute_sql("DELETE FROM chats")
        db.execute_sql("INSERT INTO nowhere VALUES (1)")

    path = tmp_path / "quorum.db"
    frozen(FIXTURES[0], path)
    try:
        with pytest.raises(StartError):
            open_database(path)
    finally:
        MIGRATIONS.remove(fails)

    assert rows(path, "SELECT title FROM chats") == [("Hello",)]
    assert rows(path, "PRAGMA user_version") == [(newest(),)]


@pytest.mark.usefixtures("added")
def test_a_crash_between_two_steps_goes_on_with_the_second() -> None:
    db = peewee.SqliteDatabase(":memory:")
    MIGRATIONS[0](db)
    db.execute_sql("PRAGMA user_version = 1")

    migrate(db)

    assert version_of(db) == newest()
    assert foreign_parts(db) == []


def test_what_sqlite_makes_itself_is_not_foreign() -> None:
    db = peewee.SqliteDatabase(":memory:")
    migrate(db)
    db.execute_sql("ANALYZE")

    assert foreign_parts(db) == []
