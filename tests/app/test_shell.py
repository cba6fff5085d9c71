"""The desktop as a user meets it: a real window and tray, each in a process of its own, with a fake node behind."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.app.conftest import StartDesk
from tests.app.rig import Desk, Pipe, Screen, SessionBus
from tests.app.statusnotifier import FakeTray

pytestmark = [pytest.mark.desktop, pytest.mark.timeout(120)]

RUNNING = "Running · 2 models"
SHOWN = "title token right"


@pytest_asyncio.fixture
async def desk(start_desk: StartDesk, screen: Screen, bus: SessionBus, tray: FakeTray) -> AsyncIterator[Desk]:
    """A desktop whose window shows its page and whose icon sits in the tray."""
    desk = await start_desk(screen=screen, bus=bus)
    await desk.event(SHOWN)
    await tray.icon()
    yield desk


# The window


async def test_the_page_gets_the_token_in_process_under_a_strict_policy(desk: Desk) -> None:
    assert await desk.do("js", "1 + 41") == 42
    assert await desk.do("js", "document.querySelector('h1').textContent") == "Quorum"
    assert await desk.do("js", "window.offered") == "pick_folder,pick_model,token"
    assert desk.errors == ""


async def test_links_to_other_places_open_in_the_system_browser(
    start_desk: StartDesk, screen: Screen, bus: SessionBus, tmp_path: Path
) -> None:
    opened = await Pipe(tmp_path / "opened").open()
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o700)
    desk = await start_desk(screen=screen, bus=bus, BROWSER=str(browser))
    await desk.event(SHOWN)

    for link, address in (("elsewhere", "http://elsewhere.invalid/page"), ("here", "http://elsewhere.invalid/here")):
        screen.click(*await desk.do("middle_of", f"#{link}"))
        assert await opened.line() == address
    opened.close()

    assert await desk.do("js", "document.querySelector('h1').textContent") == "Quorum"
    assert await desk.do("node", "loads") == 1


async def test_zoom_keys_work_and_a_browsers_reload_and_menu_do_not(desk: Desk, screen: Screen) -> None:
    await desk.do("js", "addEventListener('keyup', e => document.title = 'key ' + e.key); document.body.focus()")
    await desk.do("focus")

    screen.key("ctrl+plus")
    await desk.event("zoom 1.10")
    screen.key("ctrl+minus")
    await desk.event("zoom 1.00")
    for keys in ("F5", "ctrl+r"):
        screen.key(keys)
        await desk.event(f"title key {keys[-1] if keys != 'F5' else keys}")

    assert await desk.do("node", "loads") == 1
    assert await desk.do("menu_policy") == "NoContextMenu"


async def test_the_window_remembers_its_place_and_its_zoom(
    desk: Desk, start_desk: StartDesk, screen: Screen, bus: SessionBus
) -> None:
    await desk.do("place", 60, 40, 800, 600)
    await desk.do("focus")
    screen.key("ctrl+plus")
    await desk.event("zoom 1.10")
    before = await desk.do("geometry")
    await desk.do("quit")
    assert await desk.ended() == 0

    again = await start_desk(screen=screen, bus=bus)
    await again.event(SHOWN)

    assert await again.do("geometry") == before
    assert before[2:] == [800, 600]
    assert await again.do("zoom") == pytest.approx(1.1)


async def test_a_page_whose_process_dies_is_loaded_again(desk: Desk) -> None:
    os.kill(await desk.do("renderer"), signal.SIGKILL)

    await desk.event(SHOWN)
    assert await desk.do("node", "loads") == 2


# Closing, hiding, quitting


async def test_closing_hides_and_the_trays_open_brings_the_window_back(desk: Desk, tray: FakeTray) -> None:
    await desk.do("close")
    await desk.event("window hidden")
    assert (await tray.entry(RUNNING)).enabled is False

    await tray.click("Open Quorum")
    await desk.event("window shown")
    assert await desk.do("node", "loads") == 1

    await desk.do("close")
    await desk.event("window hidden")
    await tray.activate()
    await desk.event("window shown")


async def test_quit_in_the_tray_ends_everything_in_order(desk: Desk, tray: FakeTray, start_desk: StartDesk) -> None:
    await tray.click("Quit")

    assert await desk.ended() == 0
    assert desk.errors == ""
    assert (start_desk.data_dir / "stopped").read_text() == "gracefully"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
async def test_a_signal_ends_the_desktop_gracefully_and_silently(
    desk: Desk, start_desk: StartDesk, number: signal.Signals
) -> None:
    desk.send(number)

    assert await desk.ended() == 0
    assert desk.errors == ""
    assert (start_desk.data_dir / "stopped").exists()


async def test_quit_asks_only_while_jobs_run(desk: Desk, tray: FakeTray) -> None:
    await desk.do("node", "work", 2)
    await tray.entry("Running · 2 models · 2 jobs")

    await tray.click("Quit")
    question = await desk.event("question")
    assert question["text"] == "Quit Quorum?"
    assert sorted(question["buttons"]) == ["Keep running", "Quit"]
    await desk.do("press", "Keep running")
    await tray.entry("Running · 2 models · 2 jobs")

    await desk.do("node", "work", 0)
    await tray.entry(RUNNING)
    await tray.click("Quit")
    assert await desk.ended() == 0


async def test_without_a_tray_closing_asks_whether_to_keep_running(
    start_desk: StartDesk, screen: Screen, bus: SessionBus
) -> None:
    desk = await start_desk(screen=screen, bus=bus)
    await desk.event(SHOWN)

    await desk.do("close")
    assert (await desk.event("question"))["text"] == "Keep Quorum running?"
    await desk.do("press", "Keep running")
    await desk.event("window hidden")

    again = await start_desk(screen=screen, bus=bus)
    await desk.event("window shown")
    assert await again.ended() == 0
    await desk.do("close")
    await desk.event("question")
    await desk.do("press", "Quit")
    assert await desk.ended() == 0


# The tray


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


# Starting


async def test_start_at_login_starts_hidden_and_loads_the_page_when_opened(
    start_desk: StartDesk, screen: Screen, bus: SessionBus, tray: FakeTray
) -> None:
    desk = await start_desk(screen=screen, bus=bus, hidden=True)
    await tray.icon()
    await tray.entry(RUNNING)
    assert await desk.do("visible") is False
    assert await desk.do("node", "loads") == 0

    await tray.click("Open Quorum")
    await desk.event("window shown")
    await desk.event(SHOWN)


async def test_a_second_start_shows_the_firsts_window_and_ends(
    desk: Desk, start_desk: StartDesk, screen: Screen, bus: SessionBus
) -> None:
    await desk.do("close")
    await desk.event("window hidden")

    second = await start_desk(screen=screen, bus=bus)

    await desk.event("window shown")
    assert await second.ended() == 0


async def test_a_node_that_cannot_start_is_explained_in_a_dialog_and_on_stderr(
    start_desk: StartDesk, screen: Screen, bus: SessionBus
) -> None:
    desk = await start_desk(screen=screen, bus=bus, fake={"fail": "Port 7411 is in use."})

    question = await desk.event("question")
    assert question["text"] == "Port 7411 is in use.\n\nChoose another port with --port."
    await desk.do("press", "OK")
    assert await desk.ended() == 1
    assert desk.errors == "Port 7411 is in use.\nChoose another port with --port.\n"


async def test_a_dialog_about_the_start_does_not_hold_up_a_signal(
    start_desk: StartDesk, screen: Screen, bus: SessionBus
) -> None:
    desk = await start_desk(screen=screen, bus=bus, fake={"fail": "Port 7411 is in use."})
    await desk.event("question")

    desk.send(signal.SIGTERM)

    assert await desk.ended() == 1


async def test_broken_opengl_falls_back_to_software(start_desk: StartDesk, desktop_parts: None) -> None:
    broken = Screen(glx=False)
    try:
        desk = await start_desk(screen=broken)
        await desk.event(SHOWN)
        await desk.do("quit")

        assert await desk.ended() == 0
        assert json.loads((start_desk.data_dir / "window.json").read_text())["software"] is True
    finally:
        broken.close()


async def test_the_next_start_after_a_crash_while_drawing_uses_software(
    start_desk: StartDesk, screen: Screen, bus: SessionBus
) -> None:
    memory = start_desk.data_dir / "window.json"
    desk = await start_desk(screen=screen, bus=bus)
    await desk.event(SHOWN)
    await desk.do("quit")
    assert await desk.ended() == 0
    told = json.loads(memory.read_text())
    assert (told["software"], told["starting"]) == (False, False)
    memory.write_text(json.dumps(told | {"starting": True}))

    again = await start_desk(screen=screen, bus=bus)
    await again.event(SHOWN)

    told = json.loads(memory.read_text())
    assert (told["software"], told["starting"]) == (True, False)
