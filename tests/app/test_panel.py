"""The colour of the panel on Linux: asked of a portal on a real session bus, and seen in the tray's picture."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
import pytest_asyncio
from dbus_fast import Variant
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusSignature, DBusStr, DBusVariant
from dbus_fast.service import ServiceInterface, dbus_method, dbus_signal

from tests.app.conftest import SHOWN, StartDesk
from tests.app.rig import Screen, SessionBus
from tests.app.statusnotifier import FakeTray

pytestmark = [pytest.mark.desktop, pytest.mark.timeout(120)]

DARK, LIGHT = 1, 2
Told = Annotated[list[Any], DBusSignature("ssv")]


class Portal(ServiceInterface):
    """``org.freedesktop.portal.Settings`` of a desktop."""

    def __init__(self, bus: MessageBus) -> None:
        super().__init__("org.freedesktop.portal.Settings")
        self.bus = bus
        self.scheme = DARK

    @dbus_method()
    def Read(self, namespace: DBusStr, key: DBusStr) -> DBusVariant:
        return Variant("v", Variant("u", self.scheme))

    @dbus_signal()
    def SettingChanged(self) -> Told:
        return ["org.freedesktop.appearance", "color-scheme", Variant("u", self.scheme)]

    def become(self, scheme: int) -> None:
        self.scheme = scheme
        self.SettingChanged()


@pytest_asyncio.fixture
async def portal(bus: SessionBus) -> AsyncIterator[Portal]:
    connection = await MessageBus(bus_address=bus.address).connect()
    made = Portal(connection)
    connection.export("/org/freedesktop/portal/desktop", made)
    await connection.request_name("org.freedesktop.portal.Desktop")
    yield made
    connection.disconnect()
    await connection.wait_for_disconnect()


async def test_the_tray_icon_follows_the_panel_and_not_the_windows_theme(
    start_desk: StartDesk, screen: Screen, bus: SessionBus, tray: FakeTray, portal: Portal
) -> None:
    desk = await start_desk(screen=screen, bus=bus)
    await desk.event(SHOWN)
    await tray.icon()
    dark = await tray.pixels()

    await desk.do("setting", "theme", "light")  # the window alone becomes light
    await desk.do("node", "trouble", "Look.")
    await desk.do("node", "trouble", "")
    await tray.pictured(dark)

    portal.become(LIGHT)
    await tray.pictured(dark, same=False)
    light = await tray.pixels()
    portal.become(DARK)
    await tray.pictured(dark)
    assert light != dark


async def test_a_desktop_whose_bar_is_always_dark_gets_bright_icons(
    start_desk: StartDesk, screen: Screen, bus: SessionBus, tray: FakeTray, portal: Portal
) -> None:
    portal.scheme = DARK
    first = await start_desk(screen=screen, bus=bus)
    await tray.icon()
    dark = await tray.pixels()
    await first.do("quit")
    assert await first.ended() == 0
    tray.items.clear()

    portal.scheme = LIGHT
    await start_desk(screen=screen, bus=bus, XDG_CURRENT_DESKTOP="ubuntu:GNOME")
    await tray.icon()

    assert await tray.pixels() == dark
