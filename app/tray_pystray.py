"""The tray on Windows and macOS: pystray, each with its platform's rules about threads.

Windows: the icon's loop runs in a daemon thread of its own. macOS: the icon shares the window's NSApplication, every
change goes through ``AppHelper.callAfter``, and the icon is hidden at the end because pystray's ``stop`` would stop
the application itself.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

import pystray
from PIL import Image

from app.tray import Action, Item, TrayState, menu

log = logging.getLogger(__name__)

PICTURE = 64


class PystrayTray:
    """Made on the main thread after the window and before it runs. ``icon_class`` is pystray's but in tests."""

    available = True

    def __init__(
        self,
        perform: Callable[[Action], None],
        dark_panel: Callable[[], bool],
        icon_class: Callable[..., Any] = pystray.Icon,
        platform: str = sys.platform,
    ) -> None:
        self._perform = perform
        self._dark_panel = dark_panel
        self._mac = platform == "darwin"
        self._later: Callable[..., Any] = _at_once
        options: dict[str, Any] = {}
        if self._mac:
            from AppKit import NSApplication
            from PyObjCTools import AppHelper

            self._later = AppHelper.callAfter
            options["darwin_nsapplication"] = NSApplication.sharedApplication()
        self._state = TrayState()
        self._icon = icon_class("quorum", self._image(), "Quorum", self._menu(), **options)
        if self._mac:
            self._icon.run_detached(setup=lambda icon: self._later(setattr, icon, "visible", True))
        else:
            threading.Thread(target=self._icon.run, name="tray", daemon=True).start()

    def show(self, state: TrayState) -> None:
        """Make picture, tooltip and menu agree with ``state``."""
        self._later(self._show, state)

    def notify(self, title: str, text: str) -> None:
        """A notification of the system."""
        self._later(self._icon.notify, text, title)

    def stop(self) -> None:
        """Remove the icon."""
        if self._mac:
            self._later(setattr, self._icon, "visible", False)
        else:
            self._icon.stop()

    def _show(self, state: TrayState) -> None:
        picture_changed = state.look is not self._state.look
        self._state = state
        if picture_changed:
            self._icon.icon = self._image()
        self._icon.title = f"Quorum: {state.status}"[:127]  # Windows takes no more
        self._icon.menu = self._menu()

    def _image(self) -> Any:
        with Image.open(self._state.look.picture(self._dark_panel(), PICTURE)) as picture:
            return picture.copy()

    def _menu(self) -> Any:
        return pystray.Menu(
            *(pystray.Menu.SEPARATOR if item is None else self._menu_item(item) for item in menu(self._state))
        )

    def _menu_item(self, item: Item) -> Any:
        action = item.action
        return pystray.MenuItem(
            item.label.replace("&", "&&") if sys.platform == "win32" else item.label,
            None if action is None else lambda: self._perform(action),
            checked=None if item.checked is None else lambda _: bool(item.checked),
            default=item.default,
            visible=item.visible,
            enabled=item.enabled,
        )


def _at_once(function: Callable[..., Any], *args: Any) -> None:
    function(*args)
