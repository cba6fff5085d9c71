"""``Idempotency-Key``: the same request sent again is the same job, while it runs, when it has ended, after a restart.

A key belongs to one API key and is remembered until 24 h after its job ended (``JobRows.prune`` frees it).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from router.aio import Tasks
from router.archive import Archive
from router.errors import BadRequestError, QuorumError, StoreError
from router.intake import Intake
from router.job_row import JobRow
from router.job_rows import JobRows
from router.jobs import Job
from router.states import JobState

HEADER: Final = "Idempotency-Key"
_KEY: Final = re.compile(r"[ -~]{1,255}")

Make: TypeAlias = Callable[[], Awaitable[Job]]


@dataclass(frozen=True, slots=True)
class Repeat:
    """One request that may have come before: whose key, which, and the SHA-256 of its path and raw body."""

    key_id: str | None
    key: str
    request_hash: str

    @classmethod
    def of(cls, given: Sequence[str], key_id: str | None, path: str, body: bytes) -> Repeat:
        """``given`` are the header's values. Raises BadRequestError unless it is one good key."""
        if len(given) != 1 or _KEY.fullmatch(given[0]) is None:
            raise BadRequestError(f"'{HEADER}' must be one text of 1 to 255 printable ASCII characters.", field=HEADER)
        return cls(key_id, given[0], hashlib.sha256(path.encode() + b"\n" + body).hexdigest())

    def check(self, request_hash: str | None) -> None:
        """Raise QuorumError (conflict) unless it was the same request that came before."""
        if request_hash != self.request_hash:
            raise QuorumError("conflict", f"This {HEADER} came before with another request.")


@dataclass(frozen=True, slots=True)
class _Claim:
    """A key whose job is being made or looked up just now."""

    request_hash: str
    task: asyncio.Task[Job | QuorumError]


class Once:
    """Makes each job once."""

    def __init__(self, rows: JobRows, archive: Archive, intake: Intake, tasks: Tasks) -> None:
        self._rows = rows
        self._archive = archive
        self._intake = intake
        self._tasks = tasks
        self._claims: dict[tuple[str | None, str], _Claim] = {}

    async def job(self, repeat: Repeat, make: Make) -> Job:
        """The job of this key: the one there is, live or as it ended, else what ``make`` gives, accepted (durable).

        Raises QuorumError: ``conflict`` for another request under the same key, or why no job could be made; then the
        key stays free. A client that leaves meanwhile changes nothing.
        """
        who = (repeat.key_id, repeat.key)
        claim = self._claims.get(who)
        if claim is None:
            task = self._tasks.spawn("accept", self._first(repeat, make))
            claim = self._claims[who] = _Claim(repeat.request_hash, task)
            task.add_done_callback(lambda _: self._claims.pop(who, None))
        repeat.check(claim.request_hash)
        job = await asyncio.shield(claim.task)
        if isinstance(job, QuorumError):
            raise job
        return job

    async def answered(self, repeat: Repeat, make: Make) -> Job:
        """The same, for a client that waits for the answer. Raises QuorumError, too, when that is kept no more."""
        job = await self.job(repeat, make)
        if job.state is JobState.DONE and not job.answer.chunks:
            raise QuorumError(
                "conflict", "This request was answered before, and its answer is not kept any more.", "Use another key."
            )
        return job

    async def _first(self, repeat: Repeat, make: Make) -> Job | QuorumError:
        try:
            row = await self._rows.by_idempotency(repeat.key_id, repeat.key)
            return await (self._made(repeat, make) if row is None else self._found(repeat, row))
        except QuorumError as error:
            return error

    async def _made(self, repeat: Repeat, make: Make) -> Job:
        job = await make()
        job.keep = job.answer.keep = True
        job.idempotency_key, job.request_hash = repeat.key, repeat.request_hash
        try:
            return await self._intake.accept(job)
        except StoreError as error:
            row = await self._rows.by_idempotency(repeat.key_id, repeat.key) if error.duplicate else None
            if row is None:
                raise
            return await self._found(repeat, row)

    async def _found(self, repeat: Repeat, row: JobRow) -> Job:
        repeat.check(row.request_hash)
        job = await self._archive.job(row.id)
        if job is None:  # its time ended between two reads
            raise QuorumError("conflict", "The job of this key was deleted just now.", "Send the request again.")
        return job
