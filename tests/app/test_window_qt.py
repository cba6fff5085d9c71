"""The window on Linux: a real one under an X server, with a fake node behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.app.conftest import SHOWN, StartDesk
from tests.app.rig import Desk, Pipe, Screen, SessionBus
from tests.app.statusnotifier import FakeTray

pytestmark = [pytest.mark.desktop, pytest.mark.timeout(120)]


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
    before = await desk.do("js", "location.hash = '#elsewhere'; history.length")
    screen.key("alt+Left")
    await desk.event("title key ArrowLeft")
    assert await desk.do("js", "location.hash") == "#elsewhere"
    assert await desk.do("js", "history.length") == before

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


async def test_on_a_small_screen_the_whole_window_is_seen(start_desk: StartDesk, bus: SessionBus) -> None:
    small = Screen(size="800x600")
    try:
        desk = await start_desk(screen=small, bus=bus)
        await desk.event(SHOWN)
        _, top, width, height = await desk.do("frame")
        assert top >= 0
        assert width <= 800
        assert top + height <= 600
    finally:
        small.close()


async def test_a_page_whose_process_dies_is_loaded_again(desk: Desk) -> None:
    os.kill(await desk.do("renderer"), signal.SIGKILL)

    await desk.event(SHOWN)
    assert await desk.do("node", "loads") == 2


async def test_a_page_that_dies_again_at_once_says_so_and_waits_for_the_user(
    desk: Desk, screen: Screen, out: Path
) -> None:
    os.kill(await desk.do("renderer"), signal.SIGKILL)
    await desk.event(SHOWN)

    os.kill(await desk.do("renderer"), signal.SIGKILL)
    question = await desk.event("question")
    screen.picture(out / "page-lost.png")
    assert question["text"] == "The window's page has stopped"
    assert sorted(question["buttons"]) == ["Load it again", "Not now"]
    assert await desk.do("node", "loads") == 2

    await desk.do("press", "Load it again")
    await desk.event(SHOWN)


async def test_opening_the_window_tries_a_page_that_was_given_up_again(desk: Desk, tray: FakeTray) -> None:
    os.kill(await desk.do("renderer"), signal.SIGKILL)
    await desk.event(SHOWN)
    os.kill(await desk.do("renderer"), signal.SIGKILL)
    await desk.event("question")
    await desk.do("press", "Not now")

    await tray.click("Open Quorum")

    await desk.event(SHOWN)
    assert await desk.do("node", "loads") == 3


async def test_the_systems_dialogs_give_the_page_a_path_or_nothing(desk: Desk) -> None:
    for function, answer, told in (
        ("pick_model", "/models/a.gguf", "/models/a.gguf"),
        ("pick_folder", "/models", "/models"),
        ("pick_model", "", "null"),
    ):
        await desk.do("answer_dialogs", answer)
        await desk.do("js", f"pywebview.api.{function}().then(path => document.title = 'picked ' + path)")
        await desk.event(f"title picked {told}")


async def test_a_file_the_page_offers_is_saved_where_the_user_says(desk: Desk, tmp_path: Path) -> None:
    target = tmp_path / "chat of today.md"
    await desk.do("answer_dialogs", str(target))
    await desk.do(
        "js",
        """(() => {
          const link = document.createElement('a');
          link.href = URL.createObjectURL(new Blob(['# A chat'], {type: 'text/markdown'}));
          link.download = 'chat.md';
          document.body.append(link);
          link.click();
        })()""",
    )

    await desk.event("saved")
    assert target.read_text() == "# A chat"


async def test_the_theme_of_the_settings_is_there_before_the_page_is_drawn(
    start_desk: StartDesk, screen: Screen, bus: SessionBus
) -> None:
    start_desk.data_dir.mkdir()
    (start_desk.data_dir / "settings.json").write_text('{"theme": "dark"}')
    desk = await start_desk(screen=screen, bus=bus)
    await desk.event(SHOWN)
    assert await desk.do("js", "window.themeAtFirst") == "dark"
    assert await desk.do("background") == "#141615"
    ground, text = (int(colour[1:3], 16) for colour in await desk.do("dialogs"))
    assert (ground < 64, text > 192) == (True, True)

    await desk.do("setting", "theme", "light")
    await desk.do("js", "location.reload()")
    await desk.event(SHOWN)
    assert await desk.do("js", "window.themeAtFirst") == "light"
    assert await desk.do("background") == "#f7f7f5"
    ground, text = (int(colour[1:3], 16) for colour in await desk.do("dialogs"))
    assert (ground > 192, text < 64) == (True, True)
