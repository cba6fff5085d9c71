"""A data folder that can't be trusted or used: explained, set aside, never overwritten."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from router.database import CAREFUL, PRAGMAS, OpenReport, close_database, open_database, tidy
from router.errors import StartError
from router.migrations import newest
from router.store import Store
from tests.router.store_kit import change, fill, rows, small_disk

CHAT = "INSERT INTO chats VALUES ('c', 'kept', 'm', '{}', 1, 1)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "quorum.db"


def once(path: Path) -> OpenReport:
    db, report = open_database(path)
    close_database(db)
    return report


def filled(path: Path) -> Path:
    """A database with one conversation and enough rows to damage."""
    once(path)
    change(path, lambda db: db.execute(CHAT))
    with sqlite3.connect(path) as db:
        db.executemany("INSERT INTO added_paths VALUES (?, 1)", [(f"/{number}" * 50,) for number in range(500)])
    db.close()
    return path


def test_a_new_database_is_made_with_its_folder_for_the_owner_only(path: Path) -> None:
    os.umask(0o022)
    db, report = open_database(path)

    assert report.created
    assert report.notice == ""
    assert len(report.boot_id) == 16
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"quorum.db": 0o600, "quorum.db-wal": 0o600, "quorum.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    close_database(db)
    assert [file.name for file in path.parent.iterdir()] == ["quorum.db"]


def test_a_file_others_could_read_is_closed_to_them(path: Path) -> None:
    once(path)
    path.chmod(0o644)
    once(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_connection_is_as_durable_and_careful_as_the_design_says(path: Path) -> None:
    db, _ = open_database(path)

    values = {name: db.execute_sql(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", *PRAGMAS)}
    assert values["journal_mode"] == "wal"
    assert values["synchronous"] == 2
    assert values["foreign_keys"] == values["secure_delete"] == 1
    assert values["trusted_schema"] == 0
    assert values["busy_timeout"] == 5000
    close_database(db)


def test_each_start_has_its_own_boot_id(path: Path) -> None:
    first, second = once(path), once(path)

    assert second.boot_id != first.boot_id
    assert not second.created
    assert rows(path, "SELECT value FROM meta WHERE name = 'boot_id'") == [(second.boot_id,)]


def test_a_database_of_a_newer_version_is_explained_and_not_touched(path: Path) -> None:
    filled(path)
    change(path, lambda db: db.execute(f"PRAGMA user_version = {newest() + 1}"))
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}

    with pytest.raises(StartError, match="newer version of Quorum") as failed:
        once(path)

    assert "--data-dir" in failed.value.hint
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_a_newer_version_that_stands_only_in_the_log_is_found_too(path: Path) -> None:
    filled(path)
    newer = sqlite3.connect(path, isolation_level=None)
    newer.execute("PRAGMA wal_autocheckpoint = 0")
    newer.execute(f"PRAGMA user_version = {newest() + 1}")

    with pytest.raises(StartError, match="newer version"):
        once(path)
    newer.close()
    assert rows(path, "SELECT title FROM chats") == [("kept",)]


@pytest.mark.parametrize(
    ("foreign", "named"),
    [
        ("CREATE TRIGGER spy AFTER INSERT ON jobs BEGIN DELETE FROM chats; END", "trigger spy"),
        ("CREATE TABLE extra (a)", "table extra"),
        ("CREATE VIEW seen AS SELECT * FROM messages", "view seen"),
        ("CREATE INDEX more ON jobs (model)", "index more"),
        ("DROP INDEX jobs_live", "index jobs_live"),
        ("ALTER TABLE chats ADD COLUMN more TEXT", "table chats"),
    ],
)
def test_a_database_with_foreign_parts_is_set_aside_and_the_user_is_told(path: Path, foreign: str, named: str) -> None:
    filled(path)
    change(path, lambda db: db.execute(foreign))

    report = once(path)

    assert report.created
    assert report.set_aside is not None
    assert report.set_aside.name.startswith("quorum.db.damaged-")
    assert named in report.notice
    assert report.set_aside.name in report.notice
    assert rows(report.set_aside, "SELECT title FROM chats") == [("kept",)]
    assert rows(path, "SELECT title FROM chats") == []
    assert once(path).set_aside is None


def test_a_foreign_trigger_never_runs(path: Path) -> None:
    filled(path)
    trigger = "CREATE TRIGGER spy AFTER UPDATE ON meta BEGIN DELETE FROM chats; END"
    change(path, lambda db: db.execute(trigger))

    report = once(path)

    assert report.set_aside is not None
    assert rows(report.set_aside, "SELECT title FROM chats") == [("kept",)]


def test_another_programs_database_is_set_aside(path: Path) -> None:
    path.parent.mkdir()
    change(path, lambda db: db.execute("CREATE TABLE cookies (host TEXT)"))

    report = once(path)

    assert report.set_aside is not None
    assert rows(report.set_aside, "SELECT count(*) FROM cookies") == [(0,)]


@pytest.mark.parametrize("damage", ["no database", "first page", "a page in the middle", "cut short"])
def test_a_damaged_database_is_set_aside_with_its_log(path: Path, damage: str) -> None:
    filled(path)
    content = bytearray(path.read_bytes())
    match damage:
        case "no database":
            content[:] = b"this was never a database" * 500
        case "first page":
            content[100:4096] = b"\xff" * 3996
        case "a page in the middle":
            middle = len(content) // 2 // 4096 * 4096
            content[middle : middle + 8192] = b"\xa5" * 8192
        case "cut short":
            del content[len(content) // 2 :]
    path.write_bytes(content)

    report = once(path)

    assert report.created
    assert report.set_aside is not None
    assert report.set_aside.read_bytes() == content
    assert "set aside" in report.notice
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_setting_aside_takes_the_log_along(path: Path) -> None:
    filled(path)
    path.write_bytes(b"garbage" * 1000)
    path.with_name("quorum.db-wal").write_bytes(b"log")

    report = once(path)

    assert report.set_aside is not None
    assert report.set_aside.with_name(report.set_aside.name + "-wal").read_bytes() == b"log"


def test_an_empty_file_becomes_a_new_database(path: Path) -> None:
    path.parent.mkdir()
    path.touch()

    assert once(path).set_aside is None
    assert rows(path, "SELECT count(*) FROM jobs") == [(0,)]


async def test_a_start_error_reaches_the_one_who_opens(path: Path) -> None:
    path.parent.write_text("a file where the folder should be")

    with pytest.raises(StartError, match="can't be used") as failed:
        await Store(path).open()
    assert "--data-dir" in failed.value.hint


@pytest.mark.skipif(not hasattr(os, "fork") or os.geteuid() != 0, reason="becoming another user needs root")
def test_a_folder_that_is_not_ours_to_write_is_explained(path: Path) -> None:
    filled(path)
    path.parent.chmod(0o755)
    path.parent.parent.chmod(0o755)
    before = path.read_bytes()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        told = b"opened"
        try:
            for folder in path.parents:
                if folder.stat().st_mode & 0o005 != 0o005:
                    told = b"unreachable"
            os.setuid(65534)
            open_database(path)
        except StartError as error:
            told = error.message.encode()
        except OSError:
            told = b"unreachable"
        os.write(writer, told)
        os._exit(0)
    os.waitpid(child, 0)
    told = os.read(reader, 4096).decode()
    os.close(reader)
    os.close(writer)

    assert "can't be used" in told
    assert path.read_bytes() == before


def test_a_read_only_disk_is_explained(tmp_path: Path) -> None:
    with small_disk(tmp_path, 4096) as place:
        once(place / "quorum.db")
        os.system(f"mount -o remount,ro {place}")  # noqa: S605 - our own mount

        with pytest.raises(StartError, match="can't be used"):
            once(place / "quorum.db")
        with pytest.raises(StartError, match="can't be used"):
            once(place / "other.db")


def test_a_full_disk_is_explained_and_nothing_of_the_old_is_lost(tmp_path: Path) -> None:
    with small_disk(tmp_path, 4096) as place:
        filled(place / "quorum.db")
        fill(place)

        with pytest.raises(StartError, match="full") as failed:
            once(place / "new.db")
        assert "space" in failed.value.hint
        with pytest.raises(StartError, match="full"):
            once(place / "quorum.db")
        (place / "ballast").unlink()
        assert once(place / "quorum.db").set_aside is None
        assert rows(place / "quorum.db", "SELECT title FROM chats") == [("kept",)]


@pytest.mark.parametrize("size_kib", [24, 48, 80, 120])
def test_a_disk_that_fills_up_while_the_database_is_made_is_named(tmp_path: Path, size_kib: int) -> None:
    with small_disk(tmp_path, size_kib) as place, pytest.raises(StartError, match="full"):
        once(place / "quorum.db")


def test_a_database_that_another_program_locks_is_explained(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CAREFUL, "busy_timeout", 10)
    monkeypatch.setitem(PRAGMAS, "busy_timeout", 10)
    filled(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")

    with pytest.raises(StartError, match="Another program has locked"):
        once(path)
    other.close()


def test_a_big_database_is_not_read_as_a_whole_at_each_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.database.WHOLE_CHECK_BYTES", 1)
    filled(path)
    assert once(path).set_aside is None
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 8192] = b"\xa5" * 8192
    path.write_bytes(content)

    assert once(path).set_aside is not None


def test_free_pages_are_given_back(path: Path) -> None:
    db, _ = open_database(path)
    db.execute_sql("INSERT INTO added_paths VALUES (?, 1)", ("x" * 20_000_000,))
    db.execute_sql("DELETE FROM added_paths")
    close_database(db)
    before = path.stat().st_size
    db, _ = open_database(path)
    tidy(db)
    close_database(db)

    assert before > 20_000_000
    assert path.stat().st_size < 4_000_000
