"""Whether a window can be shown here, found out before Qt starts: Qt aborts the whole process where it can't.

On Linux a forked child tries it while this process goes on: it connects to the display and, once per boot and
display, draws a page. A child that dies says that drawing needs software, or that the display is no use at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Mapping, MutableMapping
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

TRY_S: Final = 15.0
WEBVIEW2: Final = r"Microsoft\EdgeUpdate\Clients\{F3017226-FE2A-4295-8BDF-00C3A9A7E4C5}"
WEBVIEW2_FROM: Final = "https://developer.microsoft.com/microsoft-edge/webview2"

SOFTWARE: Final = {
    "QT_XCB_GL_INTEGRATION": "none",
    "QT_QUICK_BACKEND": "software",
    "QTWEBENGINE_CHROMIUM_FLAGS": "--disable-gpu",
}


class Drawing(IntEnum):
    """How pages are drawn here; the value is the exit code of the trying child.

    ``UNSURE``: too slow to tell, because of a driver that hangs or of a computer that is busy (at login it is). Then by
    software this time, and the next start tries again.
    """

    HARDWARE = 0
    SOFTWARE = 3
    IMPOSSIBLE = 4
    UNSURE = 5


def why_headless(environ: Mapping[str, str] = os.environ) -> str:
    """Why no window can be shown here, as a sentence; empty when nothing speaks against one."""
    if sys.platform.startswith("linux"):
        if not environ.get("DISPLAY") and not environ.get("WAYLAND_DISPLAY"):
            return "There is no display here."
        needed = ("webview", "qtpy", "PySide6.QtWebEngineWidgets")
    else:
        needed = ("webview", "pystray")
    missing = [name for name in needed if not _installed(name)]
    if missing:
        return f"The desktop part is not installed ({', '.join(missing)} is missing)."
    if sys.platform == "win32" and not _webview2():
        return "The window needs Microsoft's WebView2 Runtime, which this computer lacks."
    return ""


def _webview2() -> bool:
    """Whether WebView2 is installed, for this user or for all; without it pywebview would show Internet Explorer."""
    import winreg

    registry: Any = winreg
    for root, folder in ((registry.HKEY_CURRENT_USER, ""), (registry.HKEY_LOCAL_MACHINE, "WOW6432Node\\")):
        with contextlib.suppress(OSError), registry.OpenKey(root, f"SOFTWARE\\{folder}{WEBVIEW2}") as key:
            if str(registry.QueryValueEx(key, "pv")[0]) not in ("", "0.0.0.0"):  # noqa: S104 # a version, no address
                return True
    return False


def why_impossible() -> str:
    """Why the trial failed, as far as it can be known: a sentence."""
    switch = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    if sys.platform != "win32" and switch.exists() and switch.read_text().strip() == "1" and os.geteuid() != 0:
        return "The display can't be used, or this system forbids the window's sandbox (AppArmor, user namespaces)."
    return "The display can't be used."


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def prepare(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what Qt reads from the environment. Call before anything of Qt is imported."""
    environ["QT_API"] = "pyside6"
    environ.setdefault("QT_LOGGING_RULES", "qt.webenginecontext*=false;qt.vulkan=false")
    _add_flags(environ, "--log-level=3")  # Chromium's own lines on stderr, but for fatal ones
    if sys.platform.startswith("linux") and os.geteuid() == 0:
        environ["QTWEBENGINE_DISABLE_SANDBOX"] = "1"


def draw_by_software(environ: MutableMapping[str, str] = os.environ) -> None:
    """Make Qt and Chromium do without OpenGL."""
    environ["QT_XCB_GL_INTEGRATION"] = SOFTWARE["QT_XCB_GL_INTEGRATION"]
    environ["QT_QUICK_BACKEND"] = SOFTWARE["QT_QUICK_BACKEND"]
    _add_flags(environ, SOFTWARE["QTWEBENGINE_CHROMIUM_FLAGS"])


def _add_flags(environ: MutableMapping[str, str], flag: str) -> None:
    flags = environ.get("QTWEBENGINE_CHROMIUM_FLAGS", "").split()
    if flag not in flags:
        environ["QTWEBENGINE_CHROMIUM_FLAGS"] = " ".join([*flags, flag])


def fingerprint(environ: Mapping[str, str] = os.environ) -> str:
    """What a verdict about drawing holds for: this boot, this display, this version of Qt."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    names = ("DISPLAY", "WAYLAND_DISPLAY", "XDG_SESSION_ID", "QT_QPA_PLATFORM")
    parts = [boot.read_text() if boot.exists() else "", *(environ.get(name, "") for name in names)]
    spec = importlib.util.find_spec("PySide6")
    # Frozen modules lie inside the program, whose own file then tells versions apart.
    origin = Path(sys.executable if getattr(sys, "frozen", False) or not spec else spec.origin or sys.executable)
    parts.append(str(origin.stat().st_mtime_ns))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


class Trial:
    """The trying child. Start it while this process has one thread; ``result`` waits for it.

    ``known`` is an earlier verdict for the same fingerprint: then only the connection to the display is tried.
    """

    def __init__(self, known: Drawing | None) -> None:
        self._known = known
        self._pid = 0
        if not sys.platform.startswith("linux"):
            return
        self._pid = os.fork()
        if self._pid == 0:
            _be_silent()
            with contextlib.suppress(BaseException):
                os._exit(_try_both() if known is None else _try_one(_connect, known))
            os._exit(Drawing.IMPOSSIBLE)

    def result(self) -> Drawing:
        """How to draw."""
        if not self._pid:
            return Drawing.HARDWARE
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._pid = 0
        if code == 0 and self._known is not None:
            return self._known
        return Drawing(code) if code in set(Drawing) else Drawing.IMPOSSIBLE


def _be_silent() -> None:
    """What a failing Qt says is for nobody, and it must leave no core file."""
    if sys.platform == "win32":
        return
    import resource

    nowhere = os.open(os.devnull, os.O_RDWR)
    for handle in range(3):
        os.dup2(nowhere, handle)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _try_both() -> int:
    if sys.platform == "win32":
        return Drawing.HARDWARE
    slow = False
    for drawing in (Drawing.HARDWARE, Drawing.SOFTWARE):
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                os._exit(_try_one(_draw_a_page, drawing))
            os._exit(Drawing.IMPOSSIBLE)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        slow = slow or code == -signal.SIGALRM
        if code == 0:
            return Drawing.UNSURE if slow else drawing
    return Drawing.UNSURE if code == -signal.SIGALRM else Drawing.IMPOSSIBLE


def _try_one(attempt: Callable[[], int], drawing: Drawing) -> int:
    if sys.platform != "win32":  # the alarm ends a process that hangs inside a driver, which a timer of Qt can't
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, TRY_S)
    prepare()
    if drawing is Drawing.SOFTWARE:
        draw_by_software()
    return attempt()


def _connect() -> int:
    from PySide6.QtGui import QGuiApplication

    QGuiApplication(["quorum"])
    return 0


def _draw_a_page() -> int:
    from PySide6.QtWebEngineCore import QWebEnginePage, QWebEngineProfile
    from PySide6.QtWidgets import QApplication

    app = QApplication(["quorum"])
    profile = QWebEngineProfile()
    page = QWebEnginePage(profile)
    page.loadFinished.connect(lambda loaded: os._exit(0 if loaded else 1))
    page.setHtml("<p>Quorum")
    app.exec()
    return 1
