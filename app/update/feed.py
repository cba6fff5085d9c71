"""The feed: a manifest at an address, the files beside it. Https, or plain http on this computer only."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import ipaddress
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp

from app.update.errors import UpdateError
from app.update.manifest import MANIFEST_MAX_BYTES, File

CONNECT_S: Final = 15.0
MANIFEST_S: Final = 30.0
STALL_S: Final = 60.0
WHOLE_S: Final = 3 * 3600.0
PIECE_BYTES: Final = 1024 * 1024

Open = Callable[[Path], IO[bytes]]


def checked(address: str) -> str:
    """The address of a manifest as it will be called. Raises UpdateError."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
        if parts.port == 0 or not host or parts.username is not None or parts.fragment or not parts.path.strip("/"):
            raise ValueError("not a whole address")
    except ValueError as error:
        raise UpdateError(
            "The feed's address can't be used.", "Write it like https://example.org/quorum/manifest.json."
        ) from error
    if parts.scheme == "https" or (parts.scheme == "http" and _here(host)):
        return address
    raise UpdateError("Updates come over https only.", "Change the address of the feed to one that begins with https.")


def beside(address: str, name: str) -> str:
    """The address of a file that lies where the manifest lies."""
    parts = urlsplit(address)
    folder = parts.path.rpartition("/")[0]
    return urlunsplit((parts.scheme, parts.netloc, f"{folder}/{quote(name)}", parts.query, ""))


async def manifest(address: str) -> bytes:
    """What the feed answers, at most 64 KiB. Raises UpdateError."""
    content = bytearray()
    async with _answer(checked(address), MANIFEST_S) as response:
        async for piece in response.content.iter_chunked(PIECE_BYTES):
            content += piece
            if len(content) > MANIFEST_MAX_BYTES:
                raise UpdateError("What the feed answers is too large for a manifest.")
    return bytes(content)


async def download(
    address: str, file: File, target: Path, progress: Callable[[int], None], create: Open | None = None
) -> None:
    """Write the file to ``target`` (made anew) and verify its length and digest; ``progress`` hears percents.

    A file that isn't exactly the promised one, or not written whole, is removed. Raises UpdateError.
    """
    sink = _Sink(file, target, create or _new)
    try:
        await asyncio.to_thread(sink.open)
        async with _answer(beside(checked(address), file.name), WHOLE_S) as response:
            async for piece in response.content.iter_chunked(PIECE_BYTES):
                await asyncio.to_thread(sink.add, piece)
                if sink.percent_changed():
                    progress(sink.percent)
        await asyncio.to_thread(sink.finish)
    except BaseException as error:
        sink.discard()
        if isinstance(error, OSError):
            raise disk_error(error) from error
        raise


class _Sink:
    """The file on the disk and what has come of it. All but ``percent`` block: call them in a thread."""

    def __init__(self, file: File, target: Path, create: Open) -> None:
        self.percent = -1
        self._file, self._target, self._create = file, target, create
        self._out: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self._count = 0

    def open(self) -> None:
        self._out = self._create(self._target)

    def add(self, piece: bytes) -> None:
        assert self._out is not None  # noqa: S101 # narrows the type: it was opened
        self._count += len(piece)
        if self._count > self._file.bytes:
            raise UpdateError("The downloaded update is longer than it was announced.")
        self._digest.update(piece)
        self._out.write(piece)

    def percent_changed(self) -> bool:
        before, self.percent = self.percent, self._count * 100 // self._file.bytes
        return self.percent != before

    def finish(self) -> None:
        assert self._out is not None  # noqa: S101 # narrows the type: it was opened
        self._out.flush()
        os.fsync(self._out.fileno())
        self._out.close()
        if self._count < self._file.bytes:
            raise UpdateError("The download of the update broke off.", "Try again.")
        if self._digest.hexdigest() != self._file.sha256:
            raise UpdateError("The downloaded update is not what those who release Quorum signed; it was deleted.")

    def discard(self) -> None:
        if self._out is not None:
            with suppress(OSError):
                self._out.close()
            self._target.unlink(missing_ok=True)


def disk_error(error: OSError) -> UpdateError:
    """What went wrong on the disk, in words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UpdateError("The disk is too full for the update.", "Free some space, then try again.")
    return UpdateError(f"The update can't be written: {error.strerror or type(error).__name__}.")


def _new(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@asynccontextmanager
async def _answer(address: str, whole_s: float) -> AsyncIterator[aiohttp.ClientResponse]:
    """A plain 200 of ``address``: no redirect, no proxy of the environment, no compression. Raises UpdateError."""
    limits = aiohttp.ClientTimeout(total=whole_s, sock_connect=CONNECT_S, sock_read=min(STALL_S, whole_s))
    try:
        async with (
            aiohttp.ClientSession(timeout=limits, trust_env=False, auto_decompress=False) as session,
            session.get(
                address, allow_redirects=False, headers={"Accept-Encoding": "identity", "User-Agent": "Quorum"}
            ) as response,
        ):
            if response.status != 200:
                said = "sends on to another address" if 300 <= response.status < 400 else f"answers {response.status}"
                raise UpdateError(f"The feed {said}.", "Check the address of the feed, or try again later.")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise UpdateError("The feed sends compressed answers, which can't be verified.")
            yield response
    except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError) as error:
        raise UpdateError("The download of the update broke off.", "Try again.") from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UpdateError(
            f"The feed can't be reached ({type(error).__name__}).", "Check the network, or try again later."
        ) from error
