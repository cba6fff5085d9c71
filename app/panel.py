"""Whether the bar that holds tray icons is dark, on Linux: asked of the desktop, whatever theme our window has."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from PySide6.QtCore import SLOT, QObject, Qt, Slot
from PySide6.QtDBus import QDBus, QDBusConnection, QDBusMessage, QDBusVariant
from PySide6.QtGui import QGuiApplication

PORTAL: Final = ("org.freedesktop.portal.Desktop", "/org/freedesktop/portal/desktop", "org.freedesktop.portal.Settings")
APPEARANCE: Final = "org.freedesktop.appearance"
SCHEME: Final = "color-scheme"
ASK_MS: Final = 300
DARK_BARS: Final = frozenset({"gnome", "unity", "ubuntu", "pantheon"})
"""Desktops whose bar is dark, also when their windows are light."""


class Panel(QObject):
    """Made on the GUI thread, before the window's theme is set; ``changed`` is called there."""

    def __init__(self, changed: Callable[[], None], environ: Mapping[str, str] = os.environ) -> None:
        super().__init__()
        self._changed = changed
        self._always = bool(DARK_BARS & set(environ.get("XDG_CURRENT_DESKTOP", "").lower().split(":")))
        self._hints: Any = QGuiApplication.styleHints()
        self._usual = self._hints.colorScheme()
        bus = QDBusConnection.sessionBus()
        if bus.isConnected():
            name, path, interface = PORTAL
            slot: Any = SLOT("_told(QString,QString,QDBusVariant)")  # the stubs ask for bytes, which the call refuses
            bus.connect(name, path, interface, "SettingChanged", self, slot)

    @property
    def dark(self) -> bool:
        """As the desktop says; taken for dark unless it says light."""
        if self._always:
            return True
        match _asked():
            case 1:
                return True
            case 2:
                return False
        return bool(self._usual != Qt.ColorScheme.Light)

    def scheme_changed(self, overruled: bool) -> None:
        """Qt noticed a change; it is the desktop's unless our own setting overrules it."""
        if not overruled:
            self._usual = self._hints.colorScheme()
        self._changed()

    @Slot(str, str, QDBusVariant)
    def _told(self, group: str, name: str, value: QDBusVariant) -> None:
        if (group, name) == (APPEARANCE, SCHEME):
            self._changed()


def _asked() -> int:
    """What the desktop's portal says: 1 is dark, 2 light, 0 neither or no portal."""
    bus = QDBusConnection.sessionBus()
    if not bus.isConnected():
        return 0
    question = QDBusMessage.createMethodCall(*PORTAL, "Read")
    question.setArguments([APPEARANCE, SCHEME])
    question.setAutoStartService(False)
    answer = bus.call(question, QDBus.CallMode.Block, ASK_MS)
    value: Any = answer.arguments()[0] if answer.type() == QDBusMessage.MessageType.ReplyMessage else 0
    while isinstance(value, QDBusVariant):
        value = value.variant()
    return value if isinstance(value, int) else 0
