"""The swap of two folders: at once where the system can exchange them, else two renames that a later start can mend."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from app.update import journal
from app.update.journal import Journal, Step

_AT_FDCWD: Final = -100
_EXCHANGE: Final = 2  # RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS alike
_CANNOT: Final = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)

Exchange = Callable[[Path, Path], bool]


def exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where the system or file system can't. Raises OSError."""
    if sys.platform == "win32":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    first, second = os.fsencode(one), os.fsencode(other)
    try:
        if sys.platform == "darwin":
            failed = library.renamex_np(first, second, _EXCHANGE)
        else:
            failed = library.renameat2(_AT_FDCWD, first, _AT_FDCWD, second, _EXCHANGE)
    except AttributeError:
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(one))


def swap(work: Path, plan: Journal, exchanged: Exchange = exchange) -> Journal:
    """Put the staged program in place and keep the old one; the journal afterwards, in ``TRIAL``. Raises OSError."""
    root, staged = Path(plan.root), Path(plan.staged)
    shutil.rmtree(plan.previous, ignore_errors=True)
    plan = plan.now(step=Step.SWAPPING)
    journal.write(work, plan)
    if hasattr(os, "sync"):
        os.sync()  # what was unpacked is on the disk before anything depends on it
    if exchanged(staged, root):
        staged.rename(plan.previous)
    else:
        incoming = _incoming(staged)
        root.rename(plan.previous)
        incoming.rename(root)
    return _trial(work, plan)


def _incoming(staged: Path) -> Path:
    """What to rename: on Windows a copy, because the folder of a running program can't be renamed there."""
    if sys.platform != "win32":
        return staged
    copy = staged.with_name("incoming")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(staged, copy)
    return copy


def _trial(work: Path, plan: Journal) -> Journal:
    plan = plan.now(step=Step.TRIAL, starts=0)
    journal.write(work, plan)
    return plan


def mend(work: Path, plan: Journal) -> Journal:
    """After a crash in ``swap``: what had happened is finished or undone, so that a whole program is in place.

    The journal afterwards, in ``TRIAL`` or ``FAILED``. Raises OSError.
    """
    root, old = Path(plan.root), _old(plan)
    if old == root:
        return failed(work, plan, "The update was interrupted before it was in place.")
    if not root.exists() and old is not None:
        old.rename(root)
        return failed(work, plan, "The update was interrupted; the program is as it was.")
    if old is not None and old != plan.previous:
        old.rename(plan.previous)
    return _trial(work, plan)


def roll_back(work: Path, plan: Journal, reason: str, exchanged: Exchange = exchange) -> Journal:
    """Put the old program back; the journal afterwards, in ``FAILED``. Raises OSError when it isn't there any more."""
    root, refused = Path(plan.root), work / "refused"
    old = _old(plan)
    if old is None:
        raise FileNotFoundError(errno.ENOENT, "the old program is gone", str(plan.previous))
    if old != root:
        shutil.rmtree(refused, ignore_errors=True)
        if root.exists() and exchanged(old, root):
            old.rename(refused)
        else:
            if root.exists():
                root.rename(refused)
            old.rename(root)
    return failed(work, plan, reason)


def failed(work: Path, plan: Journal, reason: str) -> Journal:
    """Note why an update came to nothing; the next start tells it."""
    plan = plan.now(step=Step.FAILED, reason=reason, helper=0)
    journal.write(work, plan)
    return plan


def tidy(work: Path) -> None:
    """Remove what updates left: everything, once no update is under way. A file in use stays for the next time."""
    shutil.rmtree(work, ignore_errors=True)


def _old(plan: Journal) -> Path | None:
    """Where the old program is now."""
    for place in (Path(plan.root), plan.previous, Path(plan.staged)):
        try:
            if place.stat().st_ino == plan.old_inode:
                return place
        except OSError:
            continue
    return None
