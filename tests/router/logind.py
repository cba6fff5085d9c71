"""A logind that does as it is told, and a desktop's lock, on a private bus: what ``router.power_linux`` talks to."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from dbus_fast import DBusError, Message, MessageType
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusBool, DBusDict, DBusObjectPath, DBusStr, DBusUInt32, DBusUnixFd
from dbus_fast.service import ServiceInterface, dbus_method, dbus_signal

from tests.app.rig import SessionBus
from tests.fakes import BOUND_S

NAME = "org.freedesktop.login1"
PATH = "/org/freedesktop/login1"
MANAGER = "org.freedesktop.login1.Manager"


def need_a_bus() -> None:
    """Skip by name where there is none."""
    if sys.platform != "linux" or shutil.which("dbus-daemon") is None:
        pytest.skip("this test needs Linux and dbus-daemon")


@dataclass
class Lock:
    """One inhibitor; ``held`` as long as somebody keeps its descriptor open."""

    what: str
    who: str
    why: str
    mode: str
    end: int

    @property
    def held(self) -> bool:
        polled = select.poll()
        polled.register(self.end, select.POLLIN)
        return not polled.poll(0)


class _Manager(ServiceInterface):
    def __init__(self, owner: Logind) -> None:
        super().__init__(MANAGER)
        self._owner = owner

    @dbus_method()
    def Inhibit(self, what: DBusStr, who: DBusStr, why: DBusStr, mode: DBusStr) -> DBusUnixFd:
        return self._owner.inhibit(what, who, why, mode)

    @dbus_signal()
    def PrepareForSleep(self, start: bool) -> DBusBool:
        return start

    @dbus_signal()
    def PrepareForShutdown(self, start: bool) -> DBusBool:
        return start


class Logind:
    """``await Logind.on(address)``. ``denied`` modes are refused, as polkit does."""

    def __init__(self, bus: MessageBus) -> None:
        self.locks: list[Lock] = []
        self.denied: set[str] = set()
        self._bus = bus
        self._manager = _Manager(self)
        self._news = asyncio.Event()
        self._given: list[int] = []

    @classmethod
    async def on(cls, address: str) -> Logind:
        made = cls(await MessageBus(bus_address=address, negotiate_unix_fd=True).connect())
        made._bus.export(PATH, made._manager)
        await made._bus.request_name(NAME)
        return made

    async def close(self) -> None:
        """It crashes: its name goes."""
        self._bus.disconnect()
        await self._bus.wait_for_disconnect()
        for fd in (*self._given, *(lock.end for lock in self.locks)):
            with suppress(OSError):
                os.close(fd)

    def inhibit(self, what: str, who: str, why: str, mode: str) -> int:
        if mode in self.denied:
            raise DBusError("org.freedesktop.DBus.Error.AccessDenied", "Permission denied")
        mine, theirs = os.pipe()
        self.locks.append(Lock(what, who, why, mode, mine))
        self._given.append(theirs)
        asyncio.get_running_loop().call_later(0.05, self._let_go, theirs)  # once the answer has carried it over
        self._news.set()
        return theirs

    def _let_go(self, fd: int) -> None:
        self._given.remove(fd)
        os.close(fd)
        self._news.set()

    def held(self, mode: str) -> list[Lock]:
        """The locks of ``mode`` that are held now."""
        return [lock for lock in self.locks if lock.mode == mode and lock.held]

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until ``true``; descriptors tell nobody that they were closed, so look often."""
        async with asyncio.timeout(BOUND_S):
            while not true():
                self._news.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await self._news.wait()

    def suspend(self, start: bool) -> None:
        self._manager.PrepareForSleep(start)

    def shut_down(self, start: bool = True) -> None:
        self._manager.PrepareForShutdown(start)


async def spoof(address: str, target: str, member: str) -> None:
    """Another user's program sends ``target`` a signal in logind's name."""
    bus = await MessageBus(bus_address=address).connect()
    message = Message(
        message_type=MessageType.SIGNAL,
        destination=target,
        path=PATH,
        interface=MANAGER,
        member=member,
        signature="b",
        body=[True],
    )
    await bus.send(message)
    await bus.call(Message("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetId"))
    bus.disconnect()
    await bus.wait_for_disconnect()


class _Portal(ServiceInterface):
    def __init__(self, asked: list[Any]) -> None:
        super().__init__("org.freedesktop.portal.Inhibit")
        self._asked = asked

    @dbus_method()
    def Inhibit(self, window: DBusStr, flags: DBusUInt32, options: DBusDict) -> DBusObjectPath:
        self._asked.append((flags, options["reason"].value))
        return "/org/freedesktop/portal/desktop/request/1"


class _Request(ServiceInterface):
    def __init__(self, asked: list[Any]) -> None:
        super().__init__("org.freedesktop.portal.Request")
        self._asked = asked

    @dbus_method()
    def Close(self):
        self._asked.append("closed")


class _Saver(ServiceInterface):
    def __init__(self, asked: list[Any]) -> None:
        super().__init__("org.freedesktop.ScreenSaver")
        self._asked = asked

    @dbus_method()
    def Inhibit(self, name: DBusStr, reason: DBusStr) -> DBusUInt32:
        self._asked.append((name, reason))
        return 42

    @dbus_method()
    def UnInhibit(self, cookie: DBusUInt32):
        self._asked.append(cookie)


class DesktopLock:
    """The portal, or the older screen saver interface, on a session bus; ``asked`` is what was asked of it."""

    def __init__(self, bus: MessageBus) -> None:
        self.asked: list[Any] = []
        self._bus = bus

    @classmethod
    async def portal(cls, address: str) -> DesktopLock:
        made = cls(await MessageBus(bus_address=address).connect())
        made._bus.export("/org/freedesktop/portal/desktop", _Portal(made.asked))
        made._bus.export("/org/freedesktop/portal/desktop/request/1", _Request(made.asked))
        await made._bus.request_name("org.freedesktop.portal.Desktop")
        return made

    @classmethod
    async def saver(cls, address: str) -> DesktopLock:
        made = cls(await MessageBus(bus_address=address).connect())
        made._bus.export("/org/freedesktop/ScreenSaver", _Saver(made.asked))
        await made._bus.request_name("org.freedesktop.ScreenSaver")
        return made

    async def close(self) -> None:
        self._bus.disconnect()
        await self._bus.wait_for_disconnect()


__all__ = ["DesktopLock", "Lock", "Logind", "SessionBus", "need_a_bus", "spoof"]
