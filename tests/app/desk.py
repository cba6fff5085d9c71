"""A desktop in a process of its own, driven by lines of JSON: commands on stdin, answers and events on stdout.

``python tests/app/desk.py '{"data_dir": ..., "hidden": false, "fake": {...} or null}'``; run by ``rig.Desk``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

OUT = os.fdopen(os.dup(1), "w", buffering=1)
SAID = threading.Lock()


def tell(**what: Any) -> None:
    with SAID:
        OUT.write(json.dumps(what) + "\n")


def spy_on_windows() -> None:
    """Events of the window and of message boxes, told as they come."""
    from PySide6.QtGui import QGuiApplication
    from PySide6.QtWidgets import QMessageBox
    from webview.platforms import qt

    from app import window_qt

    class Question(QMessageBox):
        def showEvent(self, event: Any) -> None:
            super().showEvent(event)
            tell(event="question", text=self.text(), buttons=[button.text() for button in self.buttons()])

        @staticmethod
        def critical(parent: Any, title: str, text: str) -> None:
            box = Question(QMessageBox.Icon.Critical, title, text, QMessageBox.StandardButton.Ok, parent)
            box.exec()

    window_qt.QMessageBox = Question
    shown = qt.BrowserView.showEvent

    def show(self: Any, event: Any) -> None:
        shown(self, event)
        tell(event="window shown")

    qt.BrowserView.showEvent = show
    qt.BrowserView.hideEvent = lambda self, event: tell(event="window hidden")

    dress = window_qt.QtPlatform._dress

    def dress_and_listen(self: Any, window: Any) -> None:
        zoom = self._zoom
        self._zoom = lambda view, change: (zoom(view, change), tell(event=f"zoom {view.webview.zoomFactor():.2f}"))
        dress(self, window)
        copied = QGuiApplication.clipboard()
        copied.dataChanged.connect(lambda: tell(event=f"clipboard {copied.text()}"))
        view = window.native.native
        page = view.webview.page()
        page.profile().downloadRequested.connect(
            lambda download: download.isFinishedChanged.connect(lambda: tell(event="saved"))
        )
        page.loadFinished.connect(lambda loaded: tell(event="drawn"))
        page.titleChanged.connect(lambda title: tell(event=f"title {title}"))

    window_qt.QtPlatform._dress = dress_and_listen


class Hands:
    """What a test can do inside; every method is a command."""

    def __init__(self, desktop: Any) -> None:
        self._desktop = desktop

    def _gui(self, function: Any, *args: Any) -> Any:
        return self._desktop.window.platform._gui.call(function, *args)

    @property
    def _view(self) -> Any:
        return self._desktop.window.native.native

    def js(self, script: str) -> Any:
        return self._desktop.window.run_js(script)

    def visible(self) -> bool:
        return self._gui(self._view.isVisible)

    def close(self) -> None:
        self._desktop.window.platform._gui.soon(self._view.close)

    def place(self, x: int, y: int, width: int, height: int) -> None:
        self._gui(lambda: (self._view.move(x, y), self._view.resize(width, height)))

    def geometry(self) -> list[int]:
        view = self._view
        return self._gui(lambda: [view.x(), view.y(), view.width(), view.height()])

    def frame(self) -> list[int]:
        """As ``geometry``, with what the window manager draws around it."""
        return self._gui(lambda: list(self._view.frameGeometry().getRect()))

    def zoom(self) -> float:
        return self._gui(self._view.webview.zoomFactor)

    def answer_dialogs(self, path: str) -> None:
        """Whatever dialog for a file or folder opens next is answered with ``path``."""
        from PySide6.QtWidgets import QFileDialog
        from webview.platforms import qt

        from app import window_qt

        class Answering(QFileDialog):
            getOpenFileName = staticmethod(lambda *_, **__: (path, ""))
            getSaveFileName = staticmethod(lambda *_, **__: (path, ""))
            getExistingDirectory = staticmethod(lambda *_, **__: path)

        qt.QFileDialog = window_qt.QFileDialog = Answering

    def press(self, text: str) -> None:
        from PySide6.QtWidgets import QApplication, QMessageBox

        def press() -> None:
            for box in QApplication.topLevelWidgets():
                if isinstance(box, QMessageBox) and box.isVisible():
                    next(button for button in box.buttons() if button.text() == text).click()

        self._desktop._platform._gui.soon(press)

    def middle_of(self, selector: str) -> list[int]:
        """Where on the screen an element of the page is."""
        script = f"(r => (r.x + r.width / 2) + ' ' + (r.y + r.height / 2))(document.querySelector('{selector}')"
        x, y = (float(part) for part in self.js(f"{script}.getBoundingClientRect())").split())
        from PySide6.QtCore import QPoint

        return self._gui(lambda: list(self._view.webview.mapToGlobal(QPoint(int(x), int(y))).toTuple()))

    def focus(self) -> None:
        self._gui(lambda: (self._view.activateWindow(), self._view.webview.setFocus()))

    def background(self) -> str:
        return self._gui(lambda: self._view.webview.page().backgroundColor().name())

    def dialogs(self) -> list[str]:
        """Colours of a dialog: its ground and its text."""
        from PySide6.QtWidgets import QApplication

        return self._gui(
            lambda: [getattr(QApplication.palette(), part)().color().name() for part in ("window", "text")]
        )

    def menu_policy(self) -> str:
        return self._gui(self._view.webview.contextMenuPolicy).name

    def menu_on_screen(self) -> None:
        menu = self._desktop._tray._menu
        self._gui(lambda: menu.popup(self._view.mapToGlobal(self._view.rect().center())))

    def quit(self) -> None:
        self._desktop.quit_now()

    def node(self, name: str, *args: Any) -> Any:
        value = getattr(self._desktop.service.node, name)
        return self._desktop.service.call(value, *args) if callable(value) else value

    def setting(self, name: str, value: Any) -> None:
        self._desktop.service.set(name, value)

    def log_out(self) -> None:
        """What Qt does when the session manager says so; the process may be killed when it has returned."""
        self._gui(self._desktop._platform.on_session_end)

    def renderer(self) -> int:
        return self._gui(self._view.webview.page().renderProcessPid)


def main() -> int:
    told = json.loads(sys.argv[1])
    from app import shell, start
    from app.service import Service

    if os.environ.get("DISPLAY"):
        from app import display

        display.prepare()
        spy_on_windows()
    data_dir, fake = Path(told["data_dir"]), told["fake"]
    if fake is None:
        from router.settings import NodeOptions

        options: Any = NodeOptions(data_dir=data_dir, overrides={"port": 0})
        service = Service(options)
    else:
        from tests.app.fake_node import FakeNode

        options = SimpleNamespace(data_dir=data_dir)
        service = Service(options, lambda options: FakeNode(options, **fake))
    desktops: list[Any] = []
    made = shell.Desktop.__init__

    def make(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        desktops.append(self)

    shell.Desktop.__init__ = make

    def obey() -> None:
        for line in sys.stdin:
            number, name, args = json.loads(line)
            try:
                tell(answer=number, value=getattr(Hands(desktops[0]), name)(*args))
            except Exception as error:
                tell(answer=number, error=repr(error))

    starting = shell.Desktop.run

    def run(self: Any) -> int:
        threading.Thread(target=obey, daemon=True).start()  # not before: the display's trial forks
        return starting(self)

    shell.Desktop.run = run
    return start.run(options, hidden=told["hidden"], service=service)


if __name__ == "__main__":
    sys.exit(main())
