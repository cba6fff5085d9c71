"""Pause, drain and resume: what they mean for the scheduler and for models in memory, and what outlives a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from router.aio import Clock, Tasks
from router.identity import write_private
from router.scheduler import Scheduler
from router.states import NodeMode

log = logging.getLogger(__name__)

LOOK_S = 15.0


class _Saved(msgspec.Struct):
    paused: bool = False
    until: float | None = None


class Mode:
    """Pause survives a restart, drain does not. ``changed`` hears of every change."""

    def __init__(
        self,
        scheduler: Scheduler,
        path: Path,
        tasks: Tasks,
        clock: Clock,
        unload: Callable[[], Awaitable[None]],
        changed: Callable[[], None],
    ) -> None:
        self.paused_until: float | None = None
        self._scheduler = scheduler
        self._path = path
        self._tasks = tasks
        self._clock = clock
        self._unload = unload
        self._changed = changed
        self._timer: asyncio.TimerHandle | None = None
        self._unloaded = False

    def restore(self) -> None:
        """Take up the pause of an earlier run, if it isn't over."""
        try:
            saved = msgspec.json.decode(self._path.read_bytes(), type=_Saved)
        except (OSError, ValueError, msgspec.MsgspecError):
            return
        left = None if saved.until is None else saved.until - self._clock.wall()
        if saved.paused and (left is None or left > 0):
            self.pause(left)

    def pause(self, for_s: float | None) -> None:
        """Start nothing new; what runs finishes, then models leave memory. ``for_s`` None: until resumed."""
        self.paused_until = None if for_s is None else self._clock.wall() + for_s
        self._unloaded = False
        self._set(NodeMode.PAUSED)
        self._wait()
        self.job_ended()

    def _wait(self) -> None:
        """Resume when the pause is over. Looked at often: the loop's clock stands still while the computer sleeps."""
        if self.paused_until is None:
            return
        left_s = self.paused_until - self._clock.wall()
        if left_s <= 0:
            self.resume()
        else:
            self._timer = asyncio.get_running_loop().call_later(min(left_s, LOOK_S), self._wait)

    def drain(self) -> None:
        """Start nothing new and say when nothing runs any more."""
        self.paused_until = None
        self._set(NodeMode.DRAINING)

    def resume(self) -> None:
        """Take work again."""
        self.paused_until = None
        self._set(NodeMode.RUNNING)

    def job_ended(self) -> None:
        """Nothing runs any more while paused: free the memory, once."""
        if self._scheduler.mode is NodeMode.PAUSED and not self._scheduler.running_here and not self._unloaded:
            self._unloaded = True
            self._tasks.spawn("unload", self._unload_models())

    async def _unload_models(self) -> None:
        await self._unload()

    def _set(self, mode: NodeMode) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._scheduler.set_mode(mode)
        saved = _Saved(paused=mode is NodeMode.PAUSED, until=self.paused_until)
        try:
            write_private(self._path, msgspec.json.encode(saved))
        except OSError as error:  # it counts for this run all the same
            log.warning("whether this node is paused could not be saved: %s", error.strerror)
        self._changed()
