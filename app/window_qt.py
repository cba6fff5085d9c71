"""The window on Linux: what pywebview's Qt part leaves out, done in its own QApplication."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

# QtWebEngine must be loaded before the QApplication is made.
from PySide6.QtWebEngineCore import QWebEnginePage, QWebEngineScript, QWebEngineSettings  # isort: skip
from PySide6 import QtCore
from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QColor, QIcon, QKeySequence, QPalette, QShortcut
from PySide6.QtWidgets import QApplication, QFileDialog, QGridLayout, QMessageBox, QSpacerItem
from webview.platforms import qt

from app.gui_thread import GuiThread
from app.memory import ZOOM, Memory
from app.panel import Panel
from app.tray import APP_ICON
from app.window import BACKGROUND, TITLE, Window, open_outside

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)
qt_log = logging.getLogger("qt")

ZOOM_STEP: Final = 1.1
PULSE_MS: Final = 200
QUESTION_PX: Final = 420
FRAME_PX, SIDES_PX = 40, 8  # what is drawn around the window, which nobody can grab outside the screen
THEME_SCRIPT: Final = "theme"
DARK_BUTTON, DARK_TEXT, DARK_FAINT = "#242826", "#e9ece9", "#8b918d"
CALM_S: Final = 60.0
"""A page whose process dies is loaded again; one that dies within this time after the last death asks the user."""

_LEVELS: Final = {
    QtCore.QtMsgType.QtDebugMsg: logging.DEBUG,
    QtCore.QtMsgType.QtInfoMsg: logging.DEBUG,
    QtCore.QtMsgType.QtWarningMsg: logging.DEBUG,
    QtCore.QtMsgType.QtCriticalMsg: logging.WARNING,
    QtCore.QtMsgType.QtFatalMsg: logging.ERROR,
}


class QtPlatform:
    """Makes the QApplication; pywebview then runs its loop."""

    gui = "qt"
    session_ending = False  # a session manager says so by commitDataRequest

    def __init__(self) -> None:
        QtCore.qInstallMessageHandler(_message)
        QApplication.setApplicationName("quorum")
        QApplication.setApplicationDisplayName(TITLE)
        QApplication.setDesktopFileName("quorum")
        self._app = QApplication(["quorum"])
        self._app.setQuitOnLastWindowClosed(False)
        self._app.setWindowIcon(QIcon(str(APP_ICON)))
        self._gui = GuiThread()
        self._pulse = QTimer()  # lets Python handle signals while Qt waits
        self._pulse.timeout.connect(lambda: None)
        self._pulse.start(PULSE_MS)
        self._window: Window | None = None
        self._theme = "system"
        self._died_at: float | None = None
        self._lost = False
        self.on_page_lost: Callable[[], None] = lambda: None
        self.on_panel: Callable[[], None] = lambda: None
        self._panel = Panel(lambda: self.on_panel())
        self._app.styleHints().colorSchemeChanged.connect(
            lambda scheme: self._panel.scheme_changed(overruled=self._theme != "system")
        )
        self.on_session_end: Callable[[], None] = lambda: None
        self._app.commitDataRequest.connect(lambda manager: self.on_session_end(), Qt.ConnectionType.DirectConnection)

    @property
    def dark(self) -> bool:
        """As the desktop's theme says."""
        return bool(self._app.styleHints().colorScheme() == Qt.ColorScheme.Dark)

    @property
    def dark_panel(self) -> bool:
        """As the desktop says, whatever theme the window has."""
        return self._panel.dark

    def fit(self, memory: Memory) -> None:
        """Keep the size within the screen and drop a place from which the window could not be dragged."""
        screens = [screen.availableGeometry() for screen in self._app.screens()]
        if memory.x is not None and memory.y is not None:
            title_bar = QtCore.QRect(memory.x, memory.y, memory.width, FRAME_PX)
            if not any(screen.intersected(title_bar).width() >= 64 for screen in screens):
                memory.x = memory.y = None
        if memory.x is None and screens:  # it will be in the middle of the main one
            screens = [self._app.primaryScreen().availableGeometry()]
        if screens:
            memory.width = min(memory.width, max(screen.width() for screen in screens) - SIDES_PX)
            memory.height = min(memory.height, max(screen.height() for screen in screens) - FRAME_PX)

    def adapt(self, window: Window) -> None:
        """Keep foreign pages out of the window, and dress it when pywebview has made it."""
        self._window = window

        def accept(page: Any, url: Any, kind: Any, is_main_frame: bool) -> bool:
            address = url.toString()
            if not is_main_frame or window.is_own(address) or address in {"about:blank", ""}:
                return True
            if address.startswith("data:text/html"):  # the empty page of a hidden start
                return not window.visible
            open_outside(address)
            return False

        def accept_new(page: Any, url: Any, kind: Any, is_main_frame: bool) -> bool:
            if window.is_own(url.toString()):
                log.warning("the page asked for a second window")
            else:
                open_outside(url.toString())
            return False

        # Assigned, not derived: pywebview names these classes inside their own methods.
        view: Any = qt.BrowserView
        view.WebPage.acceptNavigationRequest = accept
        view.WebPage.onFeaturePermissionRequested = _refuse_feature
        view.NavigationHandler.acceptNavigationRequest = accept_new
        view.on_download_requested = _download
        window.native.events.before_show += lambda: self._dress(window)

    def set_theme(self, theme: str) -> None:
        """Dialogs follow, and so does the page from its first paint."""
        self._gui.call(self._set_theme, theme)

    def _set_theme(self, theme: str) -> None:
        self._theme = theme
        scheme = {"light": Qt.ColorScheme.Light, "dark": Qt.ColorScheme.Dark}.get(theme, Qt.ColorScheme.Unknown)
        self._app.styleHints().setColorScheme(scheme)
        follows = self._app.styleHints().colorScheme() == scheme  # not on desktops that Qt has no theme for
        self._app.setPalette(_dark_palette() if theme == "dark" and not follows else QPalette())
        if self._window is not None and (view := self._window.native.native) is not None:
            self._colour(view.webview.page())

    def _colour(self, page: Any) -> None:
        """The colour before the page is drawn; and the choice where the page looks for it, as nothing is stored."""
        dark = self.dark if self._theme == "system" else self._theme == "dark"
        page.setBackgroundColor(QColor(BACKGROUND[dark]))
        for old in page.scripts().find(THEME_SCRIPT):
            page.scripts().remove(old)
        script = QWebEngineScript()
        script.setName(THEME_SCRIPT)
        script.setInjectionPoint(QWebEngineScript.InjectionPoint.DocumentCreation)
        script.setWorldId(QWebEngineScript.ScriptWorldId.MainWorld)
        script.setSourceCode(f"try {{ localStorage.setItem('quorum.theme', '{self._theme}') }} catch {{}}")
        page.scripts().insert(script)

    def bring_up(self, native: Any) -> None:
        """Show, un-minimise, raise."""
        self._gui.soon(self._bring_up, native.native)

    def _bring_up(self, view: Any) -> None:
        view.setWindowState(view.windowState() & ~Qt.WindowState.WindowMinimized)
        if self._window is not None and self._window.memory.maximized and not view.isVisible():
            view.showMaximized()
        view.show()
        view.raise_()
        view.activateWindow()
        if self._lost:  # whoever opens the window wants it tried again
            self._load_again(view)

    def load_again(self, native: Any) -> None:
        """After ``on_page_lost``."""
        self._gui.soon(self._load_again, native.native)

    def _load_again(self, view: Any) -> None:
        self._lost = False
        view.webview.reload()

    def note_place(self, native: Any, memory: Memory) -> None:
        """Read it on the GUI thread."""
        self._gui.call(_note_place, native.native, memory)

    def ask(self, native: Any, question: str, detail: str, yes: str, no: str) -> bool:
        """A message box with two named buttons; closing it is ``no``."""
        return self._gui.call(_ask, native.native, question, detail, yes, no)

    def copy(self, text: str) -> None:
        """Through Qt's clipboard."""
        self._gui.call(self._app.clipboard().setText, text)

    def alert(self, title: str, text: str) -> None:
        """A message box; on the GUI thread, before the loop runs."""
        QMessageBox.critical(None, title, text)

    def interrupt(self) -> None:
        """Closes it, as the user would."""
        self._gui.soon(self._app.closeAllWindows)

    def finish(self) -> None:
        """Delete page before profile, or Qt may crash at exit; with the profile its connections to the node end."""
        view = None if self._window is None else self._window.native.native
        for part in () if view is None else (view.webview, view.profile, view):
            part.deleteLater()
            self._app.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)
        self._app.processEvents()
        QtCore.qInstallMessageHandler(None)

    def _dress(self, window: Window) -> None:
        view = window.native.native
        page = view.webview.page()
        self._colour(page)
        for name, value in (
            ("JavascriptCanAccessClipboard", True),
            ("JavascriptCanOpenWindows", False),
            ("NavigateOnDropEnabled", False),
            ("PluginsEnabled", False),
            ("FullScreenSupportEnabled", False),
        ):
            page.settings().setAttribute(getattr(QWebEngineSettings.WebAttribute, name), value)
        page.renderProcessTerminated.connect(self._page_died)
        page.loadFinished.connect(lambda loaded: self._page_loaded(view, loaded))
        for keys, change in (("Ctrl++", ZOOM_STEP), ("Ctrl+=", ZOOM_STEP), ("Ctrl+-", 1 / ZOOM_STEP), ("Ctrl+0", 0.0)):
            shortcut = QShortcut(QKeySequence(keys), view)
            shortcut.activated.connect(lambda change=change: self._zoom(view, change))

    def _zoom(self, view: Any, change: float) -> None:
        assert self._window is not None  # noqa: S101 # adapt came first
        memory = self._window.memory
        memory.zoom = min(max(memory.zoom * change, ZOOM[0]), ZOOM[1]) if change else 1.0
        view.webview.setZoomFactor(memory.zoom)

    def _page_loaded(self, view: Any, loaded: bool) -> None:
        assert self._window is not None  # noqa: S101 # adapt came first
        view.webview.setZoomFactor(self._window.memory.zoom)  # a new page starts at 1

    def _page_died(self, status: Any, code: int) -> None:
        if status == QWebEnginePage.RenderProcessTerminationStatus.NormalTerminationStatus:
            return
        log.warning("the page's process ended (%s, %d)", status, code)
        before, self._died_at = self._died_at, time.monotonic()
        if self._window is None:
            return
        if before is not None and self._died_at - before < CALM_S:
            self._lost = True
            self.on_page_lost()
        else:
            QTimer.singleShot(300, self._window.native.native.webview.reload)


def _dark_palette() -> Any:
    """The page's own dark colours, for dialogs."""
    palette = QPalette(QColor(DARK_BUTTON), QColor(BACKGROUND[True]))
    for role in (QPalette.ColorRole.WindowText, QPalette.ColorRole.Text, QPalette.ColorRole.ButtonText):
        palette.setColor(role, QColor(DARK_TEXT))
        palette.setColor(QPalette.ColorGroup.Disabled, role, QColor(DARK_FAINT))
    palette.setColor(QPalette.ColorRole.Base, QColor(DARK_BUTTON))
    return palette


def _note_place(view: Any, memory: Memory) -> None:
    memory.maximized = view.isMaximized()
    if not (view.isMaximized() or view.isMinimized() or view.isFullScreen()):
        memory.x, memory.y = view.x(), view.y()
        memory.width, memory.height = view.width(), view.height()


def _ask(view: Any, question: str, detail: str, yes: str, no: str) -> bool:
    box = QMessageBox(view if view.isVisible() else None)
    box.setIcon(QMessageBox.Icon.Question)
    box.setWindowTitle(TITLE)
    box.setText(question)
    box.setInformativeText(detail)
    accept = box.addButton(yes, QMessageBox.ButtonRole.AcceptRole)
    refuse = box.addButton(no, QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(refuse)
    box.setEscapeButton(refuse)
    layout = box.layout()
    if isinstance(layout, QGridLayout):  # else a long sentence is wrapped at a width made for short ones
        layout.addItem(QSpacerItem(QUESTION_PX, 0), layout.rowCount(), 0, 1, layout.columnCount())
    box.exec()
    accepted = box.clickedButton() is accept or box.clickedButton() == accept
    box.deleteLater()
    return accepted


def _refuse_feature(page: Any, url: Any, feature: Any) -> None:
    page.setFeaturePermission(url, feature, page.PermissionPolicy.PermissionDeniedByUser)


def _download(view: Any, download: Any) -> None:
    """Ask where to save; pywebview's own answer uses calls that Qt 6 does not have."""
    name = download.downloadFileName()
    folder = QtCore.QStandardPaths.writableLocation(QtCore.QStandardPaths.StandardLocation.DownloadLocation)
    path, _ = QFileDialog.getSaveFileName(view, "Save as", str(Path(folder) / name))
    if not path:
        download.cancel()
        return
    download.setDownloadDirectory(str(Path(path).parent))
    download.setDownloadFileName(Path(path).name)
    download.accept()


def _message(kind: Any, context: Any, text: str) -> None:
    if context.category == "js":
        return  # what the page prints may hold what the user wrote
    qt_log.log(_LEVELS.get(kind, logging.DEBUG), "%s: %s", context.category, text)
