"""Keeps this computer awake while jobs run on it, for its user or others, and not longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from router.aio import Tasks
from router.power import Power

LINGER_S: Final = 5.0


class WakeLock:
    """From ``start`` to ``stop``. ``begun`` is told when a job may have begun here; ends are looked for.

    ``running``: whether one runs here now; ``wanted``: whether the user wants it. ``changed`` hears of ``held``.
    """

    def __init__(
        self,
        power: Power,
        tasks: Tasks,
        running: Callable[[], bool],
        wanted: Callable[[], bool],
        changed: Callable[[], None] = lambda: None,
        *,
        linger_s: float = LINGER_S,
    ) -> None:
        self.held = False
        self._power = power
        self._tasks = tasks
        self._running = running
        self._wanted = wanted
        self._changed = changed
        self._linger_s = linger_s
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = self._tasks.spawn("wake lock", self._keep())

    async def stop(self) -> None:
        """The computer may sleep."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self.held:
            await self._power.release()
            self._show(False)

    @property
    def knows(self) -> bool:
        """Whether it knows that jobs run: ``begun`` tells it nothing new."""
        return self._work.is_set()

    def begun(self) -> None:
        """A job runs here."""
        self._work.set()

    async def _keep(self) -> None:
        while True:
            await self._work.wait()
            while self._running():
                if self._wanted():
                    self._show(await self._power.hold())  # each time: whoever gave the lock may have gone
                elif self.held:
                    await self._power.release()
                    self._show(False)
                await asyncio.sleep(self._linger_s)
            self._work.clear()
            if self.held:
                await self._power.release()
                self._show(False)

    def _show(self, held: bool) -> None:
        if held is not self.held:
            self.held = held
            self._changed()
