"""Logging: one escaped line of at most 256 characters a record, to stderr, a private file and a ring for the page.

Nothing a client sent is written: exceptions appear as their type and place, never with their text, unless the text is
known to come from the system. A thread of its own writes, so that a full pipe or a slow disk never holds up the loop.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import re
import sqlite3
import sys
import time
import traceback
from collections import deque
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final

LINE_MAX: Final = 256
RING_LINES: Final = 500
FILE_NAME: Final = "quorum.log"
FILE_BYTES: Final = 2 * 1024 * 1024
FILE_COUNT: Final = 3
WAITING_MAX: Final = 10_000
STUCK_S: Final = 1.0

# Control characters, the separators some viewers break lines at, bidirectional overrides, lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
# Their text names files, states or attributes, never what a client sent.
_SPEAKING = (OSError, sqlite3.Error, AttributeError, NotImplementedError)
_LIBRARIES = ("aiohttp", "asyncio", "zeroconf", "keyring", "pywebview", "PIL")


def escape(text: str, most: int = LINE_MAX) -> str:
    """``text`` as one harmless line of at most ``most`` characters."""
    text = _UNSAFE.sub(_escaped, text[: most + 1])
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def place_of(error: BaseException) -> str:
    """Type and places of ``error``, innermost first; its text only where it is the system's own."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames[-4:])]
    name = type(error).__name__
    said = f" ({error.strerror or error.errno})" if isinstance(error, OSError) else f" ({error})"
    return f"{name}{said if isinstance(error, _SPEAKING) else ''} at {' < '.join(places) or 'unknown'}"


class LineFormatter(logging.Formatter):
    """Time, level, logger, message, and the place of an exception, in one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        line = f"{stamp} {record.levelname} {record.name}: {_message(record)}"
        if record.exc_info and record.exc_info[1] is not None:
            line = f"{line[: LINE_MAX // 2]}: {place_of(record.exc_info[1])}"
        return escape(line)


def _message(record: logging.LogRecord) -> str:
    """The message. The HTTP and event-loop libraries put raw bytes and values into theirs: only the frame is kept."""
    if record.name.partition(".")[0] not in ("aiohttp", "asyncio"):
        try:
            return record.getMessage()
        except Exception:
            return "(a message that could not be formatted)"
    kept = str(record.msg).partition("\n")[0].partition("(")[0]
    return kept.replace("%s", "?").replace("%r", "?")[:80].strip()


class _Queue(logging.handlers.QueueHandler):
    """Formats on the caller's side, keeps the line in the ring, hands it to the writing thread; drops when that is
    10,000 lines behind."""

    def __init__(self, waiting: queue.Queue[Any], ring: deque[str]) -> None:
        super().__init__(waiting)
        self._ring = ring
        self.setFormatter(LineFormatter())

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        line = self.format(record)
        self._ring.append(line)
        return logging.LogRecord(record.name, record.levelno, "", 0, line, None, None)

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            return


class _Writer(logging.handlers.QueueListener):
    """Writes in a thread of its own; a sink that is stuck costs the end of the program at most 2 s."""

    def __init__(self, waiting: queue.Queue[Any], *sinks: logging.Handler) -> None:
        super().__init__(waiting, *sinks)
        self._waiting = waiting

    def stop(self) -> None:
        with suppress(queue.Full):
            self._waiting.put(None, timeout=STUCK_S)  # what the base class takes as the end
        if self._thread is not None:
            self._thread.join(STUCK_S)
            self._thread = None


class _PrivateFile(logging.handlers.RotatingFileHandler):
    """A rotating file that only its owner may read."""

    def _open(self) -> TextIOWrapper:
        handle = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if hasattr(os, "fchmod"):
            os.fchmod(handle, 0o600)
        return os.fdopen(handle, "a", encoding="utf-8", errors="backslashreplace")


class Logs:
    """What ``setup`` set up."""

    def __init__(self, level: int, directory: Path | None) -> None:
        self.ring: deque[str] = deque(maxlen=RING_LINES)
        sinks: list[logging.Handler] = [logging.StreamHandler(sys.stderr)] if sys.stderr is not None else []
        if directory is not None:
            sinks.append(_PrivateFile(directory / FILE_NAME, maxBytes=FILE_BYTES, backupCount=FILE_COUNT - 1))
        waiting: queue.Queue[Any] = queue.Queue(WAITING_MAX)
        self._handler = _Queue(waiting, self.ring)
        self._sinks = sinks
        self._writer = _Writer(waiting, *sinks)
        self._writer.start()
        root = logging.getLogger()
        root.addHandler(self._handler)
        root.setLevel(level)
        for name in _LIBRARIES:
            logging.getLogger(name).setLevel(max(level, logging.WARNING))

    def lines(self) -> list[str]:
        """The last 500 lines, oldest first."""
        return list(self.ring)

    def close(self) -> None:
        """Write what waits, then let go of the files."""
        logging.getLogger().removeHandler(self._handler)
        self._writer.stop()
        for sink in self._sinks:
            sink.close()


_current: Logs | None = None


def setup(level: str, directory: Path | None) -> Logs:
    """Log from now on at ``level`` (debug, info, warning, error) to stderr and ``directory``.

    Replaces an earlier set-up. Raises OSError when the file can't be opened, KeyError on another level.
    """
    global _current
    number = {"debug": 10, "info": 20, "warning": 30, "error": 40}[level.lower()]
    close()
    logging.raiseExceptions = False
    _current = Logs(number, directory)
    return _current


def close() -> None:
    """End logging as ``setup`` made it; nothing happens when there is none."""
    global _current
    if _current is not None:
        _current.close()
        _current = None


def recent() -> list[str]:
    """The last 500 lines of the set-up in force."""
    return _current.lines() if _current is not None else []
