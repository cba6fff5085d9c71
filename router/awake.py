"""Time awake: a clock that stands still while this computer sleeps, and how one sees that it slept.

Every deadline of the node runs on it, so none passes in a sleep. Linux and macOS stop Python's monotonic clock by
themselves; Windows does not, so there the loop gets this one instead (unproven).
"""

from __future__ import annotations

import asyncio
import functools
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from router.aio import Clock

GAP_S: Final = 10.0
LOOK_S: Final = 1.0

mono: Callable[[], float]
"""Seconds this computer has been awake, since some moment."""

_elapsed: Callable[[], float]
"""The same with its sleep."""

if sys.platform == "win32":
    import ctypes

    try:
        _query = ctypes.WinDLL("api-ms-win-core-realtime-l1-1-1.dll").QueryUnbiasedInterruptTimePrecise
    except (OSError, AttributeError):  # before Windows 10
        _query = ctypes.WinDLL("kernel32").QueryUnbiasedInterruptTime

    def _unbiased() -> float:
        ticks = ctypes.c_ulonglong()
        _query(ctypes.byref(ticks))
        return ticks.value / 1e7

    mono = _unbiased
    _elapsed = time.monotonic
elif sys.platform == "darwin":
    mono = time.monotonic  # mach_absolute_time
    _elapsed = functools.partial(time.clock_gettime, time.CLOCK_MONOTONIC)
elif hasattr(time, "CLOCK_BOOTTIME"):
    mono = time.monotonic
    _elapsed = functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)
else:
    mono = _elapsed = time.monotonic


def slept_s() -> float:
    """Seconds this computer has slept, since some moment."""
    return _elapsed() - mono()


def install(loop: asyncio.AbstractEventLoop) -> None:
    """Let the timers of ``loop`` stand still in a sleep, too, where they don't by themselves. Before it has any."""
    if mono is not time.monotonic:
        loop.time = mono  # type: ignore[method-assign] # the loop asks nobody else for the time


class Gap:
    """Sees that time went by without this process: the computer slept, or was stopped with all that runs on it.

    Sleep is what the system's own clocks differ by. A wall clock that leaps tells the same of a virtual machine that
    was stopped; of one that was merely set right, too, which costs nothing but a look at everything.
    """

    def __init__(self, clock: Clock, slept_s: Callable[[], float] = slept_s) -> None:
        self._clock = clock
        self._asleep = slept_s
        self._seen = self._now()

    def _now(self) -> tuple[float, float, float]:
        return self._clock.mono(), self._clock.wall(), self._asleep()

    def look(self) -> float:
        """Seconds missed since the last look; 0 when they are fewer than ten. To be asked every ``LOOK_S``."""
        mono, wall, slept = self._seen
        self._seen = now = self._now()
        awake_s = now[0] - mono
        missed_s = max(now[2] - slept, now[1] - wall - awake_s, awake_s - LOOK_S)
        return missed_s if missed_s > GAP_S else 0.0
