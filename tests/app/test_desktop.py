"""The whole desktop on one computer: window, tray and the real node, as a user meets them."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from router.web.page import DIRECTORY
from tests.app.conftest import StartDesk
from tests.app.rig import ROOT, Screen, SessionBus, environment
from tests.app.statusnotifier import FakeTray

pytestmark = [
    pytest.mark.desktop,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not (DIRECTORY / "index.html").is_file(), reason="the page is not built"),
]

COMPOSER = "textarea:enabled"


def status(data_dir: Path) -> dict[str, Any]:
    """What the node says of itself."""
    told = json.loads((data_dir / "node.json").read_text())
    token = (data_dir / "control.token").read_text()
    request = urllib.request.Request(  # noqa: S310 # our own loopback address
        f"{told['address']}/local/v1/status", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        node: dict[str, Any] = json.load(answer)["node"]
        return node


async def test_tray_and_page_and_node_agree(
    start_desk: StartDesk, screen: Screen, bus: SessionBus, tray: FakeTray, out: Path
) -> None:
    started = time.monotonic()
    desk = await start_desk(screen=screen, bus=bus, real=True)
    await desk.event("drawn")
    await desk.element("nav a")
    print(f"page usable after {time.monotonic() - started:.1f} s")  # noqa: T201 # shown with -s
    await tray.icon()
    await tray.entry("Running · 0 models")

    await tray.click("Pause")
    await tray.entry("Paused · 0 models")
    assert status(start_desk.data_dir)["mode"] == "paused"
    await desk.element("nav")
    screen.picture(out / "window-paused.png")
    await tray.click("Resume")
    await tray.entry("Running · 0 models")
    await tray.click("Drain")
    assert await tray.notification() == ("Quorum is drained", "No job runs here any more: it is safe to shut down.")
    assert status(start_desk.data_dir)["mode"] == "drained"

    await tray.click("Quit")
    assert await desk.ended() == 0
    assert not (start_desk.data_dir / "node.json").exists()


async def test_an_hours_pause_survives_a_restart_with_the_time_that_is_left(
    start_desk: StartDesk, screen: Screen, bus: SessionBus, tray: FakeTray
) -> None:
    desk = await start_desk(screen=screen, bus=bus, hidden=True, real=True)
    await tray.icon()
    await tray.entry("Running · 0 models")
    await tray.click("Pause for an hour")
    await tray.entry("Resume")
    ends = status(start_desk.data_dir)["paused_until"]
    assert abs(ends - time.time() - 3600) < 30
    line = (await tray.menu())[0].label
    assert line.startswith("Paused until ")
    await desk.do("quit")
    assert await desk.ended() == 0
    tray.items.clear()

    await start_desk(screen=screen, bus=bus, hidden=True, real=True)
    await tray.icon()

    await tray.entry(line)
    assert abs(status(start_desk.data_dir)["paused_until"] - ends) < 1


@pytest.mark.engine
async def test_a_typed_question_is_answered_in_the_window(
    start_desk: StartDesk, screen: Screen, bus: SessionBus, tray: FakeTray, starter_model: Path, out: Path
) -> None:
    desk = await start_desk(
        screen=screen,
        bus=bus,
        real=True,
        QUORUM_BUILTIN_ENGINE="1",
        QUORUM_FIND_MODELS="0",
        QUORUM_MODELS_DIR=str(starter_model.parent),
    )
    await desk.event("drawn")
    await tray.icon()
    await tray.entry("Running · 1 model")
    await desk.element(COMPOSER)
    await desk.do("focus")
    await desk.do("js", f"document.querySelector('{COMPOSER}').focus()")

    screen.type("Say hello in one short sentence.")
    await desk.element("article[aria-busy=false] footer")

    answer = await desk.do("js", "document.querySelector('article[aria-busy=false]').innerText")
    assert "smollm2" in answer.lower()
    assert "tok/s" in answer or "tokens/s" in answer
    button = await desk.do("middle_of", "article[aria-busy=false] footer button[aria-label*=opy]")
    screen.click(*button)
    event = await desk.event_like("clipboard ")
    copied = event.removeprefix("clipboard ").strip()
    screen.picture(out / "window-answer.png")
    assert copied
    assert copied in answer

    children = psutil.Process(desk.process.pid).children(recursive=True)
    assert children
    desk.send(signal.SIGTERM)
    assert await desk.ended() == 0
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


async def test_the_quit_command_ends_the_desktop_as_an_installer_needs_it(
    start_desk: StartDesk, screen: Screen, bus: SessionBus
) -> None:
    desk = await start_desk(screen=screen, bus=bus, real=True)
    await desk.event("drawn")

    silent = "import sys; sys.stdout = sys.stderr = None; from app.__main__ import main; sys.exit(main())"
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-c", silent, "quit", "--data-dir", str(start_desk.data_dir),
        cwd=ROOT, env=environment(start_desk.home, None, None),
    )  # fmt: skip

    assert await asyncio.wait_for(command.wait(), 40) == 0  # although it has no console
    assert await desk.ended() == 0
    assert not (start_desk.data_dir / "node.json").exists()


async def test_a_second_headless_start_on_a_running_desktop_explains_itself(
    start_desk: StartDesk, screen: Screen, bus: SessionBus
) -> None:
    desk = await start_desk(screen=screen, bus=bus, real=True)
    await desk.event("drawn")

    second = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "serve", "--data-dir", str(start_desk.data_dir), "--port", "0",
        cwd=ROOT, env=environment(start_desk.home, None, None), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await asyncio.wait_for(second.communicate(), 30)

    assert second.returncode == 1
    assert "already runs" in errors.decode()
    assert str(desk.process.pid) in errors.decode()


async def test_without_a_display_it_says_so_serves_and_ends_on_a_signal(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    headless = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "--data-dir", str(tmp_path / "data"), "--port", "0",
        cwd=ROOT,
        env=environment(tmp_path / "home", None, None),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert headless.stdout is not None
    lines = [(await asyncio.wait_for(headless.stdout.readline(), 30)).decode() for _ in range(2)]
    address, token = lines[1].strip().rpartition(" ")[2].split("/#token=")
    assert address.startswith("http://127.0.0.1:")
    assert token == (tmp_path / "data" / "control.token").read_text()

    headless.send_signal(signal.SIGINT)
    _, errors = await asyncio.wait_for(headless.communicate(), 30)

    assert headless.returncode == 0
    assert "There is no display here." in errors.decode()


async def test_a_display_that_is_not_there_is_found_out_before_qt_aborts(tmp_path: Path, desktop_parts: None) -> None:
    (tmp_path / "home").mkdir()
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "--data-dir", str(tmp_path / "data"), "--port", "0",
        cwd=ROOT,
        env=environment(tmp_path / "home", None, None) | {"DISPLAY": ":59999"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert started.stdout is not None
    assert b"http://127.0.0.1:" in await asyncio.wait_for(started.stdout.readline(), 30)

    started.send_signal(signal.SIGTERM)
    _, errors = await asyncio.wait_for(started.communicate(), 30)

    assert started.returncode == 0
    assert "The display can't be used." in errors.decode()
    assert "xcb" not in errors.decode()
