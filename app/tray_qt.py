"""The tray on Linux: QSystemTrayIcon in the window's own QApplication, over StatusNotifierItem or XEmbed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from PySide6.QtCore import QTimer
from PySide6.QtDBus import QDBusConnection
from PySide6.QtGui import QAction, QIcon
from PySide6.QtWidgets import QMenu, QSystemTrayIcon

from app.gui_thread import GuiThread
from app.tray import PIXELS, Action, Item, TrayState, menu

log = logging.getLogger(__name__)

WATCHER: Final = "org.kde.StatusNotifierWatcher"
RETRY_MS: Final = 1000
XEMBED_AFTER: Final = 10
"""Tries after which Qt itself is asked: it keeps its answer for ever, and a panel may come late at login."""


class QtTray:
    """Made on the GUI thread; the icon appears as soon as there is a tray to hold it."""

    def __init__(self, perform: Callable[[Action], None], dark_panel: Callable[[], bool]) -> None:
        self._perform = perform
        self._dark_panel = dark_panel
        self._gui = GuiThread()
        self._state = TrayState()
        self._icon: Any = None
        self._menu: Any = QMenu()
        self._actions: dict[str, Any] = {}
        self._items: dict[str, Item] = {}
        self._tries = 0
        self._retry = QTimer()
        self._retry.setInterval(RETRY_MS)
        self._retry.timeout.connect(self._appear)
        for item in menu(self._state):
            if item is None:
                self._menu.addSeparator()
            else:
                self._add(item)
        self._appear()

    @property
    def available(self) -> bool:
        """True once the icon sits in a tray."""
        return self._icon is not None and _tray_is_there(ask_qt=True)

    def panel_changed(self) -> None:
        """The bar may have another colour."""
        self._gui.soon(self._refresh)

    def show(self, state: TrayState) -> None:
        """Make picture, tooltip and menu agree with ``state``."""
        self._gui.soon(self._show, state)

    def notify(self, title: str, text: str) -> None:
        """A notification of the desktop."""
        self._gui.soon(self._notify, title, text)

    def stop(self) -> None:
        """Remove the icon; call on the GUI thread."""
        self._retry.stop()
        if self._icon is not None:
            self._icon.hide()
            self._icon.setContextMenu(None)
            self._icon.deleteLater()
            self._icon = None

    def _add(self, item: Item) -> None:
        action = QAction(item.label, self._menu)
        action.setCheckable(item.checked is not None)
        action.triggered.connect(lambda checked=False, key=item.key: self._clicked(key))
        self._menu.addAction(action)
        self._actions[item.key] = action
        self._update(item)

    def _update(self, item: Item) -> None:
        action = self._actions[item.key]
        self._items[item.key] = item
        action.setText(item.label.replace("&", "&&"))
        action.setEnabled(item.enabled)
        action.setVisible(item.visible)
        if item.checked is not None:
            action.setChecked(item.checked)

    def _clicked(self, key: str) -> None:
        item = self._items[key]
        if item.checked is not None:
            self._actions[key].setChecked(item.checked)  # the node's answer moves the mark, not the click
        if item.action is not None:
            self._perform(item.action)

    def _show(self, state: TrayState) -> None:
        self._state = state
        self._refresh()

    def _refresh(self) -> None:
        for item in menu(self._state):
            if item is not None and self._items[item.key] != item:
                self._update(item)
        if self._icon is not None:
            self._icon.setIcon(self._picture())
            self._icon.setToolTip(f"Quorum: {self._state.status}")

    def _notify(self, title: str, text: str) -> None:
        if self._icon is not None:
            self._icon.showMessage(title, text, self._picture(), 10_000)

    def _picture(self) -> Any:
        dark = self._dark_panel()
        icon = QIcon()
        for pixels in PIXELS:
            icon.addFile(str(self._state.look.picture(dark, pixels)))
        return icon

    def _appear(self) -> None:
        self._tries += 1
        if not _tray_is_there(ask_qt=self._tries > XEMBED_AFTER):
            self._retry.start()
            return
        self._retry.stop()
        self._icon = QSystemTrayIcon()
        self._icon.setContextMenu(self._menu)
        self._icon.activated.connect(self._activated)
        self._refresh()
        self._icon.show()
        log.debug("the tray icon is shown")

    def _activated(self, reason: Any) -> None:
        if reason in (QSystemTrayIcon.ActivationReason.Trigger, QSystemTrayIcon.ActivationReason.DoubleClick):
            self._perform(Action.OPEN)


def _tray_is_there(ask_qt: bool) -> bool:
    bus = QDBusConnection.sessionBus()
    if bus.isConnected() and bus.interface().isServiceRegistered(WATCHER).value():
        return True
    return ask_qt and bool(QSystemTrayIcon.isSystemTrayAvailable())
