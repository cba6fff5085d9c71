"""Windows' calls, against stand-ins of its libraries: which are made, and what their callbacks lead to."""

from __future__ import annotations

import asyncio
import ctypes
from types import SimpleNamespace
from typing import Any

import pytest

from router.aio import Tasks
from router.power_windows import Windows, _Callback, _Subscription
from tests.router.test_power import Told


class System:
    """powrprof and kernel32."""

    def __init__(self, refuses: int = 0) -> None:
        self.states: list[int] = []
        self.registered: Any = None
        self._refuses = refuses

    def library(self, name: str) -> Any:
        if name == "kernel32":
            return SimpleNamespace(SetThreadExecutionState=self._state)
        return SimpleNamespace(
            PowerRegisterSuspendResumeNotification=self._register,
            PowerUnregisterSuspendResumeNotification=self._unregister,
        )

    def _state(self, flags: ctypes.c_ulong) -> int:
        self.states.append(flags.value)
        return 0x80000000

    def _register(self, flags: int, subscription: Any, handle: Any) -> int:
        assert flags == 2
        self.registered = ctypes.cast(subscription, ctypes.POINTER(_Subscription)).contents.callback
        return self._refuses

    def _unregister(self, handle: Any) -> int:
        self.registered = None
        return 0


async def test_suspend_waits_for_the_goodbyes_and_resume_is_told() -> None:
    system, told, tasks = System(), Told(), Tasks()
    power = Windows(tasks, system.library)
    await power.start(told)
    callback = _Callback(system.registered)
    assert await asyncio.to_thread(callback, None, 0x4, None) == 0
    assert told.did == ["sleeps"]
    await asyncio.to_thread(callback, None, 0x12, None)
    await told.until("sleeps", "woke")
    await asyncio.to_thread(callback, None, 0xA, None)  # the battery: no matter
    assert told.did == ["sleeps", "woke"]
    await power.stop()
    assert system.registered is None


async def test_the_execution_state_keeps_it_awake_until_released() -> None:
    system = System()
    power = Windows(Tasks(), system.library)
    assert await power.hold()
    await power.release()
    assert system.states == [0x80000001, 0x80000000]


@pytest.mark.parametrize("missing", [True, False])
async def test_a_windows_without_these_calls_is_said(missing: bool) -> None:
    def nothing(name: str) -> Any:
        raise OSError(name)

    power = Windows(Tasks(), nothing if missing else System(refuses=87).library)
    await power.start(Told())
    assert power.detail == "Windows does not tell of it"
    assert await power.hold() is not missing
    await power.stop()
