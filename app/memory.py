"""What the window remembers between starts: its place, its zoom, and how this computer draws."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from pathlib import Path
from typing import Final

import msgspec

log = logging.getLogger(__name__)

MIN_SIZE: Final = (640, 480)
ZOOM: Final = (0.5, 3.0)


class Memory(msgspec.Struct, kw_only=True):
    """``window.json`` of the data folder. Pixels are those of the desktop; ``x`` and ``y`` None is in the middle.

    ``starting`` is true from before the window is made until it has drawn: left true, the last start crashed there.
    ``software`` is the verdict about drawing for the display with the fingerprint ``drawn_on``.
    """

    x: int | None = None
    y: int | None = None
    width: int = 1100
    height: int = 760
    maximized: bool = False
    zoom: float = 1.0
    starting: bool = False
    software: bool = False
    drawn_on: str = ""

    def __post_init__(self) -> None:
        self.width = min(max(self.width, MIN_SIZE[0]), 16_384)
        self.height = min(max(self.height, MIN_SIZE[1]), 16_384)
        self.zoom = min(max(self.zoom, ZOOM[0]), ZOOM[1])


def recall(path: Path) -> Memory:
    """What was saved; a missing or broken file is a new memory, never an error."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Memory)
    except (OSError, msgspec.DecodeError):
        return Memory()


def save(memory: Memory, path: Path) -> None:
    """Replace the file at once; a failure is logged, because nothing depends on it."""
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".window-")
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(memory))
        Path(temporary).replace(path)
    except OSError as error:
        log.warning("the window's place could not be saved: %s", error)
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
