"""What the data folder takes, by kind."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from router.hardware import disk_free_bytes
from router.logs import FILE_NAME as LOG
from router.wire_care import DiskUse

DATABASE: Final = "quorum.db"
MODELS: Final = "models"


def disk_use(data_dir: Path) -> DiskUse:
    """Look through the folder. Blocks: call it in a thread. What can't be read counts as nothing."""
    sizes = dict.fromkeys(("models", "database", "backups", "logs", "other"), 0)
    for folder, _, names in os.walk(data_dir):
        for name in names:
            path = Path(folder) / name
            sizes[_kind(path.relative_to(data_dir))] += _size(path)
    return DiskUse(
        **{f"{kind}_bytes": size for kind, size in sizes.items()},
        bodies_bytes=_bodies(data_dir / DATABASE),
        free_bytes=disk_free_bytes(data_dir),
    )


def _kind(path: Path) -> str:
    name = path.parts[0]
    if name == MODELS:
        return "models"
    if name.startswith(f"{DATABASE}."):
        return "backups"
    if name.startswith(DATABASE):
        return "database"
    return "logs" if name.startswith(LOG) else "other"


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _bodies(database: Path) -> int:
    """Kept prompts and answers of jobs, as the database counts them without looking at the texts."""
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as db:
            row = db.execute(
                "SELECT coalesce(sum(coalesce(length(request), 0) + coalesce(length(answer), 0)), 0) FROM bodies"
            ).fetchone()
            return int(row[0])
    except sqlite3.Error:
        return 0
