"""How much of prompts and answers is kept, and for how long."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from router.aio import Clock
from router.errors import QueueFullError, StoreError
from router.job_rows import JobRows
from router.settings import Settings

log = logging.getLogger(__name__)

MIB: Final = 1024 * 1024
BODIES_S: Final = 86_400.0
PRUNE_S: Final = 600.0


class Room:
    """The room for kept prompts and answers (setting ``bodies_mib``): nothing kept is dropped to make more of it."""

    def __init__(self, rows: JobRows, settings: Settings, clock: Clock) -> None:
        self._rows = rows
        self._settings = settings
        self._clock = clock

    async def require(self, size: int) -> None:
        """Raise QueueFullError unless ``size`` more bytes fit; its time is when the next kept ones will have left."""
        if self._rows.bodies_bytes + size <= self._settings["bodies_mib"] * MIB:
            return
        oldest = await self._rows.oldest_ended_body()
        now = self._clock.wall()
        leaves = (now if oldest is None else oldest) + self._kept_s
        raise QueueFullError(
            max(0.0, leaves - now) + PRUNE_S,
            "The room for prompts and answers that are kept is used up.",
            "Try again when older ones have left, or give more in the setting 'Room for prompts and answers'.",
        )

    @property
    def _kept_s(self) -> float:
        return min(BODIES_S, float(self._settings["job_ttl"]))

    async def prune_on(self) -> None:
        """Ended jobs leave after their time, what they said after a day."""
        while True:
            now = self._clock.wall()
            try:
                await self._rows.prune(now - self._settings["job_ttl"], now - BODIES_S)
            except StoreError as error:
                log.warning("old jobs can't be deleted now: %s", error.message)
            await asyncio.sleep(PRUNE_S)
