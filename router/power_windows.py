"""Sleep on Windows: its notification of suspend and resume, and its execution state. Written, not yet run there."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
from collections.abc import Callable
from typing import Any, Final

from router.aio import Tasks
from router.power import Told, part

log = logging.getLogger(__name__)

CALLBACK: Final = 2  # DEVICE_NOTIFY_CALLBACK
SUSPEND: Final = 0x4  # PBT_APMSUSPEND
RESUMED: Final = frozenset({0x7, 0x12})  # PBT_APMRESUMESUSPEND, PBT_APMRESUMEAUTOMATIC
CONTINUOUS: Final = 0x80000000  # ES_CONTINUOUS
SYSTEM_REQUIRED: Final = 0x1  # ES_SYSTEM_REQUIRED
PARTING_S: Final = 1.5  # Windows itself waits for 2

_function: Final = getattr(ctypes, "WINFUNCTYPE", ctypes.CFUNCTYPE)
_Callback: Final = _function(ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p)


class _Subscription(ctypes.Structure):
    _fields_ = (("callback", _Callback), ("context", ctypes.c_void_p))


def _library(name: str) -> Any:
    loader: Any = ctypes  # elsewhere it has no WinDLL
    return loader.WinDLL(name)


class Windows:
    """``library`` opens one of the system's libraries by name."""

    def __init__(self, tasks: Tasks, library: Callable[[str], Any] = _library) -> None:
        self.detail = "Windows tells of it"
        self._tasks = tasks
        self._library = library
        self._told: Told | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._subscription: _Subscription | None = None
        self._handle = ctypes.c_void_p()

    async def start(self, told: Told) -> None:
        """Ask to be told."""
        self._told = told
        self._loop = asyncio.get_running_loop()
        subscription = _Subscription(_Callback(self._came), None)
        try:
            register = self._library("powrprof").PowerRegisterSuspendResumeNotification
            failed = register(CALLBACK, ctypes.byref(subscription), ctypes.byref(self._handle))
        except (OSError, AttributeError):
            failed = 1
        if failed:
            self.detail = "Windows does not tell of it"
            log.info("sleep of this computer: %s", self.detail)
        else:
            self._subscription = subscription  # Windows calls it for as long as it is registered

    async def stop(self) -> None:
        """Let go of everything."""
        await self.release()
        if self._subscription is not None:
            with contextlib.suppress(OSError, AttributeError):
                await asyncio.to_thread(
                    self._library("powrprof").PowerUnregisterSuspendResumeNotification, self._handle
                )
            self._subscription = None

    def _came(self, context: int | None, kind: int, setting: int | None) -> int:
        """On a thread of Windows."""
        told, loop = self._told, self._loop
        if told is not None and loop is not None:
            if kind == SUSPEND:
                part(loop, self._tasks, told, PARTING_S)
            elif kind in RESUMED:
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(told.woke)
        return 0

    async def hold(self) -> bool:
        """It belongs to the loop's thread, and ends with it."""
        return self._state(CONTINUOUS | SYSTEM_REQUIRED)

    async def release(self) -> None:
        """As usual again."""
        self._state(CONTINUOUS)

    def _state(self, flags: int) -> bool:
        try:
            return bool(self._library("kernel32").SetThreadExecutionState(ctypes.c_ulong(flags)))
        except (OSError, AttributeError):
            return False
