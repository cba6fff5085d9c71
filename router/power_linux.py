"""Sleep on Linux: logind's signals and locks on the system bus; without its lock the desktop's on the session bus."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from router.aio import Tasks
from router.dbus import Body, DBus, DBusError, close_all
from router.power import APP, PARTING, SERVING, Told

log = logging.getLogger(__name__)

LOGIND: Final = "org.freedesktop.login1"
MANAGER: Final = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
AGAIN_S: Final = 30.0
SUSPEND: Final = 4  # of the portal's flags


@dataclass(frozen=True, slots=True)
class _Desk:
    """A desktop's lock: how it is asked for, and how it is given back with what it answered."""

    ask: tuple[str, str, str, str, str, Body]
    back: Callable[[Any], tuple[str, str, str, str, str, Body]]


_PORTAL: Final = "org.freedesktop.portal.Desktop"
_SAVER: Final = ("org.freedesktop.ScreenSaver", "/org/freedesktop/ScreenSaver", "org.freedesktop.ScreenSaver")
_DESKS: Final = (
    _Desk(
        (
            _PORTAL,
            "/org/freedesktop/portal/desktop",
            "org.freedesktop.portal.Inhibit",
            "Inhibit",
            "sua{sv}",
            ("", SUSPEND, {"reason": ("s", SERVING)}),
        ),
        lambda handle: (_PORTAL, str(handle), "org.freedesktop.portal.Request", "Close", "", ()),
    ),
    _Desk(
        (*_SAVER, "Inhibit", "ss", (APP, SERVING)),
        lambda cookie: (*_SAVER, "UnInhibit", "u", (cookie,)),
    ),
)


class Logind:
    """``system`` and ``session`` name the buses, as ``DBus.open`` takes them."""

    def __init__(self, tasks: Tasks, *, system: str = "SYSTEM", session: str = "SESSION") -> None:
        self._tells = "not asked yet"
        self._keeps = ""
        self._tasks = tasks
        self._names = {"system": system, "session": session}
        self._told: Told | None = None
        self._bus: DBus | None = None
        self._desk: DBus | None = None
        self._delay: Any = None
        self._lock: Any = None
        self._give_back: Callable[[], Awaitable[None]] | None = None
        self._broke = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._parting: asyncio.Task[None] | None = None
        self._said: set[str] = set()

    # -- life

    async def start(self, told: Told) -> None:
        """Ask logind; where it can't be had now, again by and by."""
        self._told = told
        await self._connect()
        self._task = self._tasks.spawn("power", self._keep())

    async def stop(self) -> None:
        """Give all locks back."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.release()
        self._drop()
        if self._desk is not None:
            self._desk.close()

    async def _keep(self) -> None:
        """Connect anew after the bus or logind went."""
        while True:
            if self._bus is not None:
                await self._broke.wait()
                self._drop()
            await asyncio.sleep(AGAIN_S)
            await self._connect()

    async def _connect(self) -> None:
        self._broke.clear()
        try:
            self._bus = bus = await DBus.open(self._names["system"], self._tasks)
            bus.on_close = self._broke.set
            with contextlib.suppress(DBusError):  # starts one that waits for being asked
                await bus.call(LOGIND, MANAGER[1], "org.freedesktop.DBus.Peer", "Ping")
            await bus.listen(LOGIND, MANAGER[2], "PrepareForSleep", self._sleep_told)
            await bus.listen(LOGIND, MANAGER[2], "PrepareForShutdown", self._shutdown_told)
            with contextlib.suppress(DBusError):  # who may not delay a sleep may still hear of it
                self._delay = await self._inhibit("sleep:shutdown", PARTING, "delay")
        except DBusError as error:
            self._drop()
            self._tells = "there is no logind"
            self._say(str(error))
        else:
            self._tells = "logind tells of it" if self._delay is None else "logind waits for goodbyes"
            self._say()

    def _drop(self) -> None:
        for lock in (self._delay, self._lock):
            _close(lock)
        self._delay = self._lock = None
        if self._bus is not None:
            self._bus.close()
            self._bus = None

    @property
    def detail(self) -> str:
        """What of it works."""
        return "; ".join(filter(None, (self._tells, self._keeps)))

    def _say(self, why: str = "") -> None:
        """Log once what is so."""
        if self.detail not in self._said:
            self._said.add(self.detail)
            log.info("sleep of this computer: %s", f"{self.detail} ({why})" if why else self.detail)

    # -- what logind tells

    def _sleep_told(self, body: Body) -> None:
        if self._told is None or not body:
            return
        if body[0]:
            self._parting = self._tasks.spawn("before sleep", self._part())
        else:
            self._told.woke()
            self._tasks.spawn("after sleep", self._delay_again())

    async def _part(self) -> None:
        """Goodbyes first; then logind may go on."""
        try:
            if self._told is not None:
                await self._told.sleeps()
        finally:
            lock, self._delay = self._delay, None
            _close(lock)

    async def _delay_again(self) -> None:
        if self._parting is not None:
            await asyncio.gather(self._parting, return_exceptions=True)
        if self._delay is None and self._bus is not None:
            with contextlib.suppress(DBusError):
                self._delay = await self._inhibit("sleep:shutdown", PARTING, "delay")

    def _shutdown_told(self, body: Body) -> None:
        """logind waits for the lock, which goes with this process."""
        if self._told is not None and body and body[0]:
            self._told.shuts_down()

    async def _inhibit(self, what: str, why: str, mode: str) -> Any:
        """The lock; it holds while it is open. Raises DBusError."""
        if self._bus is None:
            raise DBusError("there is no system bus")
        answer = await self._bus.call(*MANAGER, "Inhibit", "ssss", (what, APP, why, mode))
        if len(answer) != 1 or not hasattr(answer[0], "to_raw_fd"):
            close_all(answer)
            raise DBusError("logind gave no lock")
        return answer[0]

    # -- staying awake

    async def hold(self) -> bool:
        """logind's lock, else the desktop's."""
        if self._lock is not None or self._give_back is not None:
            return True
        self._keeps = ""
        try:
            self._lock = await self._inhibit("sleep", SERVING, "block")
        except DBusError as error:
            refused = str(error)
        else:
            return True
        for desk in _DESKS:
            with contextlib.suppress(DBusError):
                await self._ask(desk)
                return True
        self._keeps = "nobody keeps it awake"
        self._say(refused)
        return False

    async def _ask(self, desk: _Desk) -> None:
        if self._desk is None:
            self._desk = await DBus.open(self._names["session"], self._tasks)
            self._desk.on_close = self._desk_gone
        bus = self._desk
        answer = await bus.call(*desk.ask)
        back = desk.back(answer[0] if answer else 0)

        async def give_back() -> None:
            await bus.call(*back)

        self._give_back = give_back

    def _desk_gone(self) -> None:
        self._desk = self._give_back = None

    async def release(self) -> None:
        """Whichever is held."""
        lock, self._lock = self._lock, None
        _close(lock)
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            with contextlib.suppress(DBusError):
                await give_back()


def _close(lock: Any) -> None:
    if lock is not None:
        with contextlib.suppress(OSError, RuntimeError):
            lock.close()
