"""Small facts of the store: browser sessions, digests of model files, paths the user added."""

from __future__ import annotations

import peewee

from router.aio import Clock
from router.errors import BadRequestError
from router.store import Store
from router.tables import AddedPath, ModelFile, Session


class Sessions:
    """Browsers that traded the control token for a cookie. Only hashes are kept; they outlive a restart."""

    MOST = 64  # the ones used longest ago leave first

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._used_at: dict[str, float] = {}

    async def open(self) -> None:
        """Read what is stored; once, after ``Store.open``."""

        def read(db: peewee.SqliteDatabase) -> dict[str, float]:
            rows = Session.select(Session.hash, Session.used_at).order_by(Session.used_at).tuples().execute(db)
            return {token_hash: used_at for token_hash, used_at in rows}

        self._used_at = await self._store.run(read)

    def known(self, token_hash: str) -> bool:
        """Whether a session with this hash exists; its use is noted at most once an hour."""
        used_at = self._used_at.get(token_hash)
        now = self._clock.wall()
        if used_at is not None and now - used_at > 3600:
            self._used_at[token_hash] = now
            self._store.put("UPDATE sessions SET used_at = ? WHERE hash = ?", (now, token_hash))
        return used_at is not None

    async def add(self, token_hash: str) -> None:
        """A new session, on the disk when this returns. Raises StoreError."""
        now = self._clock.wall()
        await self._store.commit(
            "INSERT INTO sessions (hash, created_at, used_at) VALUES (?, ?, ?) ON CONFLICT (hash) DO NOTHING",
            (token_hash, now, now),
        )
        self._used_at[token_hash] = now
        for old in sorted(self._used_at, key=self._used_at.__getitem__)[: -self.MOST]:
            self.remove(old)

    def remove(self, token_hash: str) -> None:
        """End a session at once."""
        if self._used_at.pop(token_hash, None) is not None:
            self._store.put("DELETE FROM sessions WHERE hash = ?", (token_hash,))


class ModelFiles:
    """Digests of model files, good while size and time of the file are the same, and paths the user added."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._digests: dict[str, tuple[int, int, str]] = {}
        self._added: dict[str, float] = {}

    async def open(self) -> None:
        """Read what is stored; once, after ``Store.open``."""

        def read(db: peewee.SqliteDatabase) -> None:
            files = ModelFile.select().tuples().execute(db)
            self._digests = {path: (size, mtime_ns, digest) for path, size, mtime_ns, digest in files}
            self._added = dict(AddedPath.select().order_by(AddedPath.added_at).tuples().execute(db))

        await self._store.run(read)

    def digest(self, path: str, size: int, mtime_ns: int) -> str | None:
        """The digest of ``path`` if the file is still the one that was read."""
        found = self._digests.get(path)
        return found[2] if found is not None and found[:2] == (size, mtime_ns) else None

    def put_digest(self, path: str, size: int, mtime_ns: int, digest: str) -> None:
        """Remember what was computed."""
        self._digests[path] = (size, mtime_ns, digest)
        if not _storable(path):
            return
        self._store.put(
            "INSERT INTO model_files (path, size, mtime_ns, digest) VALUES (?, ?, ?, ?) ON CONFLICT (path) DO UPDATE "
            "SET size = excluded.size, mtime_ns = excluded.mtime_ns, digest = excluded.digest",
            (path, size, mtime_ns, digest),
        )

    def added_paths(self) -> list[str]:
        """What the user added, in that order."""
        return list(self._added)

    async def add_path(self, path: str) -> None:
        """Remember ``path``, on the disk when this returns. Raises StoreError, BadRequestError."""
        if not _storable(path):
            raise BadRequestError("The name of the file or folder is not valid UTF-8.", "Rename it.", field="path")
        if path not in self._added:
            now = self._clock.wall()
            await self._store.commit("INSERT OR IGNORE INTO added_paths (path, added_at) VALUES (?, ?)", (path, now))
            self._added[path] = now

    async def remove_path(self, path: str) -> None:
        """Forget ``path``; the file stays. Raises StoreError."""
        await self._store.commit("DELETE FROM added_paths WHERE path = ?", (path,))
        self._added.pop(path, None)


def _storable(path: str) -> bool:
    """Whether the name is text; file systems allow bytes that aren't."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
