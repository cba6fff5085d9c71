"""One instance per data folder: a lock that the system releases with the process, and the way to the one that has it.

A lock left by a dead process is free; the files beside it (``node.json``, ``control.token``) count only while the
process that holds the lock is the one they name.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.service import StartError

LOCK = "instance.lock"
WAIT_S = 10.0
ASK_S = 3.0

if sys.platform == "win32":
    import msvcrt

    _LOCKED_BYTE = 1 << 20  # Windows hides locked bytes from readers: lock one behind the text

    def _try_lock(handle: int) -> bool:
        os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class Instance:
    """The lock on one data folder, held until ``release`` or the end of the process."""

    def __init__(self, handle: int) -> None:
        self._handle: int | None = handle

    @classmethod
    def acquire(cls, data_dir: Path) -> Instance | None:
        """The lock on ``data_dir`` (made with mode 0700 when missing), or None when another process has it.

        Raises StartError when the folder can't be made, written or locked.
        """
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unusable(data_dir, error) from error
        try:
            if not _try_lock(handle):
                os.close(handle)
                return None
            os.ftruncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
            os.write(handle, f"{os.getpid()}\n".encode())
        except OSError as error:
            os.close(handle)
            raise _unusable(data_dir, error) from error
        return cls(handle)

    def release(self) -> None:
        """Give the folder free; a second call does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _unusable(data_dir: Path, error: OSError) -> StartError:
    return StartError(
        f"The data folder {data_dir} can't be used: {error.strerror or error}.",
        "Make it writable for you, or choose another one with --data-dir.",
    )


class Reply(Enum):
    """What the running instance did when it was asked to show its window."""

    SHOWN = auto()
    NO_WINDOW = auto()
    GONE = auto()
    SILENT = auto()


@dataclass(frozen=True)
class Other:
    """The running instance; ``address`` and ``pid`` are empty and 0 while it has not told them."""

    reply: Reply
    address: str = ""
    pid: int = 0


def show_other(data_dir: Path, wait_s: float = WAIT_S) -> Other:
    """Ask the instance that holds ``data_dir`` to show its window, waiting at most ``wait_s`` for one that starts."""
    deadline = time.monotonic() + wait_s
    other = Other(Reply.SILENT)
    while time.monotonic() < deadline:
        if (lock := Instance.acquire(data_dir)) is not None:
            lock.release()
            return Other(Reply.GONE)
        if (found := _find(data_dir)) is not None:
            address, pid, token = found
            match _ask_to_show(address, token):
                case 204:
                    return Other(Reply.SHOWN, address, pid)
                case 409:
                    return Other(Reply.NO_WINDOW, address, pid)
            other = Other(Reply.SILENT, address, pid)
        time.sleep(0.1)
    return other


def _find(data_dir: Path) -> tuple[str, int, str] | None:
    try:
        holder = int((data_dir / LOCK).read_text().strip() or "0")
        told: dict[str, Any] = json.loads((data_dir / "node.json").read_text())
        token = (data_dir / "control.token").read_text().strip()
        address, pid = str(told["address"]), int(told["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (address, pid, token) if pid == holder else None


def _ask_to_show(address: str, token: str) -> int | None:
    """The status of the answer, or None without one."""
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=ASK_S)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        connection.request("POST", "/local/v1/show", body=b"{}", headers=headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException, UnicodeEncodeError):
        return None
    finally:
        connection.close()
