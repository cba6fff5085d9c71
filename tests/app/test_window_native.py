"""The window on Windows and macOS, as far as it can be tried elsewhere: with stand-ins for what the systems offer."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("webview")

from app import autostart, window_native  # only where there is a desktop part
from app.memory import Memory
from app.window_native import NativePlatform


class Listeners(list[Any]):
    def __iadd__(self, listener: Any) -> Listeners:  # type: ignore[override, misc]
        self.append(listener)
        return self


@pytest.fixture
def native() -> SimpleNamespace:
    events = SimpleNamespace(maximized=Listeners(), restored=Listeners(), shown=Listeners())
    done: list[str] = []
    return SimpleNamespace(
        events=events,
        done=done,
        x=10.0,
        y=20.0,
        width=800.0,
        height=600.0,
        show=lambda: done.append("show"),
        restore=lambda: done.append("restore"),
        create_confirmation_dialog=lambda title, text: done.append(f"{title}|{text}") or True,
    )


@pytest.fixture
def on_windows(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    values = {"AppsUseLightTheme": 0, "SystemUsesLightTheme": 1}
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(autostart, "WindowsRegistry", lambda: SimpleNamespace(read=lambda key, name: values.get(name)))
    return values


def window(native: Any) -> Any:
    return SimpleNamespace(native=native, memory=Memory())


def test_windows_has_one_theme_for_windows_and_one_for_the_taskbar(on_windows: dict[str, int]) -> None:
    platform = NativePlatform()
    assert (platform.dark, platform.dark_panel) == (True, False)

    on_windows.clear()

    assert (platform.dark, platform.dark_panel) == (False, False)


def test_a_maximised_window_keeps_its_former_size_in_memory(on_windows: Any, native: Any) -> None:
    platform, memory = NativePlatform(), Memory()
    platform.adapt(window(native))
    platform.note_place(native, memory)
    assert (memory.x, memory.y, memory.width, memory.height, memory.maximized) == (10, 20, 800, 600, False)

    native.events.maximized[0]()
    native.width = 1900.0
    platform.note_place(native, memory)

    assert (memory.width, memory.maximized) == (800, True)
    platform.bring_up(native)
    assert native.done == ["show"]
    native.events.restored[0]()
    platform.bring_up(native)
    assert native.done == ["show", "show", "restore"]


def test_a_question_says_what_its_buttons_mean(native: Any) -> None:
    assert NativePlatform().ask(native, "Quit?", "A job runs.", "Quit", "Keep running")

    assert native.done == ["Quit?|A job runs.\n\nOK: Quit.\nCancel: Keep running."]


@pytest.mark.parametrize(("system", "program"), [("win32", "clip"), ("darwin", "pbcopy")])
def test_the_clipboard_is_written_by_the_systems_program(
    monkeypatch: pytest.MonkeyPatch, system: str, program: str
) -> None:
    ran: list[tuple[list[str], bytes]] = []
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(subprocess, "run", lambda command, input, **_: ran.append((command, input)))

    NativePlatform().copy("http://127.0.0.1:7411/v1")

    assert ran == [([program], b"http://127.0.0.1:7411/v1")]


def test_zoom_keys_on_windows_change_the_view_and_the_memory(native: Any) -> None:
    view = SimpleNamespace(KeyDown=Listeners(), ZoomFactor=0.0)
    native.native = SimpleNamespace(browser=SimpleNamespace(webview=view))
    made = window(native)
    window_native._zoom_keys_of_windows(made)
    assert view.ZoomFactor == 1.0

    def press(key: str, control: bool = True) -> bool:
        event = SimpleNamespace(Control=control, KeyCode=key, Handled=False)
        view.KeyDown[0](None, event)
        return event.Handled

    assert press("Oemplus")
    assert view.ZoomFactor == made.memory.zoom == pytest.approx(1.1)
    assert not press("Oemplus", control=False)
    assert not press("R")
    assert press("D0")
    assert view.ZoomFactor == 1.0


def test_quitting_a_mac_application_ends_the_node_before_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    cocoa: Any = ModuleType("webview.platforms.cocoa")
    cocoa.BrowserView = SimpleNamespace(AppDelegate=object)
    monkeypatch.setitem(sys.modules, "webview.platforms.cocoa", cocoa)
    monkeypatch.setattr("webview.platforms.cocoa", cocoa, raising=False)
    ended: list[str] = []

    window_native._let_terminate(lambda: ended.append("node"))

    assert cocoa.BrowserView.AppDelegate().applicationShouldTerminate_(None) == 1
    assert ended == ["node"]
