"""The window: pywebview showing the node's own page, and nothing else.

The page gets the control token in-process, by ``token()`` of its ``pywebview.api``. pywebview's bridge builds its
functions with ``new Function`` and returns values through ``eval``, both of which the page's policy forbids; the two
places are replaced here, so that the policy stays strict.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import webview
import webview.util

from app.memory import MIN_SIZE, Memory
from app.others import browse

log = logging.getLogger(__name__)
logging.getLogger("pywebview").handlers.clear()  # its own handler writes to stderr; ours are at the root

TITLE: Final = "Quorum"
BACKGROUND: Final = {False: "#f7f7f5", True: "#141615"}
"""The page's own ``--bg``, light and dark: shown until the page is, so that nothing flashes."""
EXTERNAL: Final = frozenset({"http", "https", "mailto"})
BLANK: Final = "<!doctype html><title>Quorum</title>"

CREATE_API: Final = """
window.pywebview._createApi = function (functions) {
  functions.forEach(function (entry) {
    window.pywebview._returnValuesCallbacks[entry.func] = {};
    window.pywebview.api[entry.func] = function () {
      var id = (Math.random() + '').substring(2), args = Array.prototype.slice.call(arguments);
      var promise = new Promise(function (resolve, reject) {
        window.pywebview._checkValue(entry.func, resolve, reject, id);
      });
      window.pywebview._jsApiCallback(entry.func, args, id);
      return promise;
    };
  });
};
"""


class Platform(Protocol):
    """What pywebview leaves to the system: one class for Qt, one for Windows and macOS."""

    @property
    def gui(self) -> Any:
        """Which of pywebview's parts to use; None leaves it to pywebview."""

    on_panel: Callable[[], None]
    """Called when the bar that holds tray icons may have another colour."""

    on_page_lost: Callable[[], None]
    """Called on the GUI thread when the page's process ended again soon after it was loaded anew."""

    on_session_end: Callable[[], None]
    """Called on the GUI thread when the user logs out or the system shuts down."""

    @property
    def session_ending(self) -> bool:
        """Whether the system is shutting down now, so that a window must close and not hide."""

    @property
    def dark(self) -> bool:
        """Whether the system asks for dark windows."""

    @property
    def dark_panel(self) -> bool:
        """Whether the bar that holds tray icons is dark."""

    def fit(self, memory: Memory) -> None:
        """Correct a remembered place that is on no screen any more."""

    def adapt(self, window: Window) -> None:
        """Prepare pywebview; called once, before the loop."""

    def set_theme(self, theme: str) -> None:
        """Use ``system``, ``light`` or ``dark`` for what the system draws."""

    def bring_up(self, native: Any) -> None:
        """Show the window, un-minimised and in front."""

    def note_place(self, native: Any, memory: Memory) -> None:
        """Write the window's present place into ``memory``."""

    def load_again(self, native: Any) -> None:
        """Load a page that was lost."""

    def ask(self, native: Any, question: str, detail: str, yes: str, no: str) -> bool:
        """Ask the user and wait for the answer; never on the GUI thread."""

    def copy(self, text: str) -> None:
        """Put ``text`` on the clipboard."""

    def alert(self, title: str, text: str) -> None:
        """Show a message and wait until it is closed; for when there is no window."""

    def interrupt(self) -> None:
        """Close an ``alert``; from any thread."""

    def finish(self) -> None:
        """Tidy up after the loop has ended."""


def make_platform() -> Platform:
    """The platform this runs on. Call on the main thread, after ``display.prepare``."""
    if sys.platform in {"win32", "darwin"}:
        from app.window_native import NativePlatform

        return NativePlatform()
    from app.window_qt import QtPlatform

    return QtPlatform()


class PageApi:
    """Everything the page may ask of the window. pywebview offers each public method, and nothing else."""

    def __init__(self, window: Window) -> None:
        self._window = window

    def token(self) -> str | None:
        """The control token of this start; None for a page that is not ours."""
        return self._window.token if self._window.shows_own_page() else None

    def pick_model(self) -> str | None:
        """The absolute path of a .gguf file the user picks, or None."""
        return self._window.pick(webview.FileDialog.OPEN, ("Models (*.gguf)",))

    def pick_folder(self) -> str | None:
        """The absolute path of a folder the user picks, or None."""
        return self._window.pick(webview.FileDialog.FOLDER, ())


class Window:
    """The one window. ``run`` blocks the main thread; everything else may be called from other threads.

    ``may_close`` is asked on the GUI thread when the user closes the window and must return at once. ``before_show``
    is called there when the window was made, ``on_drawn`` from a thread of its own when a page was.
    """

    def __init__(
        self, platform: Platform, address: str, token: str, memory: Memory, *, hidden: bool, theme: str = "system"
    ) -> None:
        self.platform = platform
        self.token = token
        self.memory = memory
        self.may_close: Callable[[], bool] = lambda: True
        self.on_drawn: Callable[[], None] = lambda: None
        self.before_show: Callable[[], None] = lambda: None
        self._origin = _origin(address)
        self._home = f"{address}/#window"
        self._visible = not hidden
        self._blank = hidden
        self._asking = threading.Lock()
        platform.fit(memory)
        platform.set_theme(theme)
        dark = platform.dark if theme == "system" else theme == "dark"
        native: Any = webview.create_window(
            TITLE,
            url=None if hidden else self._home,
            html=BLANK if hidden else None,
            js_api=PageApi(self),
            x=memory.x,
            y=memory.y,
            width=memory.width,
            height=memory.height,
            min_size=MIN_SIZE,
            maximized=memory.maximized and not hidden,
            hidden=hidden,
            background_color=BACKGROUND[dark],
            text_select=True,
            zoomable=True,
        )
        self.native = native
        self.native.evaluate_js = self._evaluate  # pywebview's goes through eval
        self.native.events.closing += self._closing
        self.native.events.loaded += self._loaded
        self.native.events.before_show += lambda: self.before_show()

    def run(self) -> None:
        """Show the window until ``destroy``; on the main thread."""
        webview.settings["ALLOW_FILE_URLS"] = False
        webview.settings["ALLOW_DOWNLOADS"] = True
        webview.settings["OPEN_EXTERNAL_LINKS_IN_BROWSER"] = True
        bridge: Any = webview.util
        bridge.load_js_files = _without_eval(bridge.load_js_files)
        self.platform.adapt(self)
        webview.start(gui=self.platform.gui, private_mode=True)

    @property
    def visible(self) -> bool:
        """Whether the window is shown, minimised or not."""
        return self._visible

    def show(self) -> None:
        """Bring the window to the front; the page of a hidden start is loaded at the first time."""
        self._visible = True
        if self._blank:
            self._blank = False
            self.native.load_url(self._home)
        self.platform.bring_up(self.native)

    def hide(self) -> None:
        """Hide the window; its page stays as it is."""
        self.note_place()
        self._visible = False
        self.native.hide()

    def destroy(self) -> None:
        """Close the window for good, which ends ``run``. ``may_close`` must allow it."""
        if self._visible:
            self.note_place()
        self.native.destroy()

    def note_place(self) -> None:
        """Write the present place into ``memory``."""
        try:
            self.platform.note_place(self.native, self.memory)
        except Exception:
            log.exception("the window's place is not known")

    def run_js(self, script: str) -> Any:
        """Run ``script`` in the page and return its value (numbers, texts, truth values)."""
        return self.native.run_js(script)

    def ask(self, question: str, detail: str, yes: str, no: str) -> bool | None:
        """Ask the user and wait; None when another question is open."""
        if not self._asking.acquire(blocking=False):
            return None
        try:
            return self.platform.ask(self.native, question, detail, yes, no)
        finally:
            self._asking.release()

    def shows_own_page(self) -> bool:
        """Whether the page in the window is the node's."""
        url = self.native.get_current_url()
        return url is not None and self.is_own(str(url))

    def is_own(self, url: str) -> bool:
        """Whether ``url`` is an address of this node."""
        return _origin(url) == self._origin

    def pick(self, kind: int, file_types: tuple[str, ...]) -> str | None:
        """The path the user picks in the system's dialog; None without one, or for a page that is not ours."""
        if not self.shows_own_page():
            return None
        picked = self.native.create_file_dialog(kind, file_types=file_types)
        return os.fspath(picked[0]) if picked else None

    def go_home(self) -> None:
        """Load the node's page afresh."""
        self.native.load_url(self._home)

    def _evaluate(self, script: str, callback: object = None) -> Any:
        return self.native.run_js(script)

    def _closing(self) -> bool:
        if self.platform.session_ending:
            self.platform.on_session_end()
            return True
        return self.may_close()

    def _loaded(self) -> None:
        self.on_drawn()
        url = self.native.get_current_url()
        if url is not None and url.startswith(("http:", "https:")) and not self.is_own(url):
            open_outside(url)
            self.go_home()


def open_outside(url: str) -> None:
    """Open a web or mail address with the system's own program; any other kind of address is ignored."""
    if urlsplit(url).scheme in EXTERNAL:
        threading.Thread(target=browse, args=(url,), name="browser", daemon=True).start()
    else:
        log.warning("a link of an unknown kind was not opened")


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port
    except ValueError:
        return None


def _without_eval(load: Callable[..., tuple[str, str]]) -> Callable[..., tuple[str, str]]:
    def load_js_files(window: Any, platform: str) -> tuple[str, str]:
        code, finish = load(window, platform)
        return code + CREATE_API, finish

    return load_js_files
