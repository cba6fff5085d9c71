"""API keys of persons and programs: who may call where a key is needed, and what each of them used.

A key is shown once, when it is made; kept are its SHA-256 and its last four characters. Keys have 256 random bits, so
one plain hash can't be guessed back, and looking a hash up in a table tells nothing about the keys beside it.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import peewee

from router.aio import Clock
from router.errors import BadRequestError, QuorumError, StoreError
from router.jobs import Job
from router.runner import JobMoved
from router.scheduler import Scheduler
from router.store import Store
from router.tables import Key
from router.wire import KeyInfo, KeyUsed, MadeKey
from router.work import Put, Work

PREFIX: Final = "qk_"
NAME_MAX: Final = 64
KEYS_MAX: Final = 1000
NOTE_S: Final = 60.0  # how often a key's last use is written

_ADD_USAGE: Final = (
    "INSERT INTO key_usage (key_id, model, day, jobs, prompt_tokens, completion_tokens, used_at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key_id, model, day) DO UPDATE SET jobs = jobs + excluded.jobs, "
    "prompt_tokens = prompt_tokens + excluded.prompt_tokens, "
    "completion_tokens = completion_tokens + excluded.completion_tokens, used_at = excluded.used_at"
)


@dataclass(slots=True)
class _Used:
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, prompt_tokens: int, completion_tokens: int) -> None:
        self.requests += 1
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def told(self) -> KeyUsed:
        return KeyUsed(
            requests=self.requests, prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens
        )


@dataclass(slots=True)
class _Key:
    id: str
    name: str
    hash: str
    tail: str
    created_at: float
    used_at: float | None = None
    noted_at: float = 0.0
    day: str = ""
    today: _Used = field(default_factory=_Used)
    total: _Used = field(default_factory=_Used)

    def info(self, day: str) -> KeyInfo:
        return KeyInfo(
            id=self.id,
            name=self.name,
            tail=self.tail,
            created_at=self.created_at,
            used_at=self.used_at,
            today=(self.today if self.day == day else _Used()).told(),
            total=self.total.told(),
        )


class Access:
    """The keys in force, in memory; every change is on the disk before it is told. Implements the guard's ``Keys``."""

    def __init__(self, store: Store, clock: Clock, scheduler: Scheduler) -> None:
        self._store = store
        self._clock = clock
        self._scheduler = scheduler
        self._keys: dict[str, _Key] = {}
        self._by_hash: dict[str, _Key] = {}
        self._making: set[str] = set()
        self._unwritten: dict[tuple[str, str, str], _Used] = {}
        store.attach(self._drain)

    async def open(self) -> None:
        """Read what is stored; once, after ``Store.open``."""
        day = _day(self._clock.wall())

        def read(db: peewee.SqliteDatabase) -> list[_Key]:
            rows = Key.select().where(Key.revoked_at.is_null()).order_by(Key.created_at, Key.id).execute(db)
            keys = [_Key(row.id, row.name, row.hash, row.tail, row.created_at, row.used_at, day=day) for row in rows]
            totals, today = _usage(db), _usage(db, day)
            for key in keys:
                key.total = totals.get(key.id) or _Used()
                key.today = today.get(key.id) or _Used()
            return keys

        for key in await self._store.run(read):
            self._put(key)

    # -- the guard's side

    def check(self, authorization: str) -> str | None:
        """The id of the key that an ``Authorization`` value carries; None when it carries no key in force."""
        scheme, _, given = authorization.partition(" ")
        given = given.strip()
        if scheme.lower() != "bearer" or not given.startswith(PREFIX):
            return None
        key = self._by_hash.get(_hash(given))
        if key is None:
            return None
        key.used_at = now = self._clock.wall()
        if abs(now - key.noted_at) > NOTE_S:
            key.noted_at = now
            self._store.put("UPDATE keys SET used_at = ? WHERE id = ?", (now, key.id))
        return key.id

    def person(self, key_id: str) -> str:
        """Whose key it is, for lists and for taking turns. Raises QuorumError (unauthorized) when it was revoked."""
        key = self._keys.get(key_id)
        if key is None or key.hash not in self._by_hash:
            raise QuorumError("unauthorized", "This API key was revoked.", "Ask for a new one.")
        return key.name

    # -- keys

    def list(self) -> list[KeyInfo]:
        """The keys in force, oldest first, with what they used."""
        day = _day(self._clock.wall())
        return [key.info(day) for key in self._keys.values()]

    async def create(self, name: str) -> MadeKey:
        """A new key, on the disk when this returns. Raises BadRequestError, QuorumError (conflict), StoreError."""
        name = _checked(name)
        same = name.casefold()
        if same in self._making or any(key.name.casefold() == same for key in self._keys.values()):
            raise QuorumError(
                "conflict", f"There is a key named '{name}'.", "Choose another name, or revoke that key first."
            )
        if len(self._keys) >= KEYS_MAX:
            raise BadRequestError(f"There are {KEYS_MAX:,} keys.", "Revoke keys that nobody uses.")
        secret = PREFIX + secrets.token_urlsafe(32)
        key = _Key(f"k{secrets.token_hex(6)}", name, _hash(secret), secret[-4:], self._clock.wall())
        self._making.add(same)
        try:
            await self._store.commit(
                "INSERT INTO keys (id, name, hash, tail, created_at) VALUES (?, ?, ?, ?, ?)",
                (key.id, key.name, key.hash, key.tail, key.created_at),
            )
        except asyncio.CancelledError:
            self._store.put("DELETE FROM keys WHERE id = ?", (key.id,))  # nobody has seen it
            raise
        finally:
            self._making.discard(same)
        self._put(key)
        return MadeKey(info=key.info(""), key=secret)

    async def revoke(self, key_id: str) -> KeyInfo:
        """End a key: from now on it opens nothing, and its waiting and running jobs are cancelled.

        On the disk when this returns. Raises QuorumError (not_found), and StoreError when it can't be written: then it
        opens nothing until the next start, and revoking it again writes it.
        """
        key = self._keys.pop(key_id, None)
        if key is None:
            raise QuorumError("not_found", "There is no such key.", "'quorum keys list' shows those in force.")
        self._by_hash.pop(key.hash, None)
        jobs = [job for job in self._scheduler.jobs.values() if job.key_id == key_id]
        for job in sorted(jobs, key=lambda job: job.state.running):  # else one that ends would start the next
            self._scheduler.cancel(job.id)
        now = self._clock.wall()
        try:
            await self._store.commit("UPDATE keys SET revoked_at = ? WHERE id = ?", (now, key_id))
        except StoreError:
            self._keys[key_id] = key
            raise
        return key.info(_day(now))

    def _put(self, key: _Key) -> None:
        self._keys[key.id] = self._by_hash[key.hash] = key

    # -- usage

    def moved(self, event: JobMoved) -> None:
        """Count a job that ended."""
        job = event.job
        if job.key_id is None or job.state.live:
            return
        asked, answered = _tokens(job)
        day = _day(self._clock.wall())
        self._unwritten.setdefault((job.key_id, job.model, day), _Used()).add(asked, answered)
        self._store.wake(urgent=False)
        key = self._keys.get(job.key_id)
        if key is None:
            return
        if key.day != day:
            key.day, key.today = day, _Used()
        key.today.add(asked, answered)
        key.total.add(asked, answered)

    def _drain(self) -> Sequence[Work]:
        """What was used since the last batch."""
        if not self._unwritten:
            return ()
        unwritten, self._unwritten = self._unwritten, {}
        now = self._clock.wall()
        return [
            Put(_ADD_USAGE, (*place, used.requests, used.prompt_tokens, used.completion_tokens, now))
            for place, used in unwritten.items()
        ]


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _day(wall: float) -> str:
    """The day in UTC: it begins at the same moment wherever the computer goes."""
    return time.strftime("%Y-%m-%d", time.gmtime(wall))


def _checked(name: str) -> str:
    """The name of a person or program as it is kept. Raises BadRequestError."""
    name = unicodedata.normalize("NFC", name).strip()
    if not 1 <= len(name) <= NAME_MAX or not name.isprintable():
        raise BadRequestError(
            f"'name' must be 1 to {NAME_MAX} printable characters.", "Name the person or program.", field="name"
        )
    return name


def _tokens(job: Job) -> tuple[int, int]:
    """What a job read and wrote; pieces of a stream stand for tokens where the engine doesn't count."""
    receipt = job.receipt
    asked = (receipt.prompt_tokens if receipt else None) or 0
    answered = receipt.completion_tokens if receipt else None
    return asked, (job.answer.events if job.stream else 0) if answered is None else answered


def _usage(db: peewee.SqliteDatabase, day: str | None = None) -> dict[str, _Used]:
    rows = db.execute_sql(
        "SELECT key_id, sum(jobs), sum(prompt_tokens), sum(completion_tokens) FROM key_usage "
        "WHERE ?1 IS NULL OR day = ?1 GROUP BY key_id",
        (day,),
    )
    return {key_id: _Used(*counts) for key_id, *counts in rows}
