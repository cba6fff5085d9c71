"""Batches: many requests in one file, run as batch-class jobs behind everybody who waits for an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ulid import ULID

from router.aio import Clock, Tasks
from router.archive import Archive
from router.batch_rows import BatchRow, BatchRows
from router.batch_run import BatchRun, Tools
from router.errors import StoreError
from router.files import KEPT_S, FileRow, Files
from router.idempotency import Repeat
from router.intake import Intake
from router.responses import Responses
from router.room import BODIES_S, Room
from router.scheduler import Scheduler
from router.store import Store

log = logging.getLogger(__name__)

LIVE_MAX: Final = 2048
PRUNE_S: Final = 600.0


class Batches:
    """Called on the loop. ``open`` before the first request, ``start`` once jobs may run."""

    def __init__(
        self,
        store: Store,
        files: Files,
        intake: Intake,
        scheduler: Scheduler,
        archive: Archive,
        responses: Responses,
        tasks: Tasks,
        clock: Clock,
        room: Room,
    ) -> None:
        self._rows = BatchRows(store)
        self._room = room
        self._files = files
        self._tasks = tasks
        self._clock = clock
        self._tools = Tools(self._rows, files, intake, scheduler, archive, responses, clock, self._admits)
        self._runs: dict[str, BatchRun] = {}

    async def open(self) -> None:
        """Find what an earlier run of the node left. Raises StoreError."""
        await self._rows.open()
        self._room.share(self._rows)
        self._runs = {row.id: BatchRun(row, self._tools) for row in await self._rows.unfinished()}

    def start(self) -> None:
        """Go on with what was left."""
        for run in self._runs.values():
            self._spawn(run)
        self._tasks.spawn("prune files", self._prune_on())

    def _spawn(self, run: BatchRun) -> None:
        self._runs[run.row.id] = run
        self._tasks.spawn("batch", self._run(run))

    async def _run(self, run: BatchRun) -> None:
        await run.run()
        del self._runs[run.row.id]

    def _admits(self) -> bool:
        return sum(len(run.live) for run in self._runs.values()) < LIVE_MAX

    def reading(self) -> frozenset[str]:
        """The input files that are still needed."""
        return frozenset(run.row.input_file for run in self._runs.values())

    async def once(self, repeat: Repeat, make: Callable[[], Awaitable[BatchRow]]) -> BatchRow:
        """The batch of this key: the one there is, as it stands, else what ``make`` gives. Raises QuorumError."""
        try:
            return await self._of(repeat) or await make()
        except StoreError as error:
            row = await self._of(repeat) if error.duplicate else None  # another request made it meanwhile
            if row is None:
                raise
            return row

    async def _of(self, repeat: Repeat) -> BatchRow | None:
        row = await self._rows.by_idempotency(repeat.key_id, repeat.key)
        if row is None:
            return None
        repeat.check(row.request_hash)
        return self._now(row)

    async def create(
        self,
        file: FileRow,
        *,
        endpoint: str,
        metadata: dict[str, str],
        key_id: str | None,
        keep_output_s: float | None,
        repeat: Repeat | None = None,
    ) -> BatchRow:
        """A new batch, on the disk when this returns; its lines are checked and run after that.

        A client that leaves meanwhile changes nothing. Raises QueueFullError unless there is room for results about as
        large as what is asked, StoreError.
        """
        await self._room.require(file.size)
        now = self._clock.wall()
        row = BatchRow(
            id=f"batch_{ULID.from_timestamp(now)}",
            key_id=key_id,
            endpoint=endpoint,
            input_file=file.id,
            metadata=metadata,
            keep_output_s=keep_output_s,
            created_at=now,
            idempotency_key=repeat.key if repeat is not None else None,
            request_hash=repeat.request_hash if repeat is not None else None,
        )
        refusal = await asyncio.shield(self._tasks.spawn("accept batch", self._accept(row)))
        if refusal is not None:
            raise refusal
        return row

    async def _accept(self, row: BatchRow) -> StoreError | None:
        """Store ``row`` and let it run; why it could not be stored."""
        run = self._runs[row.id] = BatchRun(row, self._tools)  # its file must not be deleted from now on
        try:
            await self._rows.insert(row)
        except BaseException as error:
            del self._runs[row.id]
            if isinstance(error, StoreError):
                return error
            raise
        self._spawn(run)
        return None

    async def get(self, batch_id: str, key_id: str | None) -> BatchRow | None:
        """One batch as it stands; None when there is none of this id, or it is another key's."""
        row = await self._rows.get(batch_id, key_id)
        return None if row is None else self._now(row)

    async def page(self, key_id: str | None, after: str | None, limit: int) -> list[BatchRow]:
        """The newest first, from the one after ``after``."""
        return [self._now(row) for row in await self._rows.page(key_id, after, limit)]

    def _now(self, row: BatchRow) -> BatchRow:
        run = self._runs.get(row.id)
        return row if run is None else run.row

    async def cancel(self, row: BatchRow) -> BatchRow:
        """End it; one that has ended, or has all its results, stays as it is. Raises StoreError."""
        run = self._runs.get(row.id)
        if run is None:
            return row
        await run.cancel()
        return run.row

    async def _prune_on(self) -> None:
        """Files leave when their time is over, batches a month after they were made."""
        while True:
            try:
                await self._rows.drop_leftovers()
                await self._files.prune(self.reading())
                now = self._clock.wall()
                await self._rows.prune(now - KEPT_S, now - BODIES_S)
            except StoreError as error:
                log.warning("old files can't be deleted now: %s", error.message)
            await asyncio.sleep(PRUNE_S)


def told(row: BatchRow) -> dict[str, Any]:
    """A batch as OpenAI's API shows it. It has no deadline: it runs until it is done."""
    times = {
        f"{name}_at": None if (at := getattr(row, f"{name}_at")) is None else int(at)
        for name in ("in_progress", "finalizing", "completed", "failed", "cancelling", "cancelled")
    }
    usage = {
        "input_tokens": row.input_tokens,
        "input_tokens_details": {"cached_tokens": row.cached_tokens},
        "output_tokens": row.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": row.input_tokens + row.output_tokens,
    }
    return {
        "id": row.id,
        "object": "batch",
        "endpoint": row.endpoint,
        "errors": {"object": "list", "data": row.errors} if row.errors else None,
        "input_file_id": row.input_file,
        "completion_window": "24h",
        "status": row.status,
        "output_file_id": row.output_file,
        "error_file_id": row.error_file,
        "created_at": int(row.created_at),
        "expires_at": None,
        "expired_at": None,
        **times,
        "request_counts": {"total": row.total, "completed": row.completed, "failed": row.failed},
        "usage": usage if row.output_file is not None else None,
        "metadata": row.metadata,
    }
