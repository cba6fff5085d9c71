"""The database file: opened, checked, migrated; one that can't be trusted is set aside, never overwritten."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import peewee

from router.errors import StartError
from router.migrations import APPLICATION_ID, back_up, foreign_parts, migrate, newest, version_of
from router.work import bare, sqlite_code

log = logging.getLogger(__name__)
logging.getLogger("peewee").setLevel(logging.WARNING)  # at DEBUG it writes every statement with its values

CAREFUL: Final = {"trusted_schema": 0, "cell_size_check": 1, "busy_timeout": 5000}
PRAGMAS: Final = {
    **CAREFUL,
    "auto_vacuum": "INCREMENTAL",
    "foreign_keys": 1,
    "secure_delete": 1,
    "synchronous": "FULL",
    "fullfsync": 1,  # on macOS a plain fsync does not reach the disk
    "checkpoint_fullfsync": 1,
    "cache_size": -8192,
    "temp_store": "MEMORY",
    "wal_autocheckpoint": 4000,
    "journal_size_limit": 32 * 1024 * 1024,
}
ROOM_BYTES: Final = 64 * 1024  # less is a full disk
FREE_PAGES: Final = 1024  # pages kept for the next rows rather than given back
WHOLE_CHECK_BYTES: Final = 64 * 1024 * 1024
BIG_TABLES: Final = frozenset({"bodies", "chunks", "responses", "batch_lines"})


@dataclass(frozen=True, slots=True)
class OpenReport:
    """How opening went. ``notice`` is one sentence for the user, empty when all is as usual."""

    boot_id: str
    created: bool = False
    migrated_from: int | None = None
    set_aside: Path | None = None
    notice: str = ""


def open_database(path: Path) -> tuple[peewee.SqliteDatabase, OpenReport]:
    """The connection for the calling thread alone, and what was done. Raises StartError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        notice, aside = "", None
        if fault := _look(path):
            aside = _set_aside(path)
            log.error("the database was set aside as %s: %s", aside.name, fault)
            notice = f"{fault} It was set aside as {aside.name}, and a new, empty database was started."
        return _open(path, notice, aside)
    except (OSError, peewee.PeeweeException, sqlite3.Error) as error:
        raise _start_error(path, _first(error)) from bare(error)


def _look(path: Path) -> str:
    """Why the file can't be used, in one sentence, or nothing. Changes nothing, not even the log. Raises StartError."""
    if not path.exists() or not path.stat().st_size:
        return ""
    log_there = path.with_name(path.name + "-wal").exists()
    how = "mode=ro" if log_there else "mode=ro&immutable=1"  # which needs no files beside it
    db = _connection(f"{path.absolute().as_uri()}?{how}", CAREFUL)
    try:
        version = version_of(db)
        if version > newest():
            raise StartError(
                f"The data folder was used by a newer version of Quorum (its database is version {version}, "
                f"this program knows up to {newest()}). Nothing was changed.",
                "Install the newer version again, or choose another folder with --data-dir.",
            )
        if foreign := foreign_parts(db):
            return f"The database has parts that are not Quorum's ({', '.join(foreign[:3])[:200]})."
        return "The database is damaged." if _damaged(db, path) else ""
    except (peewee.PeeweeException, sqlite3.Error) as error:
        if sqlite_code(bare(error)) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return "The database is damaged."
        raise
    finally:
        db.close()


def _open(path: Path, notice: str, aside: Path | None) -> tuple[peewee.SqliteDatabase, OpenReport]:
    """Create or migrate, and begin a new boot."""
    created = not path.exists()
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    path.chmod(0o600)
    db = _connection(str(path), PRAGMAS)
    try:
        version = version_of(db)
        db.execute_sql("PRAGMA journal_mode = WAL")
        if version < newest():
            _update(db, path, version)
        boot_id = _new_boot(db)
    except BaseException:
        roll_back(db)
        db.close()
        raise
    migrated_from = version if 0 < version < newest() else None
    return db, OpenReport(boot_id, created, migrated_from, aside, notice)


def _connection(name: str, pragmas: Mapping[str, object]) -> peewee.SqliteDatabase:
    db = peewee.SqliteDatabase(name, pragmas=dict(pragmas), thread_safe=False, uri=name.startswith("file:"))
    db.register_function(str.casefold, "fold", 1, deterministic=True)
    return db


def _update(db: peewee.SqliteDatabase, path: Path, version: int) -> None:
    if version:
        _back_up_before(db, path, version)
    migrate(db)
    db.execute_sql(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def _damaged(db: peewee.SqliteDatabase, path: Path) -> bool:
    """Check the structure; of a big file only the tables without bodies, as the start may not take seconds."""
    if path.stat().st_size <= WHOLE_CHECK_BYTES:
        return _check_says(db, "1") != "ok"
    tables = [name for name in db.get_tables() if name not in BIG_TABLES and not name.startswith("sqlite_")]
    return any(_check_says(db, name) != "ok" for name in tables)


def _check_says(db: peewee.SqliteDatabase, what: str) -> str:
    return str(db.execute_sql(f"PRAGMA quick_check({what})").fetchone()[0])


def _back_up_before(db: peewee.SqliteDatabase, path: Path, version: int) -> None:
    """Keep a copy of the old version beside the file; only the latest such copy stays."""
    target = path.with_name(f"{path.name}.version-{version}-{_stamp()}")
    back_up(db, target)
    for older in path.parent.glob(f"{path.name}.version-*"):
        if older != target:
            older.unlink()


def _set_aside(path: Path) -> Path:
    """Rename the file with its -wal and -shm; the new name."""
    aside = path.with_name(f"{path.name}.damaged-{_stamp()}")
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside


def _stamp() -> str:
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + f"-{secrets.token_hex(2)}"


def _new_boot(db: peewee.SqliteDatabase) -> str:
    """A new boot id, stored: it fences the results of earlier processes."""
    boot_id = secrets.token_hex(8)
    with db.atomic("IMMEDIATE"):
        db.execute_sql(
            "INSERT INTO meta (name, value) VALUES ('boot_id', ?) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (boot_id,),
        )
    return boot_id


def _first(error: Exception) -> Exception:
    """What went wrong first: SQLite itself ends a transaction when the disk is full, and to end it again fails too."""
    while isinstance(before := error.__context__, OSError | peewee.PeeweeException | sqlite3.Error):
        error = before
    return error


def _has_no_room(path: Path, code: int) -> bool:
    """For want of room SQLite also says that reading and writing failed."""
    try:
        return code == sqlite3.SQLITE_IOERR and shutil.disk_usage(path.parent).free < ROOM_BYTES
    except OSError:
        return False


def _start_error(path: Path, error: Exception) -> StartError:
    code = sqlite_code(error)
    number = error.errno if isinstance(error, OSError) else None
    if code == sqlite3.SQLITE_FULL or number in (errno.ENOSPC, errno.EDQUOT) or _has_no_room(path, code):
        return StartError(f"The disk of the data folder {path.parent} is full.", "Free some space, then start again.")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StartError(
            f"Another program has locked the database {path}.", "End it (another Quorum, a database browser) first."
        )
    reason = os.strerror(number) if number is not None else str(error)
    return StartError(
        f"The data folder {path.parent} can't be used: {reason}.",
        "Make it writable for your user, or choose another folder with --data-dir.",
    )


def roll_back(db: peewee.SqliteDatabase) -> None:
    """End a transaction that failed; SQLite may have ended it already."""
    if db.is_closed():
        return
    try:
        if db.connection().in_transaction:
            db.execute_sql("ROLLBACK")
    except (peewee.PeeweeException, sqlite3.Error) as error:
        log.warning("rolling back failed: %s", type(error).__name__)


def checkpoint(db: peewee.SqliteDatabase) -> None:
    """Move what is committed from the log into the file; a failure only means later."""
    _maintain(db, "PRAGMA wal_checkpoint(PASSIVE)")


def tidy(db: peewee.SqliteDatabase) -> None:
    """Nothing is going on: give the file's free pages back and empty the log, which still holds deleted text."""
    free = int(db.connection().execute("PRAGMA freelist_count").fetchone()[0])
    if free > FREE_PAGES:
        _maintain(db, f"PRAGMA incremental_vacuum({free - FREE_PAGES // 2})")
    _maintain(db, "PRAGMA wal_checkpoint(TRUNCATE)")


def _maintain(db: peewee.SqliteDatabase, pragma: str) -> None:
    try:
        db.connection().executescript(pragma)  # a cursor would stop incremental_vacuum after its first page
    except (peewee.PeeweeException, sqlite3.Error) as error:
        log.warning("%s failed for now: %s", pragma, type(error).__name__)


def close_database(db: peewee.SqliteDatabase) -> None:
    """Close the connection; SQLite then moves its log into the file."""
    try:
        db.close()
    except (peewee.PeeweeException, sqlite3.Error) as error:
        log.warning("closing the database failed: %s", type(error).__name__)
