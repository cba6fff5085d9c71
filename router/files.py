"""Files that were uploaded for batches and those that batches wrote: rows in the store, content in the data folder."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import peewee
from ulid import ULID

from router.aio import Clock
from router.errors import BadRequestError, StartError, StoreError
from router.store import Store

log = logging.getLogger(__name__)

MIB: Final = 1024 * 1024
BLOCK_BYTES: Final = MIB
KEPT_S: Final = 30 * 86_400.0
_ID: Final = re.compile(r"file-[0-9A-Z]{26}")
_COLUMNS: Final = "id, key_id, filename, purpose, size, created_at, expires_at"


class FileRow(msgspec.Struct, frozen=True, kw_only=True):
    """One file. Times are Unix seconds, ``size`` bytes; ``key_id`` is whose it is."""

    id: str
    key_id: str | None
    filename: str
    purpose: str
    size: int
    created_at: float
    expires_at: float | None

    def insert(self, db: peewee.SqliteDatabase) -> None:
        """Write the row; on the writer thread."""
        db.execute_sql(f"INSERT INTO files ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", msgspec.structs.astuple(self))  # noqa: S608 - own constants


class Draft:
    """A file that is being written, under a name that nobody asks for. Writes go to a thread, a MiB at a time."""

    def __init__(self, path: Path, most: int) -> None:
        self.path = path
        self.size = 0
        self._most = most
        self._waiting = bytearray()
        self._file: BinaryIO | None = None

    async def write(self, data: bytes) -> None:
        """More content. Raises BadRequestError beyond the bound, StoreError when the disk can't take it."""
        self.size += len(data)
        if self.size > self._most:
            raise BadRequestError(
                f"The file is larger than {self._most // MIB} MiB.", "Split it.", code="payload_too_large", field="file"
            )
        self._waiting += data
        if len(self._waiting) >= BLOCK_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        waiting, self._waiting = bytes(self._waiting), bytearray()
        await _on_disk(self._append, waiting)

    def _append(self, data: bytes) -> None:
        if self._file is None:
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._file = os.fdopen(handle, "wb")
        self._file.write(data)

    async def finish(self, path: Path) -> None:
        """The whole content is on the disk under ``path`` when this returns. Raises StoreError."""
        await self._flush()
        await _on_disk(self._place, path)

    def _place(self, path: Path) -> None:
        assert self._file is not None  # noqa: S101 - _append opened it; this tells the type checker
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())
        self.path.replace(path)
        _sync_folder(path.parent)

    async def discard(self) -> None:
        """Nothing of it stays; after ``finish`` nothing happens."""

        def drop() -> None:
            if self._file is not None:
                with contextlib.suppress(OSError):
                    self._file.close()
            self.path.unlink(missing_ok=True)

        await asyncio.to_thread(drop)


class Files:
    """The table and its folder. With ``room_bytes`` taken nothing more can be uploaded."""

    def __init__(self, store: Store, folder: Path, clock: Clock, room_bytes: Callable[[], int]) -> None:
        self._store = store
        self._folder = folder
        self._clock = clock
        self._room_bytes = room_bytes
        self._bytes = 0

    async def open(self) -> None:
        """Make the folder; what a crash left without a row, or a row without its file, goes. Raises StartError."""

        def read(db: peewee.SqliteDatabase) -> set[str]:
            return {file_id for (file_id,) in db.execute_sql("SELECT id FROM files")}

        rows = await self._store.run(read)
        try:
            there = await asyncio.to_thread(self._tidy, rows)
        except OSError as error:
            raise StartError(
                f"The folder {self._folder} can't be used: {error.strerror}.", "Correct its permissions."
            ) from error
        await self._store.run(lambda db: _drop(db, rows - there))
        self._bytes = await self._store.run(_total)

    def _tidy(self, rows: set[str]) -> set[str]:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        there = {path.name for path in self._folder.iterdir()}
        for name in there - rows:
            if rows or name.startswith("."):  # without any row the database may be a new one: its files were another's
                log.info("a file that was never finished is deleted")
                (self._folder / name).unlink(missing_ok=True)
        return there & rows

    @property
    def kept_bytes(self) -> int:
        """What all files take."""
        return self._bytes

    async def leaves_at(self) -> float | None:
        """When the next file expires."""
        sql = "SELECT min(expires_at) FROM files"
        found: float | None = await self._store.run(lambda db: db.execute_sql(sql).fetchone()[0])
        return found

    def draft(self, most: int = sys.maxsize) -> Draft:
        """A new file to write to, of at most ``most`` bytes."""
        return Draft(self._folder / f".{ULID()}", most)

    def place_of(self, file_id: str) -> Path:
        """Where the content of a file lies."""
        return self._folder / file_id

    async def keep(
        self, draft: Draft, *, filename: str, purpose: str, key_id: str | None, keep_s: float = KEPT_S
    ) -> FileRow:
        """The draft is a file from now on, on the disk when this returns. Raises BadRequestError, StoreError."""
        if self._bytes + draft.size > self._room_bytes():
            raise BadRequestError(
                "The room for files is used up.",
                "Delete files, or give more in the setting 'Room for prompts and answers'.",
                code="payload_too_large",
                field="file",
            )
        row = await self.place(draft, filename=filename, purpose=purpose, key_id=key_id, keep_s=keep_s)
        try:
            await self._store.run(row.insert)
        except BaseException:
            await self.unplace(row)
            raise
        return row

    async def place(
        self, draft: Draft, *, filename: str, purpose: str, key_id: str | None, keep_s: float = KEPT_S
    ) -> FileRow:
        """The same without its row, which the caller inserts together with rows of its own."""
        now = self._clock.wall()
        row = FileRow(
            id=f"file-{ULID.from_timestamp(now)}",
            key_id=key_id,
            filename=filename,
            purpose=purpose,
            size=draft.size,
            created_at=now,
            expires_at=now + keep_s,
        )
        await draft.finish(self.place_of(row.id))
        self._bytes += row.size
        return row

    async def unplace(self, row: FileRow) -> None:
        """Take back what ``place`` did."""
        await self._unlink([row.id])
        self._bytes -= row.size

    async def get(self, file_id: str, key_id: str | None) -> FileRow | None:
        """One file; None when there is none of this id, or it is another key's."""
        if _ID.fullmatch(file_id) is None:
            return None
        rows = await self._select("id = ? AND (? IS NULL OR key_id = ?)", (file_id, key_id, key_id))
        return rows[0] if rows else None

    async def page(
        self, key_id: str | None, *, purpose: str | None, after: str | None, limit: int, ascending: bool
    ) -> list[FileRow]:
        """Files in the order they were made, from the one after ``after``."""
        sign, order = (">", "ASC") if ascending else ("<", "DESC")
        return await self._select(
            f"(?1 IS NULL OR key_id = ?1) AND (?2 IS NULL OR purpose = ?2) AND (?3 IS NULL OR id {sign} ?3) "
            f"ORDER BY id {order} LIMIT ?4",
            (key_id, purpose, after, limit),
        )

    async def _select(self, rest: str, params: tuple[Any, ...]) -> list[FileRow]:
        sql = f"SELECT {_COLUMNS} FROM files WHERE {rest}"  # noqa: S608 - own constants
        rows = await self._store.run(lambda db: db.execute_sql(sql, params).fetchall())
        return [FileRow(**dict(zip(FileRow.__struct_fields__, row, strict=True))) for row in rows]

    async def delete(self, row: FileRow) -> None:
        """The row goes first: a crash between leaves nothing that could be asked for."""
        await self._store.run(lambda db: _drop(db, {row.id}))
        self._bytes -= row.size
        await self._unlink([row.id])

    async def prune(self, used: frozenset[str]) -> None:
        """Delete what has expired, except what is ``used`` by batches that run."""
        old = await self._select("expires_at < ?", (self._clock.wall(),))
        for row in old:
            if row.id not in used:
                await self.delete(row)

    async def _unlink(self, ids: list[str]) -> None:
        def unlink() -> None:
            for file_id in ids:
                self.place_of(file_id).unlink(missing_ok=True)

        await _on_disk(unlink)


async def _on_disk(act: Callable[..., Any], *args: Any) -> Any:
    """``act`` in a thread. Raises StoreError where the disk refuses."""
    try:
        return await asyncio.to_thread(act, *args)
    except OSError as error:
        raise StoreError(f"The file could not be stored: {error.strerror}.") from error


def _sync_folder(folder: Path) -> None:
    """A new name is on the disk once its folder is; Windows has no such call."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _drop(db: peewee.SqliteDatabase, ids: set[str]) -> None:
    for file_id in ids:
        db.execute_sql("DELETE FROM files WHERE id = ?", (file_id,))


def _total(db: peewee.SqliteDatabase) -> int:
    return int(db.execute_sql("SELECT ifnull(sum(size), 0) FROM files").fetchone()[0])
