"""The tray on Linux: its menu read and clicked over D-Bus, with a fake node behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from app.tray import PIXELS, Look
from tests.app.conftest import RUNNING, SHOWN, StartDesk
from tests.app.rig import Desk, Screen, SessionBus
from tests.app.statusnotifier import FakeTray

pytestmark = [pytest.mark.desktop, pytest.mark.timeout(120)]


async def test_the_menu_says_what_the_node_does(desk: Desk, tray: FakeTray, screen: Screen, out: Path) -> None:
    assert [line.label for line in await tray.menu()][1:] == [
        "Open Quorum", "Pause", "Pause for an hour", "Drain", "Copy address", "Start at login", "Quit",
    ]  # fmt: skip
    await tray.entry(RUNNING)
    pictures = {await tray.pixels()}

    await desk.do("node", "work", 1)
    await tray.entry("Running · 2 models · 1 job")
    await desk.do("node", "trouble", "The disk of the data folder is full.")
    assert (await tray.entry("The disk of the data folder is full.")).enabled is False
    pictures.add(await tray.pixels())
    await desk.do("node", "trouble", "")
    await desk.do("menu_on_screen")
    screen.picture(out / "tray-menu.png")

    await tray.click("Pause")
    await tray.entry("Resume")
    assert (await tray.entry("Pause for an hour")).enabled is False
    pictures.add(await tray.pixels())
    await tray.click("Resume")
    await tray.entry("Pause")
    await tray.click("Drain")
    assert (await tray.entry("Draining…")).checked is True
    pictures.add(await tray.pixels())

    assert len(pictures) == 4


async def test_the_panel_gets_the_icon_in_every_size_sharp_on_any_display(desk: Desk, tray: FakeTray) -> None:
    pictures = {width: bytes(data) for width, _, data in await tray.value("IconPixmap")}

    assert set(pictures) >= set(PIXELS)
    for pixels, shown in pictures.items():
        if pixels in PIXELS:
            with Image.open(Look.RUNNING.picture(True, pixels)) as drawn:
                red, green, blue, opaque = drawn.convert("RGBA").split()
            wanted = Image.merge("RGBA", (opaque, red, green, blue)).tobytes()
            assert [a for a, b in zip(shown[::4], wanted[::4], strict=True) if abs(a - b) > 2] == []


async def test_pause_resume_and_pause_for_an_hour_reach_the_node(desk: Desk, tray: FakeTray) -> None:
    await tray.click("Pause")
    await tray.entry("Paused · 2 models")
    await tray.click("Resume")
    await tray.entry(RUNNING)
    await tray.click("Pause for an hour")
    await tray.entry("Resume")

    assert (await tray.menu())[0].label.startswith("Paused until ")
    assert await desk.do("node", "calls") == ["pause None", "resume", "pause 3600.0"]


async def test_drain_says_when_it_is_safe_and_can_be_taken_back(desk: Desk, tray: FakeTray) -> None:
    await desk.do("node", "work", 1)
    await tray.click("Drain")
    await tray.entry("Draining · 2 models · 1 job")
    await desk.do("node", "work", 0)
    await desk.do("node", "become", "drained")

    assert await tray.notification() == ("Quorum is drained", "No job runs here any more: it is safe to shut down.")
    assert (await tray.menu())[0].label == "Drained: safe to shut down"

    await tray.click_last("Drained: safe to shut down")
    await tray.entry(RUNNING)


async def test_copy_address_puts_the_api_on_the_clipboard(desk: Desk, tray: FakeTray) -> None:
    await tray.click("Copy address")

    await desk.event(f"clipboard {await desk.do('node', 'address')}/v1")


async def test_start_at_login_switches_entry_and_setting_both_ways(
    desk: Desk, tray: FakeTray, start_desk: StartDesk
) -> None:
    entry = start_desk.home / "config" / "autostart" / "quorum.desktop"

    await tray.click("Start at login")
    await tray.checked("Start at login", True)
    assert "--hidden" in entry.read_text()
    assert json.loads((start_desk.data_dir / "settings.json").read_text()) == {"start_at_login": True}

    await desk.do("setting", "start_at_login", False)  # as the Settings page does
    await tray.checked("Start at login", False)
    assert not entry.exists()


async def test_a_panel_that_comes_late_still_gets_the_icon(
    start_desk: StartDesk, screen: Screen, bus: SessionBus
) -> None:
    desk = await start_desk(screen=screen, bus=bus, hidden=True)
    await desk.event("drawn")
    late = await FakeTray.on(bus.address)
    try:
        await late.icon()
        await late.click("Open Quorum")
        await desk.event("window shown")
        await desk.event(SHOWN)
    finally:
        await late.close()
