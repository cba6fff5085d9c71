"""The window on Windows (WebView2) and macOS (WKWebView): what pywebview leaves to the system there."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

from app.memory import ZOOM, Memory
from app.window import Window

log = logging.getLogger(__name__)

THEMES: Final = r"Software\Microsoft\Windows\CurrentVersion\Themes\Personalize"
SHUTTING_DOWN: Final = 0x2000
"""SM_SHUTTINGDOWN of GetSystemMetrics."""
ZOOM_STEP: Final = 1.1


class NativePlatform:
    """One of the two; which one is asked where they differ."""

    gui = None

    def __init__(self) -> None:
        self._maximized = False
        self.on_session_end: Callable[[], None] = lambda: None
        self.on_panel: Callable[[], None] = lambda: None  # neither this nor a lost page is told through pywebview
        self.on_page_lost: Callable[[], None] = lambda: None

    @property
    def session_ending(self) -> bool:
        """Windows tells it; macOS asks the application to terminate instead."""
        if sys.platform != "win32":
            return False
        import ctypes

        return bool(ctypes.windll.user32.GetSystemMetrics(SHUTTING_DOWN))

    @property
    def dark(self) -> bool:
        """As the system's appearance says."""
        return _mac_is_dark() if sys.platform == "darwin" else _theme_flag("AppsUseLightTheme") == 0

    @property
    def dark_panel(self) -> bool:
        """Windows has a setting of its own for the taskbar."""
        return _mac_is_dark() if sys.platform == "darwin" else _theme_flag("SystemUsesLightTheme") == 0

    def fit(self, memory: Memory) -> None:
        """Both systems move a window that is on no screen."""

    def adapt(self, window: Window) -> None:
        """Follow the window's size, let the system's own end of the session through, add the zoom keys."""
        window.native.events.maximized += lambda: self._note(True)
        window.native.events.restored += lambda: self._note(False)
        if sys.platform == "darwin":
            _let_terminate(lambda: self.on_session_end())
            _zoom_keys_of_mac(window)
        else:
            window.native.events.shown += lambda: _zoom_keys_of_windows(window)

    def set_theme(self, theme: str) -> None:
        """The page follows the setting by itself."""

    def bring_up(self, native: Any) -> None:
        """Show and, when minimised, restore."""
        native.show()
        if not self._maximized:
            native.restore()

    def note_place(self, native: Any, memory: Memory) -> None:
        """Through pywebview, while not maximised."""
        memory.maximized = self._maximized
        if not self._maximized:
            memory.x, memory.y = int(native.x), int(native.y)
            memory.width, memory.height = int(native.width), int(native.height)

    def load_again(self, native: Any) -> None:
        """Both systems load a page by themselves whose process ended."""

    def ask(self, native: Any, question: str, detail: str, yes: str, no: str) -> bool:
        """The system's OK and Cancel, explained in the text."""
        return bool(native.create_confirmation_dialog(question, f"{detail}\n\nOK: {yes}.\nCancel: {no}."))

    def copy(self, text: str) -> None:
        """Through the program each system has for it."""
        program = ["pbcopy"] if sys.platform == "darwin" else ["clip"]
        subprocess.run(program, input=text.encode(), check=False, timeout=5)  # noqa: S603 # a fixed program

    def alert(self, title: str, text: str) -> None:
        """A message box of the system."""
        if sys.platform == "win32":
            import ctypes

            ctypes.windll.user32.MessageBoxW(None, text, title, 0x10)
        else:
            from AppKit import NSAlert

            alert = NSAlert.alloc().init()
            alert.setMessageText_(title)
            alert.setInformativeText_(text)
            alert.runModal()

    def interrupt(self) -> None:
        """The system's message boxes stay until the user closes them."""

    def finish(self) -> None:
        """Nothing is left to do."""

    def _note(self, maximized: bool) -> None:
        self._maximized = maximized


def _theme_flag(name: str) -> object:
    from app.autostart import WindowsRegistry

    return WindowsRegistry().read(THEMES, name)


def _mac_is_dark() -> bool:
    from AppKit import NSApplication

    return "Dark" in str(NSApplication.sharedApplication().effectiveAppearance().name())


def _let_terminate(on_session_end: Callable[[], None]) -> None:
    """Cmd-Q, Quit of the Dock and logging out end Quorum; only closing the window hides it."""
    from webview.platforms import cocoa

    view: Any = cocoa.BrowserView

    class AppDelegate(view.AppDelegate):  # type: ignore[misc] # pyobjc has no types
        def applicationShouldTerminate_(self, app: Any) -> int:
            on_session_end()
            return 1

    view.AppDelegate = AppDelegate


def _zoom(window: Window, change: float) -> float:
    memory = window.memory
    memory.zoom = min(max(memory.zoom * change, ZOOM[0]), ZOOM[1]) if change else 1.0
    return memory.zoom


def _zoom_keys_of_windows(window: Window) -> None:
    """WebView2's own keys are off together with reload; its control still reports them."""
    view = window.native.native.browser.webview
    changes = {"Oemplus": ZOOM_STEP, "Add": ZOOM_STEP, "OemMinus": 1 / ZOOM_STEP, "Subtract": 1 / ZOOM_STEP, "D0": 0.0}

    def pressed(sender: Any, event: Any) -> None:
        if event.Control and (change := changes.get(str(event.KeyCode))) is not None:
            view.ZoomFactor = _zoom(window, change)
            event.Handled = True

    view.KeyDown += pressed
    view.ZoomFactor = window.memory.zoom


def _zoom_keys_of_mac(window: Window) -> None:
    from AppKit import NSEvent, NSEventMaskKeyDown, NSEventModifierFlagCommand
    from webview.platforms import cocoa

    changes = {"+": ZOOM_STEP, "=": ZOOM_STEP, "-": 1 / ZOOM_STEP, "0": 0.0}

    def pressed(event: Any) -> Any:
        change = changes.get(str(event.charactersIgnoringModifiers()))
        if change is None or not event.modifierFlags() & NSEventModifierFlagCommand:
            return event
        for view in cocoa.BrowserView.instances.values():
            view.webview.setPageZoom_(_zoom(window, change))
        return None

    NSEvent.addLocalMonitorForEventsMatchingMask_handler_(NSEventMaskKeyDown, pressed)
