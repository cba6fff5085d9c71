"""One job as a row: its columns, the statements that write it, and the way to SQLite's values and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import peewee

from router.states import JobState
from router.wire import ErrorInfo, Receipt
from router.work import Bulk, Params


class JobRow(msgspec.Struct, kw_only=True):
    """One row of ``jobs``. Times are Unix seconds. ``row_id`` breaks ties; it is given by the first ``save``.

    ``keep`` says that request and answer outlive the job (24 h). ``stored`` belongs to JobRows.
    """

    row_id: int = 0
    id: str
    kind: str = "chat"
    origin: str = "api"
    person: str = ""
    key_id: str | None = None
    chat_id: str | None = None
    model: str = ""
    digest: str | None = None
    state: JobState = JobState.QUEUED
    attempt: int = 0
    max_attempts: int = 3
    try_no: int = 0
    boot_id: str = ""
    crashes: int = 0
    not_before: float = 0.0
    priority: int = 0
    stream: bool = False
    keep: bool = False
    node: str | None = None
    engine: str | None = None
    receipt: Receipt | None = None
    error: ErrorInfo | None = None
    idempotency_key: str | None = None
    request_hash: str | None = None
    webhook: str | None = None
    origin_node: str | None = None
    origin_job: str | None = None
    origin_try: int | None = None
    created_at: float
    updated_at: float = 0.0
    started_at: float | None = None
    completed_at: float | None = None
    deadline_s: float | None = None
    keep_alive_s: float | None = None
    stored: bool = False


_FIELDS: Final = JobRow.__struct_fields__[:-1]
COLUMNS: Final = tuple({"receipt": "receipt_json", "error": "error_json"}.get(name, name) for name in _FIELDS)
_FIXED: Final = frozenset({"row_id", "id", "kind", "origin", "person", "key_id", "chat_id", "created_at", "stream"})
_RECEIPT: Final = COLUMNS.index("receipt_json")
_ERROR: Final = COLUMNS.index("error_json")
_WORDS: Final = (COLUMNS.index("kind"), COLUMNS.index("origin"), COLUMNS.index("state"))
_FLAGS: Final = (COLUMNS.index("stream"), COLUMNS.index("keep"))

UPSERT: Final = Bulk(
    f"INSERT INTO jobs ({', '.join(COLUMNS)}) VALUES ",  # noqa: S608 - own constants
    f"({', '.join('?' * len(COLUMNS))})",
    " ON CONFLICT (row_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in _FIXED),
)
ADD_BODY: Final = Bulk(
    "INSERT INTO bodies (job, request, created_at) VALUES ",
    "(?, ?, ?)",
    " ON CONFLICT (job) DO UPDATE SET request = excluded.request",
)
DROP_BODIES: Final = Bulk(
    "DELETE FROM bodies WHERE job IN (", "?", ") RETURNING ifnull(length(request), 0) + ifnull(length(answer), 0)"
)
DROP_ASKED: Final = Bulk("DELETE FROM responses WHERE job IN (", "?", ") RETURNING length(asked)")
DROP_CHUNKS: Final = Bulk("DELETE FROM chunks WHERE job IN (", "?", ")")
DROP_ROWS: Final = Bulk("DELETE FROM jobs WHERE row_id IN (", "?", ")")
FREE_KEYS: Final = Bulk("UPDATE jobs SET idempotency_key = NULL WHERE row_id IN (", "?", ")")
SELECTED: Final = ", ".join(f"jobs.{name}" for name in COLUMNS)


def bind(snapshot: tuple[Any, ...]) -> Params:
    """The columns of one row as SQLite takes them."""
    values = list(snapshot[: len(COLUMNS)])
    for word in _WORDS:
        values[word] = str.__str__(values[word])  # members of enums bind slowly
    for flag in _FLAGS:
        values[flag] = int(values[flag])
    for place in (_RECEIPT, _ERROR):
        if values[place] is not None:
            values[place] = msgspec.json.encode(values[place]).decode()
    return values


def unbind(columns: Sequence[Any]) -> JobRow:
    """A row as the database returned it."""
    row = JobRow(**dict(zip(_FIELDS, columns, strict=True)), stored=True)
    row.state = JobState(row.state)
    row.stream, row.keep = bool(row.stream), bool(row.keep)
    if row.receipt is not None:
        row.receipt = msgspec.json.decode(columns[_RECEIPT], type=Receipt)
    if row.error is not None:
        row.error = msgspec.json.decode(columns[_ERROR], type=ErrorInfo)
    return row


def drop_bodies(db: peewee.SqliteDatabase, row_ids: Sequence[Params]) -> int:
    """Delete the bodies and chunks of these rows; how many bytes of bodies went."""
    DROP_CHUNKS.run(db, row_ids)
    return freed(db, row_ids)


def freed(db: peewee.SqliteDatabase, row_ids: Sequence[Params]) -> int:
    """Delete what these rows were asked and what they answered; how many bytes that was."""
    return sum(size for (size,) in DROP_ASKED.run(db, row_ids) + DROP_BODIES.run(db, row_ids))
