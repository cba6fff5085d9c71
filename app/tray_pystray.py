"""The tray on Windows and macOS: pystray, each with its platform's rules about threads.

Windows: the icon's loop runs in a daemon thread of its own. macOS: the icon shares the window's NSApplication, every
change goes through ``AppHelper.callAfter``, the picture is a template that the menu bar colours, and the icon is hidden
at the end because pystray's ``stop`` would stop the application itself.
"""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pystray
from PIL import Image

from app.tray import Action, Item, TrayState, menu

log = logging.getLogger(__name__)

PICTURE = 64
MAC_PICTURE, MAC_POINTS = 44, 18  # a picture of more than twice the points is sharp on every display
PANEL_S = 5.0


class PystrayTray:
    """Made on the main thread after the window and before it runs. ``icon_class`` is pystray's but in tests."""

    available = True

    def __init__(
        self,
        perform: Callable[[Action], None],
        dark_panel: Callable[[], bool],
        icon_class: Callable[..., Any] | None = None,
        platform: str = sys.platform,
        panel_s: float = PANEL_S,
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
        self._ended = threading.Event()
        self._picture = self._wanted_picture()
        make_icon = icon_class or (_mac_icon_class() if self._mac else pystray.Icon)
        self._icon = make_icon("quorum", _read(self._picture), "Quorum", self._menu(), **options)
        if self._mac:
            self._icon.run_detached(setup=lambda icon: self._later(setattr, icon, "visible", True))
        else:
            threading.Thread(target=self._icon.run, name="tray", daemon=True).start()
            threading.Thread(target=self._follow_panel, args=(panel_s,), name="tray panel", daemon=True).start()

    def show(self, state: TrayState) -> None:
        """Make picture, tooltip and menu agree with ``state``."""
        self._later(self._show, state)

    def notify(self, title: str, text: str) -> None:
        """A notification of the system."""
        self._later(self._icon.notify, text, title)

    def stop(self) -> None:
        """Remove the icon."""
        self._ended.set()
        if self._mac:
            self._later(setattr, self._icon, "visible", False)
        else:
            self._icon.stop()

    def _show(self, state: TrayState) -> None:
        self._state = state
        self._draw()
        self._icon.title = f"Quorum: {state.status}"[:127]  # Windows takes no more
        self._icon.menu = self._menu()

    def _draw(self) -> None:
        if (wanted := self._wanted_picture()) != self._picture:
            self._picture = wanted
            self._icon.icon = _read(wanted)

    def _wanted_picture(self) -> Path:
        look = self._state.look
        return look.template(MAC_PICTURE) if self._mac else look.picture(self._dark_panel(), PICTURE)

    def _follow_panel(self, every_s: float) -> None:
        """Windows tells only windows that its taskbar changed its colour; the icon has none that we see."""
        while not self._ended.wait(every_s):
            self._draw()

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


def _read(path: Path) -> Any:
    with Image.open(path) as picture:
        return picture.copy()


def _mac_icon_class() -> Callable[..., Any]:
    """pystray's icon with a template picture: pystray scales it to the points of the bar, which blurs on Retina."""
    from AppKit import NSImage
    from Foundation import NSData

    base: Any = pystray.Icon

    class MacIcon(base):  # type: ignore[misc] # pystray has no types
        _icon_image: Any

        def _assert_image(self) -> None:
            if self._icon_image:
                return
            content = io.BytesIO()
            self._icon.save(content, "png")
            data = NSData.dataWithBytes_length_(content.getvalue(), len(content.getvalue()))
            self._icon_image = NSImage.alloc().initWithData_(data)
            self._icon_image.setSize_((MAC_POINTS, MAC_POINTS))
            self._icon_image.setTemplate_(True)
            self._status_item.button().setImage_(self._icon_image)

    return MacIcon


def _at_once(function: Callable[..., Any], *args: Any) -> None:
    function(*args)
