"""The life of the desktop: node, window and tray, and what closing and quitting mean.

The main thread runs the window's loop, a thread of ``service`` the node's. What the user asks for is queued and done
in order by a third thread, so that neither loop ever waits for a question or for the other.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from app import autostart, display
from app.commands.output import complain
from app.memory import recall, save
from app.service import BadRequestError, NodeInfo, NodeMode, PeerInfo, Service, StartError
from app.tray import Action, Tray, TrayState, make_tray, menu

if TYPE_CHECKING:
    from app.window import Platform, Window
    from router.settings import NodeOptions, Value

log = logging.getLogger(__name__)

HOUR_S: Final = 3600.0


class Desktop:
    """Node, window and tray of one run."""

    def __init__(self, options: NodeOptions, service: Service, *, hidden: bool) -> None:
        self.service = service
        self.window: Window | None = None
        self._hidden = hidden
        self._memory_path = options.data_dir / "window.json"
        self._memory = recall(self._memory_path)
        self._autostart = autostart.for_this_system(autostart.command(options.data_dir))
        self._todo: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._quitting = threading.Event()
        self._state = TrayState()
        self._tray: Tray | None = None
        self._platform: Platform | None = None
        service.on_info = lambda info: self._do(self._info_changed, info)
        service.on_peers = lambda peers: self._do(self._peers_changed, peers)
        service.on_setting = lambda name, value: self._do(self._setting_changed, name, value)
        service.on_show = lambda: self._do(self._show)
        service.on_quit = self.quit_now
        service.on_end = self._node_ended

    def can_draw(self) -> bool:
        """Try the display, and note how to draw on it. Forks, so call it before anything has started a thread."""
        here = display.fingerprint()
        same = self._memory.drawn_on == here
        crashed = self._memory.starting and same
        known = display.Drawing.SOFTWARE if self._memory.software else display.Drawing.HARDWARE
        drawing = display.Trial(known if same and not crashed else None).result()
        if drawing is display.Drawing.IMPOSSIBLE:
            return False
        if crashed:
            drawing = display.Drawing.SOFTWARE  # the trial did not see what broke the real window
        display.prepare()
        software = drawing is not display.Drawing.HARDWARE
        if software:
            display.draw_by_software()
        self._memory.starting = True
        self._memory.software = software
        self._memory.drawn_on = "" if drawing is display.Drawing.UNSURE else here
        save(self._memory, self._memory_path)
        return True

    def run(self) -> int:
        """Until quit; the exit code."""
        _on_signals(self.quit_now)
        self.service.begin()
        from app.window import make_platform

        self._platform = platform = make_platform()
        try:
            self.service.wait()
        except StartError as error:
            self._drawn()
            if self._quitting.is_set():
                return 0
            complain(error.message, error.hint)
            platform.alert("Quorum can't start", f"{error.message}\n\n{error.hint}")
            return 1
        return self._run_window(platform)

    def _run_window(self, platform: Platform) -> int:
        from app.window import Window

        service = self.service
        theme = str(service.setting("theme"))
        window = Window(platform, service.address, service.token, self._memory, hidden=self._hidden, theme=theme)
        window.may_close = self._may_close
        window.on_drawn = self._drawn
        window.before_show = lambda: _on_signals(self.quit_now)  # pywebview takes SIGINT for itself
        platform.on_session_end = self._session_ends
        platform.on_page_lost = lambda: self._do(self._page_lost)
        self.window = window
        self._tray = make_tray(window, self._clicked)
        self._do(self._begin)
        threading.Thread(target=self._work, name="desktop", daemon=True).start()
        try:
            if not self._quitting.is_set():
                window.run()
        finally:
            self._quitting.set()
            self._todo.put(None)
            self._tray.stop()
            platform.finish()
            save(self._memory, self._memory_path)
            stopped = service.stop()
        return 0 if stopped and not service.failed else 1

    # What is done in the desktop's own thread, in order.

    def _do(self, what: Callable[..., None], *args: object) -> None:
        self._todo.put(lambda: what(*args))

    def _work(self) -> None:
        while (what := self._todo.get()) is not None:
            try:
                what()
            except Exception:
                log.exception("the desktop could not do what was asked")

    def _begin(self) -> None:
        self._info_changed(self.service.info())
        wanted = bool(self.service.setting("start_at_login"))
        self._reconcile_login(wanted if self.service.chosen("start_at_login") else None)

    def _info_changed(self, info: NodeInfo) -> None:
        drained = info.mode is NodeMode.DRAINED and self._state.mode is not NodeMode.DRAINED
        self._show_state(replace(self._state, info=info))
        if drained and self._tray is not None:
            self._tray.notify("Quorum is drained", "No job runs here any more: it is safe to shut down.")

    def _peers_changed(self, peers: list[PeerInfo]) -> None:
        self._show_state(replace(self._state, peers=tuple(peers)))

    def _show_state(self, state: TrayState) -> None:
        old, self._state = self._state, state
        if self._tray is not None and (state.look, menu(state)) != (old.look, menu(old)):
            self._tray.show(state)

    def _setting_changed(self, name: str, value: Value) -> None:
        if name == "start_at_login":
            self._reconcile_login(bool(value))
        elif name == "theme" and self.window is not None:
            self.window.platform.set_theme(str(value))

    def _reconcile_login(self, wanted: bool | None) -> None:
        try:
            becomes = autostart.reconcile(self._autostart, wanted)
        except OSError as error:
            log.warning("start at login can't be switched: %s", error)
            becomes = False
        if becomes != bool(wanted):
            self._set_login(becomes)
        self._show_state(replace(self._state, start_at_login=becomes))

    def _set_login(self, value: bool) -> None:
        try:
            self.service.set("start_at_login", value)
        except BadRequestError as error:
            log.warning("%s", error.message)
            if self._tray is not None:
                self._tray.notify("Start at login", error.message)

    def _show(self) -> None:
        if self.window is not None:
            self.window.show()

    def _show_page(self, name: str) -> None:
        self._show()
        if self.window is not None and self.window.shows_own_page():
            self.window.run_js(f"location.hash = '#/{name}'; 0")

    def _clicked(self, action: Action) -> None:
        self._do(self._perform, action)

    def _perform(self, action: Action) -> None:
        match action:
            case Action.OPEN:
                self._show()
            case Action.PEERS:
                self._show_page("peers")
            case Action.UPDATE:
                self._show_page("settings")
            case Action.PAUSE:
                self.service.pause()
            case Action.PAUSE_HOUR:
                self.service.pause(HOUR_S)
            case Action.RESUME:
                self.service.resume()
            case Action.DRAIN:
                self.service.drain()
            case Action.COPY:
                if self._platform is not None:
                    self._platform.copy(f"{self.service.address}/v1")
            case Action.LOGIN:
                self._set_login(not self._state.start_at_login)
            case Action.QUIT:
                self._quit()

    # Closing and quitting.

    def _may_close(self) -> bool:
        """On the GUI thread: closing hides, or asks where nothing would bring the window back."""
        if self._quitting.is_set():
            return True
        self._do(self._hide if self._tray is not None and self._tray.available else self._ask_to_keep)
        return False

    def _hide(self) -> None:
        if self.window is not None:
            self.window.hide()
            save(self._memory, self._memory_path)

    def _page_lost(self) -> None:
        if self.window is None or self._platform is None or not self.window.visible:
            return
        detail = "It ended twice within a minute. Quorum itself still runs, and programs get their answers."
        if self.window.ask("The window's page has stopped", detail, "Load it again", "Not now"):
            self._platform.load_again(self.window.native)

    def _ask_to_keep(self) -> None:
        if self.window is None:
            return
        answer = self.window.ask(
            "Keep Quorum running?",
            "This desktop shows no tray icons. Quorum can go on without its window; start it again to see it.",
            "Quit",
            "Keep running",
        )
        if answer is True:
            self._quit()
        elif answer is False:
            self._hide()

    def _quit(self) -> None:
        try:
            guests = self.service.running_for_others()
        except (TimeoutError, RuntimeError):
            guests = 0  # a node that does not answer must not keep the user from quitting
        if guests and self.window is not None:
            jobs = "A job of somebody else runs" if guests == 1 else f"{guests} jobs of other people run"
            they = "It gets" if guests == 1 else "They get"
            detail = f"{jobs} on this computer. {they} 10 seconds to finish; what is left then must begin again."
            if not self.window.ask("Quit Quorum?", detail, "Quit", "Keep running"):
                return
        self.quit_now()

    def quit_now(self) -> None:
        """End without asking, gracefully; from any thread and from signal handlers."""
        if self._quitting.is_set():
            return
        self._quitting.set()
        if self.window is not None:
            threading.Thread(target=self.window.destroy, name="quit", daemon=True).start()
            return
        threading.Thread(target=self.service.stop, name="stop", daemon=True).start()
        if self._platform is not None:
            self._platform.interrupt()

    def _node_ended(self) -> None:
        """On the node's thread: it ended although nobody asked it to."""
        complain("Quorum's node has stopped working.", "See the log, then start Quorum again.")
        self.quit_now()

    def _session_ends(self) -> None:
        """On the GUI thread at log-out: the process may be killed soon, so the node stops at once."""
        self._quitting.set()
        if self.window is not None:
            self.window.note_place()
        save(self._memory, self._memory_path)
        self.service.stop()

    def _drawn(self) -> None:
        if self._memory.starting:
            self._memory.starting = False
            save(self._memory, self._memory_path)


def _on_signals(handler: Callable[[], object]) -> None:
    """SIGINT, SIGTERM and, where there is one, SIGHUP; only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, lambda *_: handler())
