"""What the writer thread does to the tables of jobs: changed rows, answers, pruning."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import msgspec
import peewee

from router.job_row import ADD_BODY, DROP_ROWS, FREE_KEYS, UPSERT, JobRow, bind, drop_bodies, freed
from router.work import Work, is_disk_fault

PRUNE_STEP_ROWS: Final = 2_000  # one transaction looks at no more, so that nobody waits long behind it

_ADD_ASKED: Final = (
    "INSERT OR IGNORE INTO responses (job, asked, restarts) "
    "SELECT row_id, ?, 0 FROM jobs JOIN bodies ON job = row_id WHERE id = ? RETURNING length(asked)"
)

Settled: TypeAlias = Callable[["list[Change]", int, Exception | None], None]


class Change:
    """What one row has become since the last batch, and who waits to hear that it is on the disk."""

    __slots__ = ("body", "drop", "futures", "plain", "row", "snapshot")

    def __init__(self, row: JobRow) -> None:
        self.row = row
        self.snapshot: tuple[Any, ...] = ()
        self.body: bytes | None = None
        self.drop = False
        self.plain = False
        self.futures: list[asyncio.Future[None]] = []

    def prepare(self) -> None:
        """Take the row as it stands now; a job that has ended and isn't kept leaves no body."""
        self.snapshot = msgspec.structs.astuple(self.row)
        over = not self.row.keep and not self.row.state.live
        self.drop = over and self.row.stored
        if over:
            self.body = None


class Changes(Work):
    """Rows of one batch: together in few statements, or alone after a failure."""

    __slots__ = ("changes", "delta", "settled")

    def __init__(self, changes: list[Change], settled: Settled) -> None:
        self.settled = settled
        self.changes = changes
        self.delta = 0

    def run(self, db: peewee.SqliteDatabase) -> None:
        UPSERT.run(db, [bind(change.snapshot) for change in self.changes])
        bodies = [(c.row.row_id, c.body, c.row.created_at) for c in self.changes if c.body is not None]
        ADD_BODY.run(db, bodies)
        gone = freed(db, [(c.row.row_id,) for c in self.changes if c.drop])
        self.delta = sum(len(body) for _, body, _ in bodies) - gone

    def parts(self) -> Sequence[Work]:
        return [Changes([change], self.settled) for change in self.changes]

    def settle(self, error: Exception | None) -> bool:
        self.settled(self.changes, self.delta, error)
        return False


class SetAnswer(Work):
    """A whole answer, for a job that keeps one."""

    __slots__ = ("answer", "content_type", "delta", "grew", "job_id")

    silent = True

    def __init__(self, job_id: str, answer: bytes, content_type: str, grew: Callable[[int], None]) -> None:
        self.grew = grew
        self.job_id = job_id
        self.answer = answer
        self.content_type = content_type
        self.delta = 0

    def run(self, db: peewee.SqliteDatabase) -> None:
        self.delta = 0
        found = db.execute_sql(
            "SELECT jobs.row_id, jobs.created_at, ifnull(length(answer), 0) FROM jobs "
            "LEFT JOIN bodies ON bodies.job = jobs.row_id WHERE jobs.id = ? AND keep = 1",
            (self.job_id,),
        ).fetchone()
        if found is not None:
            db.execute_sql(
                "INSERT INTO bodies (job, answer, answer_type, created_at) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (job) DO UPDATE SET answer = excluded.answer, answer_type = excluded.answer_type",
                (found[0], self.answer, self.content_type, found[1]),
            )
            self.delta = len(self.answer) - found[2]

    def settle(self, error: Exception | None) -> bool:
        self.grew(0 if error else self.delta)
        return error is not None and is_disk_fault(error)

    @property
    def size(self) -> int:
        return len(self.answer)


class AddAsked(Work):
    """What a response was asked, for as long as the body of its job is kept."""

    __slots__ = ("asked", "delta", "grew", "job_id")

    silent = True

    def __init__(self, job_id: str, asked: bytes, grew: Callable[[int], None]) -> None:
        self.grew = grew
        self.job_id = job_id
        self.asked = asked
        self.delta = 0

    def run(self, db: peewee.SqliteDatabase) -> None:
        self.delta = sum(size for (size,) in db.execute_sql(_ADD_ASKED, (self.asked, self.job_id)).fetchall())

    def settle(self, error: Exception | None) -> bool:
        self.grew(0 if error else self.delta)
        return error is not None and is_disk_fault(error)

    @property
    def size(self) -> int:
        return len(self.asked)


class Prune:
    """One step of pruning: looks at PRUNE_STEP_ROWS rows after ``after``."""

    def __init__(self, after: int, before_wall: float, bodies_before: float, keys_before: float) -> None:
        self.after = after
        self.before_wall = before_wall
        self.bodies_before = bodies_before
        self.keys_before = keys_before

    def __call__(self, db: peewee.SqliteDatabase) -> tuple[int, int, int | None]:
        """Rows deleted, bytes of bodies freed, where to go on (None at the end)."""
        looked = db.execute_sql(
            "SELECT row_id, completed_at, idempotency_key FROM jobs WHERE row_id > ? ORDER BY row_id LIMIT ?",
            (self.after, PRUNE_STEP_ROWS),
        ).fetchall()
        ended = [(row_id, at, key) for row_id, at, key in looked if at is not None]
        blank = [(row_id,) for row_id, at, _ in ended if at < self.bodies_before]
        gone = [(row_id,) for row_id, at, key in ended if at < self.before_wall and (not key or at < self.keys_before)]
        size = drop_bodies(db, sorted({*blank, *gone}))
        FREE_KEYS.run(db, [(row_id,) for row_id, at, key in ended if key and at < self.keys_before])
        DROP_ROWS.run(db, gone)
        return len(gone), size, looked[-1][0] if len(looked) == PRUNE_STEP_ROWS else None
