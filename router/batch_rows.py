"""The tables of batches and their lines. Results stay with their lines until the batch has written its files."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import peewee

from router.files import FileRow
from router.store import Store
from router.work import Bulk

STEP_LINES: Final = 256
UNFINISHED: Final = ("validating", "in_progress", "finalizing", "cancelling")
_ID: Final = re.compile(r"batch_[0-9A-Z]{26}")
_UNFINISHED: Final = ", ".join(f"'{status}'" for status in UNFINISHED)


class BatchRow(msgspec.Struct, kw_only=True):
    """One batch. Times are Unix seconds; ``keep_output_s`` None keeps its files as long as others."""

    row_id: int = 0
    id: str
    key_id: str | None
    endpoint: str
    input_file: str
    output_file: str | None = None
    error_file: str | None = None
    status: str = "validating"
    metadata: dict[str, str]
    errors: list[dict[str, Any]] = []
    keep_output_s: float | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    created_at: float
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    completed_at: float | None = None
    failed_at: float | None = None
    cancelling_at: float | None = None
    cancelled_at: float | None = None
    idempotency_key: str | None = None
    request_hash: str | None = None

    @property
    def unfinished(self) -> bool:
        """Whether it still has something to do."""
        return self.status in UNFINISHED


class Line(msgspec.Struct, frozen=True):
    """One request: its number from 1, where it lies in the input file, the job that runs it."""

    number: int
    custom_id: str
    start: int
    length: int
    state: str = "waiting"
    job_id: str | None = None


_FIELDS: Final = BatchRow.__struct_fields__
_COLUMNS: Final = tuple({"metadata": "metadata_json", "errors": "errors_json"}.get(name, name) for name in _FIELDS)
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM batches"  # noqa: S608 - own constants
_INSERT: Final = f"INSERT INTO batches ({', '.join(_COLUMNS[1:])}) VALUES ({', '.join('?' * (len(_COLUMNS) - 1))})"  # noqa: S608 - as above
_UPDATE: Final = f"UPDATE batches SET {', '.join(f'{name} = ?' for name in _COLUMNS[2:])} WHERE row_id = ?"  # noqa: S608 - as above
_ADD_LINES: Final = Bulk(
    "INSERT INTO batch_lines (batch, line, custom_id, start, length, state) VALUES ", "(?, ?, ?, ?, ?, 'waiting')", ""
)


class BatchRows:
    """Every method is called on the loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._bytes = 0

    async def open(self) -> None:
        """Read how much the results take that no file has yet; once, after ``Store.open``. Raises StoreError."""
        sql = "SELECT ifnull(sum(length(result)), 0) FROM batch_lines"
        self._bytes = await self._store.run(lambda db: int(db.execute_sql(sql).fetchone()[0]))

    @property
    def kept_bytes(self) -> int:
        """What the results take that are not in files yet."""
        return self._bytes

    async def leaves_at(self) -> None:
        """They leave with the end of their batch."""

    async def insert(self, row: BatchRow) -> None:
        """A new batch, on the disk when this returns; it gets its ``row_id``.

        Raises StoreError; ``duplicate`` means that its idempotency key is taken.
        """

        def insert(db: peewee.SqliteDatabase) -> int:
            return int(db.execute_sql(_INSERT, _bound(row)[1:]).lastrowid)

        row.row_id = await self._store.run(insert)

    async def save(self, row: BatchRow, files: Sequence[FileRow] = ()) -> None:
        """The batch as it stands, with the ``files`` it wrote. Raises StoreError."""
        values = [*_bound(row)[2:], row.row_id]

        def save(db: peewee.SqliteDatabase) -> None:
            for file in files:
                file.insert(db)
            db.execute_sql(_UPDATE, values)

        await self._store.run(save)

    async def get(self, batch_id: str, key_id: str | None) -> BatchRow | None:
        """One batch; None when there is none of this id, or it is another key's."""
        if _ID.fullmatch(batch_id) is None:
            return None
        rows = await self._select("WHERE id = ? AND (? IS NULL OR key_id = ?)", (batch_id, key_id, key_id))
        return rows[0] if rows else None

    async def by_idempotency(self, key_id: str | None, key: str) -> BatchRow | None:
        """The batch that an earlier request with this Idempotency-Key of the same API key made."""
        rows = await self._select(
            "WHERE coalesce(key_id, '') = ? AND idempotency_key = ? AND idempotency_key IS NOT NULL",
            (key_id or "", key),
        )
        return rows[0] if rows else None

    async def page(self, key_id: str | None, after: str | None, limit: int) -> list[BatchRow]:
        """The newest first, from the one after ``after``."""
        return await self._select(
            "WHERE (?1 IS NULL OR key_id = ?1) AND (?2 IS NULL OR id < ?2) ORDER BY id DESC LIMIT ?3",
            (key_id, after, limit),
        )

    async def unfinished(self) -> list[BatchRow]:
        """What an earlier run left, oldest first."""
        return await self._select(f"WHERE status IN ({_UNFINISHED}) ORDER BY row_id", ())

    async def _select(self, rest: str, params: Sequence[object]) -> list[BatchRow]:
        sql = f"{_SELECT} {rest}"
        return await self._store.run(lambda db: [_unbound(columns) for columns in db.execute_sql(sql, params)])

    # lines

    async def add_lines(self, row_id: int, lines: Sequence[Line]) -> None:
        """Lines that are to run. Raises StoreError."""
        values = [(row_id, line.number, line.custom_id, line.start, line.length) for line in lines]
        await self._store.run(lambda db: _ADD_LINES.run(db, values))

    async def lines(self, row_id: int, states: Sequence[str], after: int = 0, limit: int = STEP_LINES) -> list[Line]:
        """The next lines in one of ``states``, in order."""
        places = ", ".join("?" * len(states))
        sql = (
            "SELECT line, custom_id, start, length, state, job_id FROM batch_lines "  # noqa: S608 - own constants
            f"WHERE batch = ? AND line > ? AND state IN ({places}) ORDER BY line LIMIT ?"
        )
        params = (row_id, after, *states, limit)
        return await self._store.run(lambda db: [Line(*columns) for columns in db.execute_sql(sql, params)])

    async def counts(self, row_id: int) -> tuple[int, int]:
        """How many lines are completed and failed."""
        sql = "SELECT state, count(*) FROM batch_lines WHERE batch = ? GROUP BY state"
        counts = dict(await self._store.run(lambda db: db.execute_sql(sql, (row_id,)).fetchall()))
        return counts.get("completed", 0), counts.get("failed", 0)

    async def models(self, row_id: int) -> set[str]:
        """The models, as they were asked for, that lines of this batch ran with."""
        sql = "SELECT DISTINCT model FROM jobs JOIN batch_lines ON job_id = jobs.id WHERE batch = ?"
        return {name for (name,) in await self._store.run(lambda db: db.execute_sql(sql, (row_id,)).fetchall())}

    def assign(self, row_id: int, line: Line, job_id: str) -> None:
        """``job_id`` runs the line; written with the row of a job submitted just now."""
        self._store.put(
            "UPDATE batch_lines SET state = 'running', job_id = ? WHERE batch = ? AND line = ? AND result IS NULL",
            (job_id, row_id, line.number),
        )

    def record(self, row_id: int, line: Line, state: str, result: bytes) -> asyncio.Future[list[tuple[int]]]:
        """The line's result, once and for all; written with the row of a job that ended just now."""
        recorded = self._store.call(
            lambda db: db.execute_sql(
                "UPDATE batch_lines SET state = ?, result = ? WHERE batch = ? AND line = ? AND result IS NULL "
                "RETURNING length(result)",
                (state, result, row_id, line.number),
            ).fetchall()
        )
        recorded.add_done_callback(self._recorded)
        return recorded

    def _recorded(self, done: asyncio.Future[list[tuple[int]]]) -> None:
        if not done.cancelled() and done.exception() is None:
            self._count(sum(size for (size,) in done.result()))

    def _count(self, delta: int) -> None:
        self._bytes += delta

    async def results(self, row_id: int, state: str, after: int) -> list[tuple[int, bytes]]:
        """The next results (line, bytes) of lines in ``state``."""
        sql = "SELECT line, result FROM batch_lines WHERE batch = ? AND line > ? AND state = ? ORDER BY line LIMIT 64"
        return await self._store.run(lambda db: db.execute_sql(sql, (row_id, after, state)).fetchall())

    async def drop_lines(self, row_id: int) -> None:
        """Lines are of no use any more; in steps, so that nobody waits long behind them."""
        some = "SELECT row_id FROM batch_lines WHERE batch = ? LIMIT ?"
        sql = f"DELETE FROM batch_lines WHERE row_id IN ({some}) RETURNING ifnull(length(result), 0)"  # noqa: S608 - own constants
        while dropped := await self._store.run(lambda db: db.execute_sql(sql, (row_id, STEP_LINES)).fetchall()):
            self._count(-sum(size for (size,) in dropped))

    async def drop_leftovers(self) -> None:
        """Lines of batches that have ended: a crash came before ``drop_lines`` was done."""
        sql = (
            "SELECT DISTINCT batch FROM batch_lines WHERE batch IN "  # noqa: S608 - own constants
            f"(SELECT row_id FROM batches WHERE status NOT IN ({_UNFINISHED}))"
        )
        for (row_id,) in await self._store.run(lambda db: db.execute_sql(sql).fetchall()):
            await self.drop_lines(row_id)

    async def prune(self, before: float, keys_before: float) -> None:
        """Delete batches made before ``before`` that have ended; forget the keys of those ended by ``keys_before``."""
        ended = f"status NOT IN ({_UNFINISHED})"

        def prune(db: peewee.SqliteDatabase) -> None:
            db.execute_sql(f"DELETE FROM batches WHERE created_at < ? AND {ended}", (before,))  # noqa: S608 - own constants
            db.execute_sql(
                f"UPDATE batches SET idempotency_key = NULL WHERE idempotency_key IS NOT NULL AND {ended} "  # noqa: S608 - as above
                "AND coalesce(completed_at, cancelled_at, failed_at) < ?",
                (keys_before,),
            )

        await self._store.run(prune)


def _bound(row: BatchRow) -> list[Any]:
    values = list(msgspec.structs.astuple(row))
    for name in ("metadata", "errors"):
        place = _FIELDS.index(name)
        values[place] = msgspec.json.encode(values[place]).decode()
    return values


def _unbound(columns: Sequence[Any]) -> BatchRow:
    values = dict(zip(_FIELDS, columns, strict=True))
    for name in ("metadata", "errors"):
        values[name] = msgspec.json.decode(values[name])
    return BatchRow(**values)
