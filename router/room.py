"""How much of prompts and answers is kept, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final, Protocol

from router.aio import Clock
from router.errors import QueueFullError, StoreError
from router.job_rows import JobRows
from router.settings import Settings

log = logging.getLogger(__name__)

MIB: Final = 1024 * 1024
BODIES_S: Final = 86_400.0
PRUNE_S: Final = 600.0


class Share(Protocol):
    """Something beside the bodies of jobs that takes room."""

    @property
    def kept_bytes(self) -> int: ...
    async def leaves_at(self) -> float | None:
        """When the next of it leaves by itself; None when nothing of it does."""


class Room:
    """The room for kept prompts, answers, files and results (setting ``bodies_mib``).

    Nothing kept is dropped to make more of it.
    """

    def __init__(self, rows: JobRows, settings: Settings, clock: Clock) -> None:
        self._rows = rows
        self._shares: list[Share] = []
        self._settings = settings
        self._clock = clock
        self._changed = asyncio.Event()
        settings.listen(self._settings_changed)

    def _settings_changed(self, names: frozenset[str]) -> None:
        if names & {"forget_bodies", "job_ttl"}:
            self._changed.set()

    def share(self, share: Share) -> None:
        """Count ``share``, too."""
        self._shares.append(share)

    @property
    def left(self) -> int:
        """Bytes that still fit; negative when the setting was made smaller than what is kept."""
        used = self._rows.bodies_bytes + sum(share.kept_bytes for share in self._shares)
        return int(self._settings["bodies_mib"]) * MIB - used

    async def require(self, size: int) -> None:
        """Raise QueueFullError unless ``size`` more bytes fit; its time is when the next kept ones will have left."""
        if size <= self.left:
            return
        now = self._clock.wall()
        raise QueueFullError(
            max(0.0, await self._leaves_at(now) - now) + PRUNE_S,
            "The room for prompts and answers that are kept is used up.",
            "Try again when older ones have left, or give more in the setting 'Room for prompts and answers'.",
        )

    async def _leaves_at(self, now: float) -> float:
        oldest = await self._rows.oldest_ended_body()
        times = [at for share in self._shares if (at := await share.leaves_at()) is not None]
        if oldest is not None or not times:
            times.append((now if oldest is None else oldest) + self._kept_s)
        return min(times)

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
