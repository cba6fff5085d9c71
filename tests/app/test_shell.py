"""The desktop as a user meets it: a real window and tray, each in a process of its own, with a fake node behind."""

from __future__ import annotations

import json
import signal

import pytest

from tests.app.conftest import RUNNING, SHOWN, StartDesk
from tests.app.rig import Desk, Screen, SessionBus
from tests.app.statusnotifier import FakeTray

pytestmark = [pytest.mark.desktop, pytest.mark.timeout(120)]


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


async def test_at_log_out_the_node_has_stopped_before_the_session_goes_on(desk: Desk, start_desk: StartDesk) -> None:
    await desk.do("log_out")

    assert (start_desk.data_dir / "stopped").read_text() == "gracefully"


async def test_ctrl_c_in_a_terminal_reaches_all_processes_and_is_still_silent(desk: Desk) -> None:
    desk.send_to_all(signal.SIGINT)

    assert await desk.ended() == 0
    assert desk.errors == ""


async def test_a_signal_while_a_question_is_open_ends_the_desktop(desk: Desk, tray: FakeTray) -> None:
    await desk.do("node", "work", 1, 1)
    await tray.entry("Running · 2 models · 1 job")
    await tray.click("Quit")
    await desk.event("question")

    desk.send(signal.SIGTERM)

    assert await desk.ended() == 0
    assert desk.errors == ""


async def test_quit_asks_only_while_jobs_of_others_run_here(desk: Desk, tray: FakeTray) -> None:
    await desk.do("node", "work", 2, 1)
    await tray.entry("Running · 2 models · 2 jobs")

    await tray.click("Quit")
    question = await desk.event("question")
    assert question["text"] == "Quit Quorum?"
    assert sorted(question["buttons"]) == ["Keep running", "Quit"]
    await desk.do("press", "Keep running")
    await tray.entry("Running · 2 models · 2 jobs")

    await desk.do("node", "work", 1)  # one's own goes on at the next start
    await tray.entry("Running · 2 models · 1 job")
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


async def test_without_a_session_bus_closing_asks_as_without_a_tray(start_desk: StartDesk, screen: Screen) -> None:
    desk = await start_desk(screen=screen)
    await desk.event(SHOWN)

    await desk.do("close")
    assert (await desk.event("question"))["text"] == "Keep Quorum running?"
    await desk.do("press", "Quit")

    assert await desk.ended() == 0
    assert desk.errors == ""


async def test_a_start_at_login_that_an_installer_set_up_is_shown_and_kept(
    desk: Desk, start_desk: StartDesk, screen: Screen, bus: SessionBus, tray: FakeTray
) -> None:
    await tray.click("Start at login")
    await tray.checked("Start at login", True)
    await desk.do("quit")
    assert await desk.ended() == 0
    (start_desk.data_dir / "settings.json").unlink()  # the entry is there, and nobody has made the setting
    tray.items.clear()

    await start_desk(screen=screen, bus=bus, hidden=True)
    await tray.icon()

    await tray.checked("Start at login", True)
    assert json.loads((start_desk.data_dir / "settings.json").read_text()) == {"start_at_login": True}
