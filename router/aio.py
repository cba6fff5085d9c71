"""Tasks and clocks: every task of the node is started here, so that none is lost and none dies silently."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, Protocol

from router import awake

log = logging.getLogger(__name__)


class Clock(Protocol):
    """Time as the scheduler sees it: ``wall`` in Unix seconds (may jump), ``mono`` in seconds awake (never does)."""

    def wall(self) -> float: ...
    def mono(self) -> float: ...


class SystemClock:
    """The machine's own clock."""

    wall = staticmethod(time.time)
    mono = staticmethod(awake.mono)


class Tasks:
    """The tasks of one node; ``close`` cancels and awaits whatever still runs."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(self, name: str, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start ``coro`` as a task called ``name``; an exception it ends with is logged."""
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task %s ended with %s", task.get_name(), type(error).__name__, exc_info=error)

    def __len__(self) -> int:
        return len(self._running)

    async def close(self) -> None:
        """Cancel all and wait until they have ended."""
        mine = [task for task in self._running if task is not asyncio.current_task()]
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)
