"""A data folder as on the first day. Only what Quorum made is removed, whatever folder it is told."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import peewee

from router.database import close_database, open_database
from router.disk_use import DATABASE, MODELS
from router.identity import CERTIFICATE, KEY, load_identity
from router.keychain import FILE_NAME as PEERS
from router.keychain import Keychain

IDENTITY: Final = (CERTIFICATE, KEY, PEERS)
OWN: Final = (
    f"{DATABASE}*",
    "settings.json",
    "mode.json",
    "window.json",
    "node.json",
    "control.token",
    "webhook.secret",
    "power.json",
    "quorum.log*",
    "files",
    ".export-*",
    ".archive-*",
    ".settings-*",
    *IDENTITY,
)


def own(data_dir: Path, *, keep_models: bool, keep_identity: bool) -> list[Path]:
    """What would be removed. With ``keep_identity`` who is paired is put into a new database afterwards."""
    patterns = [pattern for pattern in OWN if not (keep_identity and pattern in IDENTITY)]
    patterns += [] if keep_models else [MODELS]
    return sorted({path for pattern in patterns for path in data_dir.glob(pattern)})


def reset(data_dir: Path, *, keep_models: bool, keep_identity: bool) -> list[str]:
    """Remove it; the names of what stays. The caller holds the folder's lock. Raises StartError, OSError."""
    paired = _paired(data_dir / DATABASE) if keep_identity else []
    if not keep_identity:
        _forget_secrets(data_dir)
    for path in own(data_dir, keep_models=keep_models, keep_identity=keep_identity):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if paired:
        _put(data_dir / DATABASE, paired)
    return sorted(path.name for path in data_dir.iterdir() if path.name != "instance.lock")


def _paired(path: Path) -> list[dict[str, Any]]:
    """The rows of other computers, as the newest schema has them."""
    if not path.is_file():
        return []
    db, _ = open_database(path)
    try:
        cursor = db.execute_sql("SELECT * FROM nodes")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    finally:
        close_database(db)


def _put(path: Path, rows: list[dict[str, Any]]) -> None:
    db, _ = open_database(path)
    try:
        with db.atomic():
            for row in rows:
                marks = ", ".join("?" * len(row))
                db.execute_sql(
                    f"INSERT INTO nodes ({', '.join(row)}) VALUES ({marks})",  # noqa: S608 # names of our own columns
                    tuple(row.values()),
                )
    except peewee.PeeweeException as error:
        raise OSError(0, f"who is paired could not be kept ({type(error).__name__})", str(path)) from error
    finally:
        close_database(db)


def _forget_secrets(data_dir: Path) -> None:
    """What the system's keyring holds for paired computers; best effort."""
    try:
        with closing(sqlite3.connect(f"{(data_dir / DATABASE).absolute().as_uri()}?mode=ro", uri=True)) as db:
            ids = [node_id for (node_id,) in db.execute("SELECT id FROM nodes WHERE paired_at IS NOT NULL")]
    except sqlite3.Error:
        return
    if ids and (data_dir / CERTIFICATE).is_file():
        asyncio.run(_drop(Keychain(data_dir, load_identity(data_dir).node_id), ids))


async def _drop(keychain: Keychain, ids: list[str]) -> None:
    for node_id in ids:
        await keychain.drop(node_id)
