"""What the operating system tells of sleep and shutdown, and what keeps it awake: one small interface for all of them.

``power_linux``, ``power_windows`` and ``power_macos`` are behind it; where none works, ``NoPower`` says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from typing import Final, Protocol

from router.aio import Tasks

APP: Final = "Quorum"
SERVING: Final = "A model answers on this computer"
PARTING: Final = "Other computers are told that this one goes"


class Told(Protocol):
    """Who hears of it. Called on the loop."""

    async def sleeps(self) -> None:
        """The computer is about to sleep; where the system waits for somebody, it waits for the end of this."""

    def woke(self) -> None:
        """It is awake again, or did not fall asleep after all."""

    def shuts_down(self) -> None:
        """The computer is about to be switched off or started anew."""


class Power(Protocol):
    """One system's side. Nothing here raises: what can't be had is said by ``detail``, in a few words."""

    @property
    def detail(self) -> str: ...
    async def start(self, told: Told) -> None: ...
    async def stop(self) -> None:
        """Let go of everything."""

    async def hold(self) -> bool:
        """Keep the computer from falling asleep by itself; False where that can't be done."""

    async def release(self) -> None:
        """Let it sleep when it likes."""


class NoPower:
    """A system that is not asked, or has nobody to ask."""

    def __init__(self, detail: str = "") -> None:
        self.detail = detail

    async def start(self, told: Told) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Nothing to do."""

    async def hold(self) -> bool:
        """It can't."""
        return False

    async def release(self) -> None:
        """Nothing to do."""


def part(loop: asyncio.AbstractEventLoop, tasks: Tasks, told: Told, limit_s: float) -> None:
    """Say the goodbyes, from a thread of the system's that waits for them; at most ``limit_s`` seconds."""
    done = threading.Event()

    async def sleeps() -> None:
        try:
            await told.sleeps()
        finally:
            done.set()

    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(lambda: tasks.spawn("before sleep", sleeps()))
        done.wait(limit_s)


def for_this_system(tasks: Tasks) -> Power:
    """The one of this operating system."""
    if sys.platform == "linux":
        from router.power_linux import Logind

        return Logind(tasks)
    if sys.platform == "win32":
        from router.power_windows import Windows

        return Windows(tasks)
    if sys.platform == "darwin":
        from router.power_macos import MacOS

        return MacOS(tasks)
    return NoPower("this system can't be asked to stay awake")
