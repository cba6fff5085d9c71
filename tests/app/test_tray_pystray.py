"""The tray of Windows and macOS, on pystray's dummy backend."""

from __future__ import annotations

import os
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("PIL")
os.environ["PYSTRAY_BACKEND"] = "dummy"
pystray = pytest.importorskip("pystray")

from app.service import NodeInfo, NodeMode  # noqa: E402 # the backend is chosen at pystray's import
from app.tray import Action, TrayState  # noqa: E402
from app.tray_pystray import PystrayTray  # noqa: E402

BOUND_S = 10.0


class RecordingIcon(pystray.Icon):  # type: ignore[misc] # pystray has no types
    """The dummy backend made able: it records what a system would be told, and on which thread."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.told: list[str] = []
        self.pictures = 0
        self.shown = threading.Event()
        self.ended = threading.Event()

    def _note(self, what: str) -> None:
        self.told.append(f"{what} on {threading.current_thread().name}")

    def _show(self) -> None:
        self.shown.set()

    def _hide(self) -> None:
        self._note("hide")

    def _update_icon(self) -> None:
        self.pictures += 1
        self._icon_valid = True

    def _update_title(self) -> None:
        self._note("title")

    def _update_menu(self) -> None:
        self._note("menu")

    def _notify(self, message: str, title: str | None = None) -> None:
        self.told.append(f"{title}: {message}")

    def _run(self) -> None:
        self._mark_ready()
        self.ended.wait(BOUND_S)

    def _run_detached(self) -> None:
        self._mark_ready()

    def _stop(self) -> None:
        self.ended.set()

    def line(self, text: str) -> Any:
        return next(item for item in self.menu if item.text == text)


def state(mode: NodeMode = NodeMode.RUNNING, notice: str = "") -> TrayState:
    info = NodeInfo(
        id="n", name="n", version="0", mode=mode, address="", port=1, started_at=0.0, models=2, notice=notice
    )
    return TrayState(info, start_at_login=True)


@pytest.fixture
def clicked() -> list[Action]:
    return []


def test_on_windows_the_icon_runs_in_a_daemon_thread_and_shows(clicked: list[Action]) -> None:
    tray = PystrayTray(clicked.append, lambda: True, RecordingIcon, "win32")
    icon = tray._icon
    assert icon.shown.wait(BOUND_S)
    assert [thread.daemon for thread in threading.enumerate() if thread.name == "tray"] == [True]

    tray.stop()

    assert icon.ended.is_set()
    assert tray.available


def test_the_menu_and_its_clicks(clicked: list[Action]) -> None:
    tray = PystrayTray(clicked.append, lambda: True, RecordingIcon, "win32")
    icon = tray._icon
    assert icon.shown.wait(BOUND_S)

    tray.show(state())

    assert [item.text for item in icon.menu if item is not pystray.Menu.SEPARATOR] == [
        "Running · 2 models", "Open Quorum", "Pause", "Pause for an hour", "Drain", "Copy address", "Start at login",
        "Quit",
    ]  # fmt: skip
    assert icon.line("Running · 2 models").enabled is False
    assert icon.line("Start at login").checked is True
    assert icon.line("Drain").checked is False
    assert icon.line("Open Quorum").checked is None
    assert icon.title == "Quorum: Running · 2 models"
    for text in ("Pause", "Drain", "Quit"):
        icon.line(text)(icon)
    icon()  # a click on the icon itself
    assert clicked == [Action.PAUSE, Action.DRAIN, Action.QUIT, Action.OPEN]
    tray.stop()


def test_the_picture_changes_only_with_the_state(clicked: list[Action]) -> None:
    tray = PystrayTray(clicked.append, lambda: False, RecordingIcon, "win32")
    icon = tray._icon
    assert icon.shown.wait(BOUND_S)
    icon._visible = True
    running = icon.icon.tobytes()
    drawn = icon.pictures

    tray.show(state())
    assert icon.pictures == drawn
    tray.show(state(notice="The disk is full."))
    assert icon.pictures == drawn + 1
    assert icon.icon.tobytes() != running
    assert icon.line("The disk is full.").enabled is False
    tray.stop()


def test_the_picture_follows_the_taskbars_colour(clicked: list[Action]) -> None:
    dark, drawn = [True], threading.Event()

    class Drawing(RecordingIcon):
        def _update_icon(self) -> None:
            super()._update_icon()
            if not dark[0]:
                drawn.set()

    tray = PystrayTray(clicked.append, lambda: dark[0], Drawing, "win32", panel_s=0.01)
    icon = tray._icon
    assert icon.shown.wait(BOUND_S)
    icon._visible = True
    before = icon.icon.tobytes()

    dark[0] = False

    assert drawn.wait(BOUND_S)
    assert icon.icon.tobytes() != before
    tray.stop()


def test_a_notification_has_a_title_and_a_text(clicked: list[Action]) -> None:
    tray = PystrayTray(clicked.append, lambda: True, RecordingIcon, "win32")
    assert tray._icon.shown.wait(BOUND_S)

    tray.notify("Quorum is drained", "It is safe.")

    assert "Quorum is drained: It is safe." in tray._icon.told
    tray.stop()


def test_on_macos_every_change_goes_through_the_main_thread(
    clicked: list[Action], monkeypatch: pytest.MonkeyPatch
) -> None:
    queued: list[tuple[Any, ...]] = []
    arrived = threading.Event()

    def call_after(*call: Any) -> None:
        queued.append(call)
        arrived.set()

    appkit, tools = ModuleType("AppKit"), ModuleType("PyObjCTools")
    appkit.NSApplication = SimpleNamespace(sharedApplication=lambda: "the application")  # type: ignore[attr-defined]
    tools.AppHelper = SimpleNamespace(callAfter=call_after)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "AppKit", appkit)
    monkeypatch.setitem(sys.modules, "PyObjCTools", tools)
    made: dict[str, Any] = {}

    def icon_class(*args: Any, **options: Any) -> RecordingIcon:
        made.update(options)
        return RecordingIcon(*args)

    tray = PystrayTray(clicked.append, lambda: True, icon_class, "darwin")
    assert made == {"darwin_nsapplication": "the application"}
    assert arrived.wait(BOUND_S)
    tray.show(state(NodeMode.PAUSED))
    tray.notify("a", "b")
    tray.stop()
    assert not tray._icon.shown.is_set()
    assert "Paused" not in tray._icon.title

    for function, *args in queued:  # what the main thread would do
        function(*args)

    assert tray._icon.shown.is_set()
    assert tray._icon.title == "Quorum: Paused · 2 models"
    assert "a: b" in tray._icon.told
    assert tray._icon.visible is False
    assert not tray._icon.ended.is_set()  # stop would have stopped the application
