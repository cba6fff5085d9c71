"""A tray without a desktop: a StatusNotifierWatcher that reads an icon's menu over D-Bus and clicks its items."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusBool, DBusDict, DBusInt32, DBusSignature, DBusStr, DBusUInt32
from dbus_fast.service import PropertyAccess, ServiceInterface, dbus_method, dbus_property

BOUND_S = 15.0

Strings = Annotated[list[str], DBusSignature("as")]


@dataclass(frozen=True)
class Entry:
    """One line of a tray menu."""

    number: int
    label: str
    enabled: bool
    visible: bool
    checked: bool | None


class _Watcher(ServiceInterface):
    def __init__(self, registered: Callable[[str], None]) -> None:
        super().__init__("org.kde.StatusNotifierWatcher")
        self._registered = registered

    @dbus_method()
    def RegisterStatusNotifierItem(self, service: DBusStr):
        self._registered(service)

    @dbus_method()
    def RegisterStatusNotifierHost(self, service: DBusStr):
        return

    @dbus_property(access=PropertyAccess.READ)
    def IsStatusNotifierHostRegistered(self) -> DBusBool:
        return True

    @dbus_property(access=PropertyAccess.READ)
    def ProtocolVersion(self) -> DBusInt32:
        return 0


class _Notifications(ServiceInterface):
    def __init__(self, notified: Callable[[str, str], None]) -> None:
        super().__init__("org.freedesktop.Notifications")
        self._notified = notified

    @dbus_method()
    def Notify(
        self,
        app_name: DBusStr,
        replaces_id: DBusUInt32,
        app_icon: DBusStr,
        summary: DBusStr,
        body: DBusStr,
        actions: Strings,
        hints: DBusDict,
        expire_timeout: DBusInt32,
    ) -> DBusUInt32:
        self._notified(summary, body)
        return 1


class FakeTray:
    """The tray of one session bus. Use ``await FakeTray.on(address)``; close it with ``close``."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self._moved = asyncio.Event()
        self.items: list[str] = []
        self.notifications: list[tuple[str, str]] = []

    @classmethod
    async def on(cls, address: str) -> FakeTray:
        bus = await MessageBus(bus_address=address).connect()
        tray = cls(bus)
        bus.export("/StatusNotifierWatcher", _Watcher(tray._registered))
        bus.export("/org/freedesktop/Notifications", _Notifications(tray._notified))
        await bus.request_name("org.kde.StatusNotifierWatcher")
        await bus.request_name("org.freedesktop.Notifications")
        bus.add_message_handler(tray._heard)
        for rule in ("interface='com.canonical.dbusmenu'", "interface='org.kde.StatusNotifierItem'"):
            await tray._call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", "s",
                             [f"type='signal',{rule}"])  # fmt: skip
        return tray

    async def close(self) -> None:
        self._bus.disconnect()
        await self._bus.wait_for_disconnect()

    async def icon(self) -> None:
        """Wait for an icon."""
        await self._until(lambda: bool(self.items), "an icon")

    async def menu(self) -> list[Entry]:
        """The menu now, without separators and hidden lines."""
        (_, (_, _, children)) = await self._call(
            self.items[-1], await self.value("Menu"), "com.canonical.dbusmenu", "GetLayout", "iias", [0, -1, []]
        )
        entries = [_entry(child.value) for child in children]
        return [entry for entry in entries if entry.label and entry.visible]

    async def entry(self, label: str, bound_s: float = BOUND_S) -> Entry:
        """The line that says ``label``, once there is one."""
        deadline = time.monotonic() + bound_s
        while True:
            self._moved.clear()
            lines = await self.menu()
            for line in lines:
                if line.label == label:
                    return line
            try:
                await asyncio.wait_for(self._moved.wait(), deadline - time.monotonic())
            except TimeoutError:
                raise AssertionError(f"no '{label}' in {[line.label for line in lines]}") from None

    async def click(self, label: str) -> None:
        """Choose the line that says ``label``, waiting for it."""
        line = await self.entry(label)
        assert line.enabled, f"'{label}' can't be clicked"
        await self._click(line.number)

    async def _click(self, number: int) -> None:
        event = [number, "clicked", Variant("s", ""), 0]
        await self._call(self.items[-1], await self.value("Menu"), "com.canonical.dbusmenu", "Event", "isvu", event)

    async def click_last(self, label: str) -> None:
        """Choose the last line that says ``label``."""
        number = [line.number for line in await self.menu() if line.label == label][-1]
        await self._click(number)

    async def checked(self, label: str, wanted: bool) -> None:
        """Wait until the mark of ``label`` is as wanted."""
        deadline = time.monotonic() + BOUND_S
        while True:
            self._moved.clear()
            if (await self.entry(label)).checked is wanted:
                return
            await asyncio.wait_for(self._moved.wait(), deadline - time.monotonic())

    async def pixels(self) -> bytes:
        """The largest picture the icon has now."""
        width, _, data = max(await self.value("IconPixmap"))
        assert width >= 32
        return bytes(data)

    async def pictured(self, pixels: bytes, *, same: bool = True) -> None:
        """Wait until the icon has the picture ``pixels``, or another one."""
        deadline = time.monotonic() + BOUND_S
        while True:
            self._moved.clear()
            if (await self.pixels() == pixels) is same:
                return
            await asyncio.wait_for(self._moved.wait(), deadline - time.monotonic())

    async def activate(self) -> None:
        """Click the icon itself."""
        await self._call(self.items[-1], "/StatusNotifierItem", "org.kde.StatusNotifierItem", "Activate", "ii", [0, 0])

    async def value(self, name: str) -> Any:
        """One property of the icon."""
        (answer,) = await self._call(
            self.items[-1],
            "/StatusNotifierItem",
            "org.freedesktop.DBus.Properties",
            "Get",
            "ss",
            ["org.kde.StatusNotifierItem", name],
        )
        return answer.value

    async def notification(self) -> tuple[str, str]:
        """The first notification, once there is one."""
        await self._until(lambda: bool(self.notifications), "a notification")
        return self.notifications[0]

    async def _until(self, true: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + BOUND_S
        while not true():
            self._moved.clear()
            try:
                await asyncio.wait_for(self._moved.wait(), deadline - time.monotonic())
            except TimeoutError:
                raise AssertionError(f"{what} did not come") from None

    async def _call(self, name: str, path: str, interface: str, member: str, signature: str, body: list[Any]) -> Any:
        message = Message(
            destination=name, path=path, interface=interface, member=member, signature=signature, body=body
        )
        reply = await asyncio.wait_for(self._bus.call(message), BOUND_S)
        assert reply.message_type is not MessageType.ERROR, reply.body
        return reply.body

    def _registered(self, service: str) -> None:
        self.items.append(service)
        self._moved.set()

    def _notified(self, summary: str, body: str) -> None:
        self.notifications.append((summary, body))
        self._moved.set()

    def _heard(self, message: Message) -> None:
        if message.message_type is MessageType.SIGNAL:
            self._moved.set()


def _entry(node: list[Any]) -> Entry:
    number, properties, _ = node
    values = {name: variant.value for name, variant in properties.items()}
    checkable = values.get("toggle-type", "") != ""
    return Entry(
        number,
        str(values.get("label", "")).replace("__", "\0").replace("_", "").replace("\0", "_"),
        bool(values.get("enabled", True)),
        bool(values.get("visible", True)),
        values.get("toggle-state") == 1 if checkable else None,
    )
