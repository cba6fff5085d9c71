"""From a checked request to a job in the scheduler: ids, keys, deadlines, and what happens when a client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from ulid import ULID

from router.aio import Clock
from router.answer import Answer
from router.engines.base import Kind
from router.errors import ModelNotFoundError, QuorumError, StoreError
from router.jobs import Job, Origin
from router.registry import Registry
from router.scheduler import Scheduler
from router.settings import Settings
from router.web.canonical import Checked

LOOK_AGAIN: Final = frozenset({"model_not_found", "no_holder_available"})
"""What may have changed since the last look at the engines: one of them came, or came back."""


class Ledger(Protocol):
    """Where accepted jobs are written down."""

    def committed(self, job: Job) -> asyncio.Future[None]: ...
    def refused(self, job: Job) -> None: ...


class Room(Protocol):
    """Whether more can be kept."""

    async def require(self, size: int) -> None: ...


class Intake:
    """The one door through which jobs are made."""

    def __init__(
        self,
        scheduler: Scheduler,
        registry: Registry,
        settings: Settings,
        clock: Clock,
        repoll: Callable[[], Awaitable[None]],
        ledger: Ledger,
        room: Room | None = None,
        person: Callable[[str], str] = str,
    ) -> None:
        self._scheduler = scheduler
        self._registry = registry
        self._settings = settings
        self._clock = clock
        self._repoll = repoll
        self._ledger = ledger
        self._room = room
        self._person = person
        self._seq = 0

    def start_after(self, seq: int) -> None:
        """Number new jobs after ``seq``, the newest row the store knows."""
        self._seq = max(self._seq, seq)

    async def check_model(self, model: str, kind: Kind = Kind.CHAT) -> None:
        """Raise ModelNotFoundError unless somebody holds ``model``; an unknown one gets a second look."""
        try:
            self._registry.find(model, kind)
        except ModelNotFoundError:
            await self._repoll()
            self._registry.find(model, kind)

    def sees(self, model: str) -> bool:
        """Whether somebody who holds ``model`` says that it takes pictures."""
        return any("vision" in info.capabilities for info in self._registry.model_infos() if info.name == model)

    def job(
        self,
        checked: Checked,
        origin: Origin,
        *,
        keep: bool = False,
        chat_id: str | None = None,
        key_id: str | None = None,
        keep_alive_s: float | None = None,
    ) -> Job:
        """A new job, not yet submitted."""
        self._seq += 1
        wall = self._clock.wall()
        return Job(
            id=str(ULID.from_timestamp(wall)),
            seq=self._seq,
            kind=checked.kind,
            origin=origin,
            model=checked.model,
            body=checked.body,
            stream=checked.stream,
            created_at=wall,
            created_mono=self._clock.mono(),
            key_id=key_id,
            chat_id=chat_id,
            keep=keep,
            sees="vision" in checked.needs,
            max_attempts=self._settings["max_attempts"],
            keep_alive_s=keep_alive_s,
            answer=Answer(keep=keep),
        )

    async def submit(self, job: Job) -> Job:
        """[2] Hand it to the scheduler. Raises QuorumError, and then nothing of it stays."""
        if job.keep and self._room is not None:
            await self._room.require(len(job.body))
        try:
            self._enter(job)
        except QuorumError as error:
            if error.code not in LOOK_AGAIN or self._scheduler.stopping:
                raise
            await self._repoll()
            self._enter(job)
        return job

    def _enter(self, job: Job) -> None:
        """Whose turn it takes is asked at the last moment: a key may have been revoked while its request came in."""
        if job.key_id is not None:
            job.person = self._person(job.key_id)
        self._scheduler.submit(job)

    async def accept(self, job: Job) -> Job:
        """The same for a job that is promised: nothing of it runs before its row is on the disk.

        Raises StoreError, too, when it can't be written; ``duplicate`` then means that its Idempotency-Key is taken.
        """
        job.held = True
        await self.submit(job)
        try:
            await self._ledger.committed(job)
        except StoreError:
            self._ledger.refused(job)
            self._scheduler.cancel(job.id)
            raise
        except asyncio.CancelledError:
            self._scheduler.cancel(job.id)
            raise
        self._scheduler.release(job)
        return job

    def client_left(self, job: Job) -> None:
        """The caller went away: its job is cancelled, unless it was asked to live on or this node is what went away."""
        if not job.keep and not self._scheduler.stopping:
            self._scheduler.cancel(job.id)
