"""One client connection: aiohttp's, with the limits on time, size and number that it lacks."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD

from router.errors import failure
from router.logs import place_of
from router.web.answers import SAFE_HEADERS, error_answer, shape_of
from router.web.hosts import is_loopback

log = logging.getLogger(__name__)

_HEAD_END: Final = b"\r\n\r\n"


READ_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, bytes and counts a client gets."""

    head_s: float = 10.0
    body_stall_s: float = 30.0
    body_s: float = 600.0
    idle_s: float = 75.0
    unread_s: float = 300.0
    linger_s: float = 1.0
    stop_s: float = 2.0
    look_s: float = 1.0
    head_bytes: int = 65_536
    headers: int = 100
    connections: int = 2048
    per_address: int = 64


class Population:
    """The open connections of a listener, by address."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._all: set[Connection] = set()
        self._by_address: Counter[str] = Counter()
        self._empty = asyncio.Event()

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, connection: Connection, address: str, *, local: bool) -> bool:
        """Count ``connection`` in, unless the bounds are reached; only loopback has no bound of its own."""
        if len(self._all) >= self.limits.connections:
            log.warning("refused a connection: %d are open", len(self._all))
            return False
        if not local and self._by_address[address] >= self.limits.per_address:
            log.warning("refused a connection of %s: it has %d", address, self._by_address[address])
            return False
        self._all.add(connection)
        self._by_address[address] += 1
        return True

    def leave(self, connection: Connection, address: str) -> None:
        """Count it out."""
        if connection not in self._all:
            return
        self._all.discard(connection)
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
        if not self._all:
            self._empty.set()

    def sweep(self, now: float) -> None:
        """Close whoever is over a limit of time at ``now``."""
        for connection in [one for one in self._all if one.overdue(now)]:
            connection.cut()

    async def emptied(self) -> None:
        """Wait until all have left."""
        while self._all:
            self._empty.clear()
            await self._empty.wait()

    async def end(self, grace_s: float) -> None:
        """Wait until all have left, at most ``grace_s`` seconds; then cut the rest, which cancels their handlers."""
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self.emptied()
        for connection in list(self._all):
            connection.cut()


class Connection(web.RequestHandler):
    """aiohttp's protocol that also notes when a head or a body began and when it last moved."""

    __slots__ = ("_address", "_body", "_body_since", "_head_bytes", "_head_since", "_moved", "_population",
                 "_unread_since", "local")  # fmt: skip

    def __init__(self, server: web.Server, population: Population, loop: asyncio.AbstractEventLoop) -> None:
        limits = population.limits
        options: dict[str, Any] = {"access_log": None, "max_headers": limits.headers}
        super().__init__(
            server,
            loop=loop,
            auto_decompress=False,
            keepalive_timeout=limits.idle_s,
            lingering_time=limits.linger_s,
            **options,
        )
        self._population = population
        self._address = ""
        self.local = False
        self._head_since = 0.0
        self._head_bytes = 0
        self._body: StreamReader | None = None
        self._body_since = 0.0
        self._moved = 0.0
        self._unread_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit it, or close it at once."""
        here = transport.get_extra_info("sockname")
        there = transport.get_extra_info("peername")
        self._address = str(there[0]) if there else ""
        self.local = bool(here) and is_loopback(str(here[0]))
        if not self._population.admit(self, self._address, local=self.local):
            self._force_close = True
            transport.close()
            return
        self._head_since = self._loop.time()
        if hasattr(transport, "max_size"):  # asyncio's own reads into a fresh 256 KiB, which costs memory and time
            transport.max_size = READ_BYTES
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it out."""
        self._population.leave(self, self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, then note what the data was part of."""
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._head_bytes = 0
            payload = self._messages[-1][1] if self._messages else None
            if payload is None or payload.is_eof():
                self._body = None
                # Behind a whole request without a body lies the start of the next one.
                self._head_since = 0.0 if data[-4:] == _HEAD_END or payload is not EMPTY_PAYLOAD else self._loop.time()
            else:
                self._head_since = 0.0
                self._body = payload
                self._body_since = self._moved = self._loop.time()
        elif self._body is not None:
            if self._body.is_eof():
                self._body = None
            else:
                self._moved = self._loop.time()
        elif data:
            if not self._head_since:
                self._head_since = self._loop.time()
            self._head_bytes += len(data)
            if self._head_bytes > self._population.limits.head_bytes:
                self.cut()

    def overdue(self, now: float) -> bool:
        """Whether a limit of time is over. A body that this side does not read is not the client's fault."""
        limits = self._population.limits
        if self._head_since and now - self._head_since > limits.head_s:
            return True
        body = self._body
        if body is not None and not body.is_eof() and not self._reading_paused:
            return now - self._moved > limits.body_stall_s or now - self._body_since > limits.body_s
        if not self.writing_paused:
            self._unread_since = 0.0
        elif not self._unread_since:
            self._unread_since = now
        return bool(self._unread_since) and now - self._unread_since > limits.unread_s

    def cut(self) -> None:
        """Close it now, with whatever is unsent."""
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what never reached a handler. Unlike aiohttp's, neither it nor the log repeats the bytes."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun")
        if isinstance(exc, HttpProcessingError):
            error = failure("bad_request", "The request is not well-formed HTTP.")
        elif isinstance(exc, ConnectionError):
            raise exc
        else:
            log.error("a request failed outside its handler: %s", place_of(exc) if exc else status)
            error = failure("internal", "Something went wrong inside Quorum.")
        answer = error_answer(shape_of(request.path), error)
        answer.headers.update(SAFE_HEADERS)
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Without the text of the exception, which may repeat what a client sent."""
        error = kw.get("exc_info")
        place = place_of(error) if isinstance(error, BaseException) else "unknown"
        log.error("a connection failed: %s", place)
