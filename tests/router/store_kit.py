"""What the tests of the store share."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from router.store import Store
from router.writer import Faults


class Clock:
    """A clock that moves only when a test says so."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def wall(self) -> float:
        return self.now

    def mono(self) -> float:
        return self.now


class Broken(Faults):
    """Fails like a disk while ``error`` is set, waits at the beginning while ``gate`` is; counts what it saw."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.point = "before_commit"
        self.commits = 0
        self.committed = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def reach(self, point: str) -> None:
        if point == "begin":
            assert self.gate.wait(10)
        if point == "after_commit":
            self.commits += 1
            self.committed.set()
        if point == self.point and self.error is not None:
            raise self.error


def disk_full() -> sqlite3.OperationalError:
    """What SQLite raises when the disk is full."""
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    error.sqlite_errorname = "SQLITE_FULL"
    return error


def fsync_failed() -> sqlite3.OperationalError:
    """What SQLite raises when the system reports that a sync failed."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
    return error


@asynccontextmanager
async def opened(path: Path, faults: Faults | None = None) -> AsyncIterator[Store]:
    """A store on ``path`` that is closed at the end."""
    store = Store(path, faults=faults)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def rows(path: Path, sql: str, *params: object) -> list[tuple[object, ...]]:
    """What another program reads from the file."""
    db = sqlite3.connect(path)
    try:
        return db.execute(sql, params).fetchall()
    finally:
        db.close()


def change(path: Path, edit: Callable[[sqlite3.Connection], object]) -> None:
    """What another program does to the file."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        edit(db)
    finally:
        db.close()


@contextmanager
def small_disk(folder: Path, size_kib: int) -> Iterator[Path]:
    """A file system of its own with ``size_kib`` KiB; only root may mount one."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    place = folder / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(place: Path) -> Path:
    """A file that takes all the room left on a small disk."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return ballast
