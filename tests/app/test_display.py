"""Whether and how a window can be drawn here, tried on displays that work, draw by software only, or are not there."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.display import Drawing, draw_by_software, fingerprint, prepare, why_headless
from app.memory import recall
from app.shell import Desktop
from tests.app.conftest import SHOWN, StartDesk
from tests.app.rig import Screen, SessionBus

ROOT = Path(__file__).resolve().parent.parent.parent
TRY = """
import sys
from app import display
known = display.Drawing(int(sys.argv[1])) if sys.argv[1] else None
display.TRY_S = float(sys.argv[2])
print(display.Trial(known).result().name)
"""
NO_DISPLAY = ":9999"  # no X server takes such a number by itself


def tried(display: str, known: Drawing | None = None, patience_s: float = 60) -> str:
    """What a trial on ``display`` finds; everything it writes counts."""
    done = subprocess.run(
        [sys.executable, "-c", TRY, "" if known is None else str(known.value), str(patience_s)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "WAYLAND_DISPLAY"} | {"DISPLAY": display},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=150,
        check=False,
    )
    return done.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a display")
def test_no_display_is_said_before_anything_of_qt_is_imported() -> None:
    assert why_headless({}) == "There is no display here."
    assert why_headless({"DISPLAY": "", "WAYLAND_DISPLAY": ""}) == "There is no display here."


def test_a_missing_desktop_part_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    assert "webview" in why_headless({"DISPLAY": ":0"})


@pytest.mark.parametrize(
    ("user", "machine", "there"), [("", "", False), ("0.0.0.0", "", False), ("120.1", "", True), ("", "131.0", True)]
)
def test_windows_without_webview2_is_told_what_it_needs(
    user: str, machine: str, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {"user": user, "machine": machine}

    def open_key(root: str, path: str) -> contextlib.AbstractContextManager[str]:
        assert "{F3017226-FE2A-4295-8BDF-00C3A9A7E4C5}" in path
        if not versions[root]:
            raise FileNotFoundError(path)
        return contextlib.nullcontext(versions[root])

    registry = SimpleNamespace(
        HKEY_CURRENT_USER="user",
        HKEY_LOCAL_MACHINE="machine",
        OpenKey=open_key,
        QueryValueEx=lambda key, name: (key, 1),
    )
    monkeypatch.setitem(sys.modules, "winreg", registry)
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)

    assert ("WebView2" not in why_headless({})) is there


def test_the_sandbox_is_given_up_for_root_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for user, value in ((0, "1"), (1000, None)):
        monkeypatch.setattr("os.geteuid", lambda user=user: user)
        environ: dict[str, str] = {}
        prepare(environ)
        assert environ.get("QTWEBENGINE_DISABLE_SANDBOX") == value
        assert environ["QT_API"] == "pyside6"


def test_flags_of_the_user_are_kept_and_ours_come_once() -> None:
    environ = {"QTWEBENGINE_CHROMIUM_FLAGS": "--user"}

    for _ in range(2):
        draw_by_software(environ)

    assert environ["QTWEBENGINE_CHROMIUM_FLAGS"] == "--user --disable-gpu"


def test_a_verdict_holds_for_one_display() -> None:
    assert fingerprint({"DISPLAY": ":1"}) == fingerprint({"DISPLAY": ":1"})
    assert fingerprint({"DISPLAY": ":1"}) != fingerprint({"DISPLAY": ":2"})


@pytest.mark.desktop
def test_a_trial_tells_displays_apart_and_prints_nothing(screen: Screen) -> None:
    broken = Screen(glx=False)
    try:
        assert tried(screen.display) == "HARDWARE"
        assert tried(screen.display, known=Drawing.SOFTWARE) == "SOFTWARE"
        assert tried(broken.display) == "SOFTWARE"
    finally:
        broken.close()
    assert tried(NO_DISPLAY) == "IMPOSSIBLE"
    assert tried(NO_DISPLAY, known=Drawing.HARDWARE) == "IMPOSSIBLE"


@pytest.mark.desktop
def test_what_hangs_is_given_up(desktop_parts: None) -> None:
    stuck = Screen()
    stuck.freeze()
    try:
        assert tried(stuck.display, patience_s=1) == "UNSURE"
        assert tried(stuck.display, known=Drawing.HARDWARE, patience_s=1) == "IMPOSSIBLE"
    finally:
        stuck.thaw()
        stuck.close()


@pytest.mark.parametrize("verdict", list(Drawing))
def test_a_verdict_that_is_not_sure_is_not_remembered(
    verdict: Drawing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.display.Trial", lambda known: SimpleNamespace(result=lambda: verdict))
    monkeypatch.setattr("os.environ", dict(os.environ))
    desktop = Desktop(cast("Any", SimpleNamespace(data_dir=tmp_path)), cast("Any", SimpleNamespace()), hidden=False)

    assert desktop.can_draw() is (verdict is not Drawing.IMPOSSIBLE)

    told = recall(tmp_path / "window.json")
    assert told.drawn_on == (fingerprint() if verdict in (Drawing.HARDWARE, Drawing.SOFTWARE) else "")
    assert told.software is (verdict in (Drawing.SOFTWARE, Drawing.UNSURE))


@pytest.mark.desktop
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


@pytest.mark.desktop
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
