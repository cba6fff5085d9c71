"""Everything of a user in one file: conversations to read, settings, and a copy of the database to put back.

Works on the folder alone, whether a node runs there or not. Secrets stay out: keys of engines, of this computer, of
paired computers, of webhooks, the control token, sessions. Models and logs stay out for their size and their use.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
import zipfile
from contextlib import closing
from pathlib import Path
from typing import IO, Any, Final

import msgspec
import peewee

from router import __version__
from router.chats import read_chat
from router.database import CAREFUL
from router.errors import StartError
from router.kept import FOLDER as FILES
from router.migrations import newest, version_of
from router.settings import BY_NAME
from router.transcript import as_json, as_markdown, file_name

DATABASE: Final = "quorum.db"
SETTINGS: Final = "settings.json"
TEMPORARY: Final = ".export-"

READ_ME: Final = """\
This is what Quorum {version} kept of its user on {day}.

chats/          each conversation as text (.md) and with everything (.json)
settings.json   the settings that were changed, without the keys of engines
quorum.db       jobs and conversations; to put them back, end Quorum, move the file into an empty data folder, start it
files/          what programs uploaded

Not in here: models, logs, and every secret. Computers must be paired again, API keys go on working.
"""

_SECRETS: Final = (
    "DELETE FROM sessions",
    "DELETE FROM webhooks",
    "UPDATE jobs SET webhook = NULL WHERE webhook IS NOT NULL",
    "UPDATE nodes SET secret_hash = NULL, secret = NULL",
)


def export(data_dir: Path, target: IO[bytes]) -> None:
    """Write the archive to ``target``, which need not be seekable. Blocks: call it in a thread.

    Raises StartError when there is nothing, or a newer version's; OSError when it can't be read or written.
    """
    if not (data_dir / DATABASE).is_file():
        raise StartError(f"There is nothing of Quorum in {data_dir}.", "Give its folder with --data-dir.")
    for left in data_dir.glob(f"{TEMPORARY}*"):
        left.unlink(missing_ok=True)
    # Beside the original and as private: nothing of it ever lies in a folder for temporary files.
    handle, name = tempfile.mkstemp(dir=data_dir, prefix=TEMPORARY)
    os.close(handle)
    copy = Path(name)
    try:
        _back_up(data_dir / DATABASE, copy)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            _write(archive, data_dir, copy)
    except sqlite3.Error as error:
        raise OSError(0, f"the database can't be copied ({error})", str(data_dir / DATABASE)) from error
    finally:
        for part in (copy, copy.with_name(copy.name + "-journal"), copy.with_name(copy.name + "-wal")):
            part.unlink(missing_ok=True)


def _back_up(database: Path, copy: Path) -> None:
    """A copy as of one moment, while a node may write on; then without secrets, also in its free pages."""
    with (
        closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True, timeout=10)) as source,
        closing(sqlite3.connect(copy, timeout=10)) as target,
    ):
        source.execute("PRAGMA trusted_schema = 0")
        if source.execute("PRAGMA user_version").fetchone()[0] > newest():
            raise StartError("The data folder was used by a newer version of Quorum.", "Export it with that version.")
        source.execute("BEGIN")  # one moment for all pages, however long it takes
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        source.backup(target)
        target.create_function("fold", 1, str.casefold, deterministic=True)
        target.execute("PRAGMA secure_delete = 1")
        tables = {name for (name,) in target.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for statement in _SECRETS:
            if any(f" {table} " in f"{statement} " for table in tables):
                target.execute(statement)
        target.commit()
        target.execute("PRAGMA journal_mode = DELETE")
        target.execute("VACUUM")


def _write(archive: zipfile.ZipFile, data_dir: Path, copy: Path) -> None:
    day = time.strftime("%Y-%m-%d")
    archive.writestr("README.txt", READ_ME.format(version=__version__, day=day))
    archive.writestr(SETTINGS, msgspec.json.format(msgspec.json.encode(shown_settings(data_dir / SETTINGS))))
    for name, content in _chats(copy):
        archive.writestr(name, content)
    archive.write(copy, DATABASE)
    for path in sorted((data_dir / FILES).glob("*")):
        if path.is_file() and not path.is_symlink():
            archive.write(path, f"{FILES}/{path.name}")


def _chats(copy: Path) -> list[tuple[str, bytes]]:
    db = peewee.SqliteDatabase(str(copy), pragmas=dict(CAREFUL))
    try:
        if version_of(db) < newest():
            return []  # an older version's: its database is in the archive, and is brought up to date at a start
        found = []
        for (chat_id,) in db.execute_sql("SELECT id FROM chats ORDER BY created_at").fetchall():
            chat = read_chat(db, chat_id)
            stem = f"chats/{_day(chat.info.created_at)}-{file_name(chat, '')[:-1]}-{chat_id[-6:]}"
            found += [(f"{stem}.md", as_markdown(chat)), (f"{stem}.json", as_json(chat))]
        return found
    finally:
        db.close()


def _day(seconds: float) -> str:
    """A day that sorts, for file names."""
    return time.strftime("%Y-%m-%d", time.localtime(seconds))


def shown_settings(path: Path) -> dict[str, Any]:
    """The settings in the file, without the keys that may stand before an engine's address."""
    try:
        raw = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError, ValueError):
        return {}
    return {name: without_keys(value) if name == "engines" else value for name, value in raw.items() if name in BY_NAME}


def without_keys(engines: object) -> str:
    """``key@address`` as ``address``, for each of a comma-separated list."""
    return ", ".join(part.strip().rpartition("@")[2] for part in str(engines).split(",") if part.strip())
