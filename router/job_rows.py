"""Jobs on disk: rows, requests, answers, and the chunks of answers that readers may pick up again.

A row that changes several times before the next commit is written once, with what it has become.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

import peewee

from router.job_row import SELECTED, JobRow, drop_bodies, unbind
from router.job_writes import AddAsked, Change, Changes, Prune, SetAnswer
from router.states import JobState
from router.store import Store
from router.work import Params, Work, as_store_error, is_disk_fault, resolve

__all__ = ["JobRow", "JobRows"]

log = logging.getLogger(__name__)

KEPT_ENDED_ROWS: Final = 20_000  # ended rows kept in memory while the disk fails


class JobRows:
    """The table of jobs. Every method is called on the loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._dirty: dict[str, Change] = {}
        self._last_row_id = 0
        self._bytes = 0
        store.attach(self._drain)

    async def open(self) -> None:
        """Read where the row ids go on and how much the kept bodies take; once, after ``Store.open``."""

        def read(db: peewee.SqliteDatabase) -> tuple[int, int]:
            top = db.execute_sql("SELECT ifnull(max(row_id), 0) FROM jobs").fetchone()[0]
            size = db.execute_sql(
                "SELECT ifnull(sum(ifnull(length(request), 0) + ifnull(length(answer), 0)), 0) "
                "+ (SELECT ifnull(sum(length(asked)), 0) FROM responses) FROM bodies"
            ).fetchone()[0]
            return top, size

        self._last_row_id, self._bytes = await self._store.run(read)

    @property
    def last_row_id(self) -> int:
        """The newest row id given so far."""
        return self._last_row_id

    @property
    def bodies_bytes(self) -> int:
        """What stored requests and answers take, for the cap."""
        return self._bytes

    # writing

    def save(self, row: JobRow, request: bytes | None = None) -> None:
        """Write ``row`` as it is when the next batch goes, within milliseconds; nobody is told.

        The request goes with it, unless the job has ended by then and isn't kept: then nothing of it is written,
        or what was written is deleted in the same transaction.
        """
        self._change(row, request).plain = True
        self._store.wake(urgent=False)

    def save_durable(self, row: JobRow, request: bytes | None = None) -> asyncio.Future[None]:
        """The same; the future ends when the row is on the disk, or with StoreError, and then it isn't there.

        ``StoreError.duplicate`` means that the idempotency key (or the peer's try) is taken: see by_idempotency.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._change(row, request).futures.append(future)
        self._store.wake(urgent=True)
        return future

    def _change(self, row: JobRow, request: bytes | None) -> Change:
        change = self._dirty.get(row.id)
        if change is None:
            row.row_id = row.row_id or self._last_row_id + 1
            self._last_row_id = max(self._last_row_id, row.row_id)
            change = self._dirty[row.id] = Change(row)
        change.row = row
        if request is not None:
            change.body = request
        return change

    def _drain(self) -> Sequence[Work]:
        """What changed since the last batch, as it stands now."""
        if not self._dirty:
            return ()
        changes, self._dirty = list(self._dirty.values()), {}
        for change in changes:
            change.prepare()
        return (Changes(changes, self._settled),)

    def _count(self, delta: int) -> None:
        """Bodies on the disk grew by ``delta`` bytes."""
        self._bytes += delta

    def _settled(self, changes: list[Change], delta: int, error: Exception | None) -> None:
        """The writer's report. After a disk fault everything but what a caller is now refused is tried again."""
        disk = error is not None and is_disk_fault(error)
        if error is None:
            self._count(delta)
        elif not disk:
            log.error("the row of a job was refused: %s", as_store_error(error).message)
        for change in changes:
            futures, change.futures = change.futures, []
            change.row.stored = change.row.stored or error is None
            if disk and (change.plain or change.row.stored):
                self._again(change)
            for future in futures:
                resolve(future, error)
        if disk:
            self._bound()

    def _again(self, change: Change) -> None:
        """Keep ``change`` for the next batch; a newer one of the same row takes the body it may lack."""
        newer = self._dirty.setdefault(change.row.id, change)
        if newer.body is None:
            newer.body = change.body

    def _bound(self) -> None:
        """While the disk fails, rows of ended jobs wait in memory; the oldest beyond the limit are let go."""
        ended = [key for key, change in self._dirty.items() if not change.row.state.live and not change.futures]
        for key in ended[: max(0, len(ended) - KEPT_ENDED_ROWS)]:
            del self._dirty[key]

    # chunks, answers, requests

    def append_chunks(self, job_id: str, try_no: int, first_seq: int, data: bytes) -> None:
        """Keep a piece of a kept job's running answer: whole events, the first with number ``first_seq`` in this try.

        What earlier tries said is deleted with it. Within milliseconds; nobody is told.
        """
        self._store.put(
            "DELETE FROM chunks WHERE job = (SELECT row_id FROM jobs WHERE id = ?) AND try_no < ?", (job_id, try_no)
        )
        self._store.put(
            "INSERT INTO chunks (job, try_no, seq, data) SELECT row_id, ?, ?, ? FROM jobs WHERE id = ? AND keep = 1 "
            "ON CONFLICT (job, try_no, seq) DO UPDATE SET data = excluded.data",
            (try_no, first_seq, data, job_id),
        )

    def drop_chunks(self, job_id: str) -> None:
        """Keep nothing of a job's running answer any more. Within milliseconds; nobody is told."""
        self._store.put("DELETE FROM chunks WHERE job = (SELECT row_id FROM jobs WHERE id = ?)", (job_id,))

    async def read_chunks(self, job_id: str, try_no: int, after_seq: int = -1) -> list[tuple[int, bytes]]:
        """The pieces (first seq, data) of one try that may hold events after ``after_seq``, in order."""

        def read(db: peewee.SqliteDatabase) -> list[tuple[int, bytes]]:
            return list(
                db.execute_sql(
                    "SELECT seq, data FROM chunks JOIN jobs ON jobs.row_id = chunks.job "
                    "WHERE jobs.id = ?1 AND chunks.try_no = ?2 "
                    "AND seq >= ifnull((SELECT max(seq) FROM chunks AS earlier "
                    "WHERE earlier.job = jobs.row_id AND earlier.try_no = ?2 AND earlier.seq <= ?3 + 1), 0) "
                    "ORDER BY seq",
                    (job_id, try_no, after_seq),
                ).fetchall()
            )

        return await self._store.read(read)

    def set_answer(self, job_id: str, answer: bytes, content_type: str = "") -> None:
        """Keep the whole answer of a kept job. Within milliseconds; nobody is told."""
        self._store.submit(SetAnswer(job_id, answer, content_type, self._count))

    def set_asked(self, job_id: str, asked: bytes) -> None:
        """Keep what a response was asked beside the body of its job. Within milliseconds; nobody is told."""
        self._store.submit(AddAsked(job_id, asked, self._count))

    async def promise_asked(self, job_id: str, asked: bytes) -> None:
        """The same, on the disk when this returns. Raises StoreError."""
        work = AddAsked(job_id, asked, self._count)
        await self._store.run(work.run)
        self._count(work.delta)

    async def read_answer(self, job_id: str) -> tuple[bytes, str] | None:
        """The answer and its content type, as ``set_answer`` got them."""
        found = await self._one("SELECT answer, answer_type FROM bodies", job_id)
        return None if found is None or found[0] is None else (found[0], found[1] or "")

    async def read_request(self, job_id: str) -> bytes | None:
        """The request as it came."""
        found = await self._one("SELECT request FROM bodies", job_id)
        return None if found is None else found[0]

    async def _one(self, select: str, job_id: str) -> tuple[Any, ...] | None:
        sql = f"{select} JOIN jobs ON jobs.row_id = bodies.job WHERE jobs.id = ?"
        found: tuple[Any, ...] | None = await self._store.read(lambda db: db.execute_sql(sql, (job_id,)).fetchone())
        return found

    async def oldest_ended_body(self) -> float | None:
        """When the oldest job ended of which something is kept; None when there is none."""

        def read(db: peewee.SqliteDatabase) -> float | None:
            found = db.execute_sql(
                "SELECT completed_at FROM bodies JOIN jobs ON row_id = job WHERE completed_at IS NOT NULL "
                "ORDER BY job LIMIT 1"
            ).fetchone()
            return None if found is None else found[0]

        return await self._store.read(read)

    # reading rows

    async def live(self) -> list[tuple[JobRow, bytes]]:
        """Jobs that have not ended, oldest first, with their requests (empty where none was kept): for the start."""

        def read(db: peewee.SqliteDatabase) -> list[tuple[JobRow, bytes]]:
            rows = db.execute_sql(
                f"SELECT request, {SELECTED} FROM jobs LEFT JOIN bodies ON job = jobs.row_id "  # noqa: S608 - constants
                "WHERE state IN ('queued', 'loading', 'working') ORDER BY jobs.row_id"
            )
            found = []
            for request, *columns in rows:
                row = unbind(columns)
                found.append((row, request or b""))
            return found

        return await self._store.run(read)

    async def get(self, job_id: str) -> JobRow | None:
        """The row of one job."""
        rows = await self._select("WHERE id = ?", (job_id,))
        return rows[0] if rows else None

    async def recent(
        self, limit: int, state: JobState | None = None, before: str | None = None, *, key_id: str | None = None
    ) -> list[JobRow]:
        """The newest rows first; ``before`` is the id of the last row of the page before, ``key_id`` whose they are."""
        return await self._select(
            "WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR key_id = ?2) "
            "AND (?3 IS NULL OR row_id < (SELECT row_id FROM jobs WHERE id = ?3)) ORDER BY row_id DESC LIMIT ?4",
            (None if state is None else state.value, key_id, before, limit),
        )

    async def ended(self, limit: int) -> list[JobRow]:
        """The newest rows of jobs that have ended, newest first."""
        return await self._select(
            "WHERE state NOT IN ('queued', 'loading', 'working') ORDER BY row_id DESC LIMIT ?", (limit,)
        )

    async def by_idempotency(self, key_id: str | None, key: str) -> JobRow | None:
        """The job that an earlier request with this Idempotency-Key of the same API key made."""
        rows = await self._select(
            "WHERE coalesce(key_id, '') = ? AND idempotency_key = ? AND idempotency_key IS NOT NULL",
            (key_id or "", key),
        )
        return rows[0] if rows else None

    async def by_origin(self, node: str, job_id: str, try_no: int) -> JobRow | None:
        """The job that a peer's try made here."""
        rows = await self._select("WHERE origin_node = ? AND origin_job = ? AND origin_try = ?", (node, job_id, try_no))
        return rows[0] if rows else None

    async def newest_of_peers(self) -> dict[str, str]:
        """The greatest id of a job that each peer has sent, by the peer's node id."""

        def read(db: peewee.SqliteDatabase) -> dict[str, str]:
            sql = "SELECT origin_node, max(origin_job) FROM jobs WHERE origin_node IS NOT NULL GROUP BY origin_node"
            return dict(db.execute_sql(sql).fetchall())

        return await self._store.run(read)

    async def _select(self, rest: str, params: Params) -> list[JobRow]:
        sql = f"SELECT {SELECTED} FROM jobs {rest}"  # noqa: S608 - own constants
        found = await self._store.read(lambda db: [unbind(columns) for columns in db.execute_sql(sql, params)])
        if self._store.healthy:
            return found
        waiting = {change.row.id: change.row for change in self._dirty.values()}  # what the disk does not take yet
        return [waiting.get(row.id, row) for row in found]

    # forgetting

    async def forget(self, job_id: str) -> None:
        """Delete what a job was asked and what it said; its row stays."""
        if (change := self._dirty.get(job_id)) is not None:
            change.body = None

        def drop(db: peewee.SqliteDatabase) -> int:
            found = db.execute_sql("SELECT row_id FROM jobs WHERE id = ?", (job_id,)).fetchall()
            return drop_bodies(db, found)

        self._count(-await self._store.run(drop))

    async def prune(
        self, before_wall: float, bodies_before: float | None = None, keys_before: float | None = None
    ) -> int:
        """Delete jobs that ended before ``before_wall`` with all they have; how many rows went.

        Requests and answers of jobs that ended before ``bodies_before`` go in any case, as do idempotency keys of those
        that ended before ``keys_before``; a row whose key must still be remembered stays until then.
        """
        bodies_before = before_wall if bodies_before is None else bodies_before
        keys_before = bodies_before if keys_before is None else keys_before
        gone = 0
        after: int | None = 0
        while after is not None:
            rows, freed, after = await self._store.run(Prune(after, before_wall, bodies_before, keys_before))
            gone += rows
            self._count(-freed)
        return gone
