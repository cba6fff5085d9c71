"""How much of prompts and answers is kept, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
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
        self._changed = asyncio.Event()
        settings.listen(self._settings_changed)

    def _settings_changed(self, names: frozenset[str]) -> None:
        if names & {"forget_bodies", "job_ttl"}:
            self._changed.set()

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
        return 0.0 if self._settings["forget_bodies"] else min(BODIES_S, float(self._settings["job_ttl"]))

    async def prune_on(self) -> None:
        """Ended jobs leave after their time, what they said after a day, or at once where the settings say so."""
        while True:
            self._changed.clear()
            now = self._clock.wall()
            kept_s = 0.0 if self._settings["forget_bodies"] else BODIES_S
            try:
                await self._rows.prune(now - self._settings["job_ttl"], now - kept_s, now - BODIES_S)
            except StoreError as error:
                log.warning("old jobs can't be deleted now: %s", error.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PRUNE_S):
                    await self._changed.wait()
