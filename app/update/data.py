"""The data folder after a roll-back: what a new version had brought up to date, the old one could not read.

Before it migrates, a node keeps a copy of its database beside it. A version that never got ready has answered nobody,
so the copy has all there is; its own file is kept, too, under another name.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from app.update.journal import Journal

DATABASE: Final = "quorum.db"
BESIDE: Final = ("-wal", "-shm", "")


def restore(plan: Journal) -> bool:
    """Put the database back as it was before the new version's first start; False when that changed nothing.

    Raises OSError.
    """
    if not plan.data_dir:
        return False
    folder = Path(plan.data_dir)
    copies = [path for path in folder.glob(f"{DATABASE}.version-*") if path.stat().st_mtime >= plan.prepared_at]
    if not copies:
        return False
    first = min(copies, key=lambda path: path.stat().st_mtime)
    again = folder / f".{DATABASE}.old"
    shutil.copyfile(first, again)
    again.chmod(0o600)
    with again.open("rb+") as file:
        os.fsync(file.fileno())
    aside = folder / f"{DATABASE}.newer-{plan.version}"
    for suffix in BESIDE:
        if (part := folder / f"{DATABASE}{suffix}").exists():
            part.replace(aside.with_name(aside.name + suffix))
    again.replace(folder / DATABASE)
    return True
