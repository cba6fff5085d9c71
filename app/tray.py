"""The tray icon behind ``show / notify / stop``, and what its menu says: one pure description for every system."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from app.service import NodeInfo, NodeMode, PeerInfo
from app.tray_peers import peer_lines

if TYPE_CHECKING:
    from app.window import Window

ASSETS: Final = Path(getattr(sys, "_MEIPASS", Path(__file__).resolve().parent.parent)) / "assets"
NOTICE_LENGTH: Final = 80
PEERS_SHOWN: Final = 8


class Action(StrEnum):
    """What a click on a menu item asks for."""

    OPEN = "open"
    PEERS = "peers"
    UPDATE = "update"
    PAUSE = "pause"
    PAUSE_HOUR = "pause-hour"
    RESUME = "resume"
    DRAIN = "drain"
    COPY = "copy"
    LOGIN = "login"
    QUIT = "quit"


class Look(StrEnum):
    """What the icon shows; each has its picture in ``assets/tray``."""

    RUNNING = "running"
    PAUSED = "paused"
    DRAINING = "draining"
    PROBLEM = "problem"

    def picture(self, dark_panel: bool, pixels: int) -> Path:
        """The PNG for a dark or light panel, ``pixels`` wide (one of ``PIXELS``)."""
        return ASSETS / "tray" / f"{self}-{'dark' if dark_panel else 'light'}-{pixels}.png"

    def template(self, pixels: int) -> Path:
        """The PNG in black for macOS, which gives it the colour that its menu bar needs."""
        return ASSETS / "tray" / f"{self}-template-{pixels}.png"


PIXELS: Final = (16, 22, 24, 32, 44, 64)
APP_ICON: Final = ASSETS / "icon-256.png"


@dataclass(frozen=True)
class TrayState:
    """Everything the tray shows. ``info`` is None while the node starts."""

    info: NodeInfo | None = None
    start_at_login: bool = False
    peers: tuple[PeerInfo, ...] = ()

    @property
    def mode(self) -> NodeMode:
        return NodeMode.RUNNING if self.info is None else self.info.mode

    @property
    def look(self) -> Look:
        """The icon: a notice of the node outranks what it does."""
        if self.info is not None and self.info.notice:
            return Look.PROBLEM
        match self.mode:
            case NodeMode.RUNNING:
                return Look.RUNNING
            case NodeMode.PAUSED:
                return Look.PAUSED
            case NodeMode.DRAINING | NodeMode.DRAINED:
                return Look.DRAINING

    @property
    def status(self) -> str:
        """One line, e.g. ``Running · 2 models · 1 job``."""
        if self.info is None:
            return "Starting…"
        if self.mode is NodeMode.DRAINED:
            return "Drained: safe to shut down"
        parts = [self._mode_word(), _count(self.info.models, "model")]
        if self.info.running:
            parts.append(_count(self.info.running, "job"))
        if self.info.waiting:
            parts.append(f"{self.info.waiting} waiting")
        return " · ".join(parts)

    def _mode_word(self) -> str:
        assert self.info is not None  # noqa: S101 # narrows the type; the caller has checked
        if self.mode is NodeMode.PAUSED and self.info.paused_until:
            return f"Paused until {time.strftime('%H:%M', time.localtime(self.info.paused_until))}"
        return {NodeMode.RUNNING: "Running", NodeMode.PAUSED: "Paused"}.get(self.mode, "Draining")


@dataclass(frozen=True)
class Item:
    """One line of the menu. ``action`` None is text; ``checked`` None has no check mark."""

    key: str
    label: str
    action: Action | None = None
    enabled: bool = True
    visible: bool = True
    checked: bool | None = None
    default: bool = False


SEPARATOR: Final = None


def menu(state: TrayState) -> list[Item | None]:
    """The menu for ``state``: always the same keys in the same order, None between groups."""
    notice = "" if state.info is None else state.info.notice
    started = state.info is not None
    running = state.mode is NodeMode.RUNNING
    drain_label = {NodeMode.DRAINING: "Draining…", NodeMode.DRAINED: "Drained: safe to shut down"}
    pause = Item("pause", "Pause", Action.PAUSE, started) if running else Item("pause", "Resume", Action.RESUME)
    draining = state.mode in drain_label
    return [
        Item("status", state.status, enabled=False),
        Item("notice", _shortened(notice), enabled=False, visible=bool(notice)),
        SEPARATOR,
        Item("open", "Open Quorum", Action.OPEN, started, default=True),
        _update_item(state),
        *_peer_items(state.peers),
        SEPARATOR,
        pause,
        Item("pause-hour", "Pause for an hour", Action.PAUSE_HOUR, started and running),
        Item(
            "drain",
            drain_label.get(state.mode, "Drain"),
            Action.RESUME if draining else Action.DRAIN,
            started,
            checked=draining,
        ),
        SEPARATOR,
        Item("copy", "Copy address", Action.COPY, started),
        Item("login", "Start at login", Action.LOGIN, started, checked=state.start_at_login),
        SEPARATOR,
        Item("quit", "Quit", Action.QUIT),
    ]


def _update_item(state: TrayState) -> Item:
    """A newer version, while nothing is done about it yet."""
    update = None if state.info is None else state.info.update
    there = update is not None and update.state == "available"
    label = f"Version {_shortened(update.version)} is there" if update is not None and there else ""
    return Item("update", label, Action.UPDATE, enabled=there, visible=there)


def _peer_items(peers: tuple[PeerInfo, ...]) -> list[Item]:
    """A line for each paired computer, as far as there is room; the keys are always the same."""
    lines = peer_lines(peers)
    shown = [Item(f"peer-{at}", line, Action.PEERS) for at, line in enumerate(lines[:PEERS_SHOWN])]
    unused = [Item(f"peer-{at}", "", Action.PEERS, False, visible=False) for at in range(len(shown), PEERS_SHOWN)]
    more = len(lines) - len(shown)
    return [*shown, *unused, Item("peers-more", f"and {more} more", Action.PEERS, more > 0, visible=more > 0)]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= NOTICE_LENGTH else f"{line[: NOTICE_LENGTH - 1]}…"


class Tray(Protocol):
    """One icon in the system's tray. All methods may be called from any thread."""

    @property
    def available(self) -> bool:
        """Whether a user can reach the icon now; if not, a hidden window would be lost."""

    def show(self, state: TrayState) -> None:
        """Show the icon and make picture, tooltip and menu agree with ``state``."""

    def notify(self, title: str, text: str) -> None:
        """Tell the user something once."""

    def stop(self) -> None:
        """Remove the icon."""


def make_tray(window: Window, perform: Callable[[Action], None]) -> Tray:
    """The tray of this system; ``perform`` is called with what the user clicks and must return at once.

    Call it on the main thread after the window was made and before it runs.
    """
    if sys.platform in {"win32", "darwin"}:
        from app.tray_pystray import PystrayTray

        return PystrayTray(perform, lambda: window.platform.dark_panel)
    from app.tray_qt import QtTray

    tray = QtTray(perform, lambda: window.platform.dark_panel)
    window.platform.on_panel = tray.panel_changed
    return tray
