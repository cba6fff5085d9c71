"""Webhooks: every move of a job that asked for it is told to an address, in order, at least once.

A move and what is to be told of it are written in one transaction; only what is on the disk is sent, so nobody hears of
a job that was refused. What a run of the node did not deliver, the next one does.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

import msgspec
import peewee
from yarl import URL

from router import __version__
from router.aio import Clock, Tasks
from router.errors import StartError
from router.identity import write_private
from router.jobs import Job
from router.runner import JobMoved
from router.states import JobState
from router.store import Store
from router.webhook_sender import Sender
from router.wire import Wire
from router.work import Work, is_disk_fault

log = logging.getLogger(__name__)

TRIES: Final = 5
FIRST_S: Final = 1.0
LATEST_S: Final = 60.0
AT_ONCE: Final = 128
AT_ONE_HOST: Final = 16
SECRET_FILE: Final = "webhook.secret"  # noqa: S105 - a file's name


class Hook(msgspec.Struct, frozen=True):
    """What ``Job.webhook`` holds as JSON. ``secret`` None: the node's; ``loopback``: it may be on this computer."""

    url: str
    secret: str | None = None
    loopback: bool = False


class Delivery(Wire, frozen=True, kw_only=True):
    """How telling one move went. ``delivered_at`` is None while it is tried, and when it was given up (5 attempts)."""

    state: JobState
    attempt: int
    delivered_at: float | None
    error: str | None


@dataclass(slots=True)
class _Note:
    """One move that must be told."""

    job_id: str
    state: str
    hook: Hook
    secret: str
    body: bytes
    row_id: int = 0
    attempt: int = 0
    not_before: float = 0.0


class Webhooks:
    """Listens to moves and tells them. ``sender.close`` is called by ``close``."""

    def __init__(self, store: Store, tasks: Tasks, clock: Clock, sender: Sender, secret_file: Path) -> None:
        self._store = store
        self._tasks = tasks
        self._clock = clock
        self._sender = sender
        self._secret_file = secret_file
        self._secret = b""
        self._closed = False
        self._lines: dict[str, deque[_Note]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._hosts: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def open(self) -> None:
        """Read the secret and go on with what an earlier run left untold. Raises StartError, StoreError."""
        self._secret = await asyncio.to_thread(_read_secret, self._secret_file)
        for job_id, key_id, hook, state, body, row_id, attempt, not_before in await self._store.run(_waiting):
            note = self._note(job_id, key_id, hook, state, body)
            note.row_id, note.attempt, note.not_before = row_id, attempt, not_before
            self._tell(note)

    def secret_of(self, key_id: str | None) -> str:
        """What signs webhooks of this API key's jobs when they bring no secret of their own."""
        return hmac.new(self._secret, f"webhooks of {key_id or ''}".encode(), hashlib.sha256).hexdigest()

    async def check(self, url: str, *, loopback: bool) -> str:
        """See ``Sender.check``."""
        return await self._sender.check(url, loopback=loopback)

    def moved(self, event: JobMoved) -> None:
        """Put a move in line, once it is on the disk."""
        job = event.job
        if job.webhook is not None:
            self._store.submit(_Add(self._note(job.id, job.key_id, job.webhook, job.state, _body(job)), self._tell))

    def _note(self, job_id: str, key_id: str | None, hook_json: str, state: str, body: bytes) -> _Note:
        hook = msgspec.json.decode(hook_json, type=Hook)
        return _Note(job_id, str(state), hook, hook.secret or self.secret_of(key_id), body)

    def _tell(self, note: _Note) -> None:
        if self._closed:
            return  # the next run of the node tells it
        line = self._lines.get(note.job_id)
        if line is None:
            self._lines[note.job_id] = deque([note])
            self._tasks.spawn("webhook", self._tell_all(note.job_id))
        else:
            line.append(note)

    async def _tell_all(self, job_id: str) -> None:
        """One job's moves, one after the other."""
        line = self._lines[job_id]
        while line:
            await self._deliver(line[0])
            line.popleft()
        del self._lines[job_id]

    async def _deliver(self, note: _Note) -> None:
        """Try until it is taken, at most 5 times: 1, 2, 4 and 8 s apart."""
        host = str(URL(note.hook.url).origin())
        turns = self._hosts.get(host)
        if turns is None:
            turns = self._hosts[host] = asyncio.Semaphore(AT_ONE_HOST)
        while note.attempt < TRIES:
            wait_s = note.not_before - self._clock.wall()
            if wait_s > 0:
                await asyncio.sleep(min(wait_s, LATEST_S))
            async with turns, self._turns:
                error = await self._sender.post(note.hook.url, note.body, _headers(note), loopback=note.hook.loopback)
            note.attempt += 1
            now = self._clock.wall()
            note.not_before = now + FIRST_S * 2 ** (note.attempt - 1)
            self._store.put(
                "UPDATE webhooks SET attempt = ?, not_before = ?, error = ?, delivered_at = ? "
                "WHERE row_id = ? AND state = ? AND job = (SELECT row_id FROM jobs WHERE id = ?)",
                (
                    note.attempt,
                    note.not_before,
                    error or None,
                    None if error else now,
                    note.row_id,
                    note.state,
                    note.job_id,
                ),
            )
            if not error:
                return
        log.warning("a webhook to %s was given up after %d tries: %s", URL(note.hook.url).host, TRIES, error)

    async def deliveries(self, job_id: str) -> list[Delivery]:
        """What is known of telling one job's moves, in order."""

        def read(db: peewee.SqliteDatabase) -> list[tuple[Any, ...]]:
            return list(
                db.execute_sql(
                    "SELECT webhooks.state, webhooks.attempt, delivered_at, error FROM webhooks "
                    "JOIN jobs ON jobs.row_id = webhooks.job WHERE jobs.id = ? ORDER BY webhooks.row_id",
                    (job_id,),
                ).fetchall()
            )

        return [
            Delivery(state=JobState(state), attempt=attempt, delivered_at=at, error=error)
            for state, attempt, at, error in await self._store.read(read)
        ]

    async def close(self) -> None:
        """Tell no more and close the connections; call it when the tasks have ended, before the store is closed."""
        self._closed = True
        await self._sender.close()


class _Add(Work):
    """A move that must be told, as a row; ``tell`` hears of it once it is on the disk.

    A move into a state the job was in before takes the older row's place at the end of the line.
    """

    __slots__ = ("found", "note", "tell")

    silent = True

    def __init__(self, note: _Note, tell: Callable[[_Note], None]) -> None:
        self.note = note
        self.tell = tell
        self.found = False

    def run(self, db: peewee.SqliteDatabase) -> None:
        note = self.note
        row = db.execute_sql(
            "INSERT OR REPLACE INTO webhooks (job, state, url, body, attempt, not_before, created_at) "
            "SELECT row_id, ?, ?, ?, 0, 0, updated_at FROM jobs WHERE id = ? RETURNING row_id",
            (note.state, note.hook.url, note.body, note.job_id),
        ).fetchone()
        self.found = row is not None
        if row is not None:
            note.row_id = row[0]

    def settle(self, error: Exception | None) -> bool:
        if error is not None:
            return is_disk_fault(error)
        if self.found:
            self.tell(self.note)
        return False

    @property
    def size(self) -> int:
        return 256 + len(self.note.body)


def _waiting(db: peewee.SqliteDatabase) -> list[tuple[Any, ...]]:
    """What nobody took yet and was not given up, in order."""
    return list(
        db.execute_sql(
            "SELECT jobs.id, jobs.key_id, jobs.webhook, webhooks.state, webhooks.body, webhooks.row_id, "
            "webhooks.attempt, webhooks.not_before FROM webhooks JOIN jobs ON jobs.row_id = webhooks.job "
            "WHERE delivered_at IS NULL AND webhooks.attempt < ? AND jobs.webhook IS NOT NULL "
            "ORDER BY webhooks.row_id",
            (TRIES,),
        ).fetchall()
    )


def _body(job: Job) -> bytes:
    """What is told of a job's move."""
    told: dict[str, Any] = {
        "job_id": job.id,
        "state": job.state.value,
        "at": job.updated_at,
        "attempt": job.attempt,
    }
    if job.error is not None:
        told["error"] = job.error
    if job.receipt is not None:
        told["receipt"] = job.receipt
    return msgspec.json.encode(told)


def _headers(note: _Note) -> dict[str, str]:
    signature = hmac.new(note.secret.encode(), note.body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "User-Agent": f"Quorum/{__version__}",
        "Idempotency-Key": f"{note.job_id}-{note.state}",
        "X-Quorum-Signature": f"sha256={signature}",
    }


def _read_secret(path: Path) -> bytes:
    """The node's own secret, made at the first start. Raises StartError."""
    try:
        if not path.exists():
            write_private(path, secrets.token_hex(32).encode())
        return path.read_bytes()
    except OSError as error:
        raise StartError(f"The file {path} can't be used: {error.strerror}.", "Correct its permissions.") from error
