"""macOS' calls, against stand-ins of its frameworks: which are made, and what their callbacks lead to."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from typing import Any

from router.aio import Tasks
from router.power_macos import MAY_SLEEP, SLEEPS, WOKE, MacOS
from tests.fakes import BOUND_S
from tests.router.test_power import Told


class Function:
    """A function of a library, whose types can be declared."""

    def __init__(self, does: Any) -> None:
        self._does = does

    def __call__(self, *arguments: Any) -> Any:
        return self._does(*arguments)


class Frameworks:
    """IOKit and CoreFoundation; ``says`` calls back as IOKit does, on the thread whose loop runs."""

    def __init__(self, refuses: bool = False) -> None:
        self.allowed: list[int] = []
        self.assertions: list[int] = []
        self.strings: list[bytes] = []
        self.callback: Any = None
        self.running = threading.Event()
        self._stopped = threading.Event()
        self._refuses = refuses
        self.kit = type("IOKit", (), {})()
        self.core = type("CoreFoundation", (), {})()
        for name, does in {
            "IORegisterForSystemPower": self._register,
            "IONotificationPortGetRunLoopSource": lambda port: 5,
            "IODeregisterForSystemPower": lambda notifier: 0,
            "IOAllowPowerChange": lambda root, argument: self.allowed.append(argument),
            "IOPMAssertionCreateWithName": self._assert,
            "IOPMAssertionRelease": lambda number: self.assertions.remove(number.value),
        }.items():
            setattr(self.kit, name, Function(does))
        for name, does in {
            "CFStringCreateWithCString": lambda allocator, text, encoding: self.strings.append(text) or 9,
            "CFRelease": lambda text: None,
            "CFRunLoopGetCurrent": lambda: 7,
            "CFRunLoopAddSource": lambda loop, source, mode: None,
            "CFRunLoopRun": self._run,
            "CFRunLoopStop": lambda loop: self._stopped.set(),
        }.items():
            setattr(self.core, name, Function(does))

    def library(self, name: str) -> Any:
        return self.kit if name == "IOKit" else self.core

    def _register(self, context: Any, port: Any, callback: Any, notifier: Any) -> int:
        self.callback = callback
        return 0 if self._refuses else 3

    def _run(self) -> None:
        self.running.set()
        self._stopped.wait(BOUND_S)

    def _assert(self, kind: Any, level: int, name: Any, made: Any) -> int:
        if self._refuses:
            return 1
        assert level == 255
        ctypes.cast(made, ctypes.POINTER(ctypes.c_uint32)).contents.value = 77
        self.assertions.append(77)
        return 0

    async def says(self, kind: int, argument: int) -> None:
        await asyncio.to_thread(self.callback, None, 0, kind, argument)


async def started(system: Frameworks, told: Told) -> MacOS:
    power = MacOS(Tasks(), system.library)
    power.mode = lambda core: 1
    await power.start(told)
    return power


async def test_sleep_waits_for_the_goodbyes_and_is_then_allowed() -> None:
    system, told = Frameworks(), Told()
    power = await started(system, told)
    assert await asyncio.to_thread(system.running.wait, BOUND_S)
    await system.says(MAY_SLEEP, 11)
    assert (told.did, system.allowed) == ([], [11])
    await system.says(SLEEPS, 12)
    assert (told.did, system.allowed) == (["sleeps"], [11, 12])
    await system.says(WOKE, 0)
    await told.until("sleeps", "woke")
    await power.stop()
    assert power._thread is not None
    assert not power._thread.is_alive()


async def test_an_assertion_keeps_it_awake_until_released() -> None:
    system = Frameworks()
    power = MacOS(Tasks(), system.library)
    assert await power.hold()
    assert await power.hold()
    assert system.assertions == [77]
    assert system.strings[0] == b"PreventUserIdleSystemSleep"
    await power.release()
    await power.release()
    assert system.assertions == []


async def test_a_macos_that_refuses_is_said() -> None:
    system = Frameworks(refuses=True)
    power = await started(system, Told())
    assert power._thread is not None
    await asyncio.to_thread(power._thread.join, BOUND_S)
    assert power.detail == "macOS does not tell of it"
    assert not await power.hold()
    await power.stop()


async def test_without_the_frameworks_nothing_happens() -> None:
    def nothing(name: str) -> Any:
        raise OSError(name)

    power = MacOS(Tasks(), nothing)
    await power.start(Told())
    assert power.detail == "macOS does not tell of it"
    assert not await power.hold()
    await power.stop()
