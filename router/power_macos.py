"""Sleep on macOS: IOKit's notices on a thread of their own, and its assertions. Written, not yet run there.

IOKit instead of NSWorkspace, which needs the application's own loop: a node without a window has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from router.aio import Tasks
from router.power import SERVING, Told, part

log = logging.getLogger(__name__)

FRAMEWORKS: Final = "/System/Library/Frameworks/{0}.framework/{0}"
MAY_SLEEP: Final = 0xE0000270  # kIOMessageCanSystemSleep
SLEEPS: Final = 0xE0000280  # kIOMessageSystemWillSleep
WOKE: Final = 0xE0000300  # kIOMessageSystemHasPoweredOn
IDLE_SLEEP: Final = b"PreventUserIdleSystemSleep"
LEVEL_ON: Final = 255
UTF_8: Final = 0x08000100
PARTING_S: Final = 5.0  # macOS itself waits for 30
JOIN_S: Final = 2.0

_Callback: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)


def _library(name: str) -> Any:
    return ctypes.CDLL(FRAMEWORKS.format(name))


class MacOS:
    """``library`` opens a framework by name."""

    def __init__(self, tasks: Tasks, library: Callable[[str], Any] = _library) -> None:
        self.detail = "macOS tells of it"
        self.mode: Callable[[Any], Any] = lambda core: ctypes.c_void_p.in_dll(core, "kCFRunLoopDefaultMode")
        self._tasks = tasks
        self._library = library
        self._told: Told | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._callback: Any = None
        self._root = 0
        self._run_loop: Any = None
        self._thread: threading.Thread | None = None
        self._assertion: ctypes.c_uint32 | None = None

    async def start(self, told: Told) -> None:
        """Listen on a thread that does nothing else."""
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._callback = _Callback(self._came)
        try:
            kit, core = self._library("IOKit"), self._library("CoreFoundation")
            _declare(kit, core)
        except (OSError, AttributeError):
            self.detail = "macOS does not tell of it"
            log.info("sleep of this computer: %s", self.detail)
            return
        self._thread = threading.Thread(target=self._listen, args=(kit, core), name="sleep", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Let go of everything."""
        await self.release()
        if self._thread is not None and self._run_loop is not None:
            self._library("CoreFoundation").CFRunLoopStop(self._run_loop)
            await asyncio.to_thread(self._thread.join, JOIN_S)

    def _listen(self, kit: Any, core: Any) -> None:
        port, notifier = ctypes.c_void_p(), ctypes.c_uint32()
        self._root = kit.IORegisterForSystemPower(None, ctypes.byref(port), self._callback, ctypes.byref(notifier))
        if not self._root:
            self.detail = "macOS does not tell of it"
            return
        self._run_loop = core.CFRunLoopGetCurrent()
        core.CFRunLoopAddSource(self._run_loop, kit.IONotificationPortGetRunLoopSource(port), self.mode(core))
        core.CFRunLoopRun()
        kit.IODeregisterForSystemPower(ctypes.byref(notifier))

    def _came(self, context: int | None, service: int, kind: int, argument: int | None) -> None:
        """On the listening thread; macOS waits until it is allowed to go on."""
        told, loop = self._told, self._loop
        if kind == SLEEPS and told is not None and loop is not None:
            part(loop, self._tasks, told, PARTING_S)
        if kind in (MAY_SLEEP, SLEEPS):
            self._library("IOKit").IOAllowPowerChange(self._root, argument)
        elif kind == WOKE and told is not None and loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(told.woke)

    async def hold(self) -> bool:
        """An assertion against idle sleep; closing the lid still counts."""
        if self._assertion is not None:
            return True
        made = ctypes.c_uint32()
        try:
            kit, core = self._library("IOKit"), self._library("CoreFoundation")
            _declare(kit, core)
            texts = [core.CFStringCreateWithCString(None, text, UTF_8) for text in (IDLE_SLEEP, SERVING.encode())]
            failed = kit.IOPMAssertionCreateWithName(texts[0], LEVEL_ON, texts[1], ctypes.byref(made))
            for text in texts:
                core.CFRelease(text)
        except (OSError, AttributeError):
            return False
        if failed:
            return False
        self._assertion = made
        return True

    async def release(self) -> None:
        """The assertion ends."""
        made, self._assertion = self._assertion, None
        if made is not None:
            self._library("IOKit").IOPMAssertionRelease(made)


def _declare(kit: Any, core: Any) -> None:
    """What they take and give where it isn't an int. Raises AttributeError where one is missing."""
    pointer, number = ctypes.c_void_p, ctypes.c_uint32
    core.CFStringCreateWithCString.restype = pointer
    core.CFStringCreateWithCString.argtypes = (pointer, ctypes.c_char_p, number)
    core.CFRelease.argtypes = (pointer,)
    core.CFRunLoopGetCurrent.restype = pointer
    core.CFRunLoopAddSource.argtypes = (pointer, pointer, pointer)
    core.CFRunLoopStop.argtypes = (pointer,)
    kit.IORegisterForSystemPower.restype = number
    kit.IORegisterForSystemPower.argtypes = (pointer, pointer, _Callback, pointer)
    kit.IONotificationPortGetRunLoopSource.restype = pointer
    kit.IONotificationPortGetRunLoopSource.argtypes = (pointer,)
    kit.IODeregisterForSystemPower.argtypes = (pointer,)
    kit.IOAllowPowerChange.argtypes = (number, pointer)
    kit.IOPMAssertionCreateWithName.argtypes = (pointer, number, pointer, pointer)
    kit.IOPMAssertionRelease.argtypes = (number,)
