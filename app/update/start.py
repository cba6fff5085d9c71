"""What every start of an installed program asks first: is an update unfinished? One look at the disk when none is."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from app.update import journal
from app.update.installation import root_of

_TELLING: Final = frozenset({"--version", "--licences", "--help", "-h"})


def work_of(program: Path) -> Path:
    """Where updates of the installation of ``program`` are prepared, also when a crash left the program in there."""
    root = root_of(program)
    if root.parent.name.startswith(".") and root.parent.name.endswith(".update"):
        return root.parent
    return root.with_name(f".{root.name}.update")


def begin(words: Sequence[str], program: Path) -> None:
    """Mend what a crash left, and count a start of a new program on trial. May not return: see ``finish.begin``."""
    work = work_of(program)
    if (work / journal.FILE).is_file() and _ours(work):
        from app.update import finish

        finish.begin(work, counts=_starts_a_node(words))


def _ours(work: Path) -> bool:
    """Whether nobody else could have put a journal there: in a folder that many may write, anybody makes one."""
    if not hasattr(os, "geteuid"):
        return True
    found = work.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _starts_a_node(words: Sequence[str]) -> bool:
    """Whether these words start a node; commands to a running one say nothing about the program on trial."""
    if _TELLING.intersection(words):
        return False
    return "serve" in words or not words or words[0].startswith("-") or Path(words[0]).is_absolute()
