"""The streaming path to engines: HTTP/1.1 over plain TCP, parsed by llhttp, bytes handed on as they arrive.

A general client costs a third of what the router spends on a request and a task switch for every chunk. Here a chunk
goes from the socket's callback through the relay to the client's socket in one call. What isn't plain ``http`` and
every small exchange goes through the general transport.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import httptools
from yarl import URL

from router.engines.base import Reply
from router.engines.transport import CONNECT_S, KEEP_ALIVE_S, POLL_S, HttpTransport
from router.errors import EngineFault

HEAD_MAX_BYTES: Final = 64 * 1024
IDLE_MAX: Final = 256
PULL_BYTES: Final = 256 * 1024

_Place = tuple[str, int]


# Every connection reads into the same memory, because the parser copies what it keeps before the next one reads.
_BUFFER: Final = memoryview(bytearray(256 * 1024))


class StaleError(Exception):
    """A kept connection had been closed by the engine before the request reached it."""


class Connection(asyncio.BufferedProtocol):
    """One connection: a request at a time, its answer's head as a future, its body pushed or collected."""

    def __init__(self, place: _Place) -> None:
        self.place = place
        self.transport: asyncio.Transport | None = None
        self.idle_since = 0.0
        self.used = False
        self._parser: Any = None
        self._reset()

    def _reset(self) -> None:
        self.headers: dict[str, str] = {}
        self.parts: list[bytes] = []
        self.complete = False
        self.status = 0
        self.keep = False
        self.head: asyncio.Future[None] | None = None
        self.took: Callable[[bytes], bool] | None = None
        self.done: asyncio.Future[None] | None = None
        self.news: asyncio.Future[None] | None = None
        self.fault: str = ""
        self._head_bytes = 0
        self._until_close = False

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # TCP gives no other; libuv's is no subclass of it

    def get_buffer(self, sizehint: int) -> memoryview:
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        self._received(_BUFFER[:nbytes])

    def _received(self, data: memoryview) -> None:
        if self._parser is None or self.complete:
            self.broke("sent more than it was asked for")
            return
        if self._head_bytes >= 0:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.broke("sent something that is not HTTP")
            return
        if self._head_bytes > HEAD_MAX_BYTES:
            self.broke("sent an endless head")
            return
        if self.parts and self.took is not None:
            self._push()
        elif self.news is not None and not self.news.done():
            self.news.set_result(None)
        elif self.took is None and sum(map(len, self.parts)) > PULL_BYTES and self.transport is not None:
            self.transport.pause_reading()

    def _push(self) -> None:
        parts, self.parts = self.parts, []
        assert self.took is not None  # noqa: S101 - the caller looked
        try:
            ended = self.took(parts[0] if len(parts) == 1 else b"".join(parts))
        except Exception as error:
            self.took = None
            if self.done is not None and not self.done.done():
                self.done.set_exception(error)
            return
        if ended:
            self.took = None
            self._settle(self.done)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._until_close and exc is None:
            self.on_message_complete()
        elif not self.complete:
            self.broke("closed the connection")

    def broke(self, why: str) -> None:
        """The exchange failed: whoever waits is told, the connection is of no more use."""
        if not self.complete:
            self.fault = self.fault or why
        self.keep = False
        for waiting in (self.head, self.done, self.news):
            self._settle(waiting)
        if self.transport is not None:
            self.transport.abort()

    @staticmethod
    def _settle(waiting: asyncio.Future[None] | None) -> None:
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    # -- the parser's side

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.complete:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self.complete:  # a second answer to one request
            self.keep = False
            return
        self._head_bytes = -1
        self.status = self._parser.get_status_code()
        self.keep = self._parser.should_keep_alive()
        self._until_close = "content-length" not in self.headers and "transfer-encoding" not in self.headers
        if self.status >= 200:
            self._settle(self.head)

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self.parts.append(body)

    def on_message_complete(self) -> None:
        if self.status < 200:  # 100 Continue and its like
            self.headers.clear()
            return
        self.complete = True
        if self.took is not None and self.parts:
            self._push()
        self._settle(self.done)
        self._settle(self.news)

    # -- the request's side

    async def send(self, request: bytes) -> int:
        """Send one request and wait for the answer's head: its status. Raises StaleError, EngineFault."""
        if self.transport is None or self.transport.is_closing():
            raise StaleError
        reused, self.used = self.used, True
        self._reset()
        self._parser = httptools.HttpResponseParser(self)
        self.head = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        await self.head
        if self.fault:
            if reused and not self.headers and self.fault == "closed the connection":
                raise StaleError
            raise EngineFault(f"The engine at {self.place[0]}:{self.place[1]} {self.fault}.")
        return self.status

    def middle(self) -> EngineFault:
        """The fault of an answer that broke off."""
        return EngineFault(f"The engine at {self.place[0]}:{self.place[1]} {self.fault} in the middle of its answer.")


class Http1Reply(Reply):
    """An answer whose bytes are pushed from the socket's callback."""

    def __init__(self, connection: Connection, status: int) -> None:
        kind = connection.headers.get("content-type", "").partition(";")[0].strip().lower()
        super().__init__(status, kind, self._pull(), connection.headers)
        self._connection = connection

    async def each(self, took: Callable[[bytes], bool]) -> None:
        connection = self._connection
        connection.done = asyncio.get_running_loop().create_future()
        connection.took = took
        self.resume()
        if connection.parts:
            connection._push()
        if connection.complete or connection.fault:
            connection._settle(connection.done)
        await connection.done
        if connection.fault and connection.took is not None:
            raise connection.middle()

    @property
    def unfinished(self) -> bool:
        """Whether it came to its end without ``took`` having said that it is one."""
        return self._connection.took is not None

    def abort(self, why: str) -> None:
        """Give it up: whoever reads it gets a fault."""
        self._connection.broke(why)

    async def _pull(self) -> AsyncIterator[bytes]:
        connection = self._connection
        while True:
            if connection.parts:
                parts, connection.parts = connection.parts, []
                self.resume()
                yield b"".join(parts)
            elif connection.complete:
                return
            elif connection.fault:
                raise connection.middle()
            else:
                connection.news = asyncio.get_running_loop().create_future()
                await connection.news

    def pause(self) -> None:
        if self._connection.transport is not None:
            self._connection.transport.pause_reading()

    def resume(self) -> None:
        if self._connection.transport is not None:
            self._connection.transport.resume_reading()


class Http1Transport:
    """``Transport`` for plain ``http`` addresses, with kept connections; everything else through ``general``."""

    def __init__(self, general: HttpTransport) -> None:
        self._general = general
        self._idle: dict[_Place, list[Connection]] = {}
        self._heads: dict[tuple[str, URL, tuple[tuple[str, str], ...]], bytes] = {}

    def drop_idle(self) -> None:
        """Close the connections that nobody uses now."""
        for connections in self._idle.values():
            for connection in connections:
                connection.broke("closed")
        self._idle.clear()
        self._general.drop_idle()

    async def close(self) -> None:
        """Close all connections."""
        self.drop_idle()
        await self._general.close()

    async def json(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        body: object = None,
        timeout_s: float = POLL_S,
    ) -> tuple[int, Any]:
        """A whole small exchange, through the general transport."""
        return await self._general.json(method, url, headers=headers, body=body, timeout_s=timeout_s)

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        connect_s: float = CONNECT_S,
    ) -> AsyncIterator[Reply]:
        """``async with`` gives the ``Reply``; leaving early closes the connection. No limit on time but to connect."""
        if url.scheme != "http" or url.host is None or url.port is None:
            async with self._general.open(method, url, headers=headers, body=body, connect_s=connect_s) as reply:
                yield reply
            return
        request = self._head(method, url, headers or {}) + b"%d\r\n\r\n" % len(body or b"") + (body or b"")
        connection, status = await self._send((url.host, url.port), request, connect_s)
        try:
            _refuse_odd(connection, status)
            yield Http1Reply(connection, status)
        finally:
            self._give_back(connection)

    async def _send(self, place: _Place, request: bytes, connect_s: float) -> tuple[Connection, int]:
        while True:
            connection = self._kept(place)
            fresh = connection is None
            if connection is None:
                connection = await self._connect(place, connect_s)
            try:
                return connection, await connection.send(request)
            except StaleError:
                connection.broke("closed")
                if fresh:
                    raise EngineFault(f"The engine at {place[0]}:{place[1]} closes every connection.") from None
            except BaseException:
                connection.broke("left")
                raise

    async def _connect(self, place: _Place, connect_s: float) -> Connection:
        try:
            async with asyncio.timeout(connect_s):
                _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(place), *place)
        except TimeoutError:
            raise EngineFault(f"The engine at {place[0]}:{place[1]} does not answer.") from None
        except OSError:
            raise EngineFault(f"The engine at {place[0]}:{place[1]} refused the connection: is it running?") from None
        return connection

    def _kept(self, place: _Place) -> Connection | None:
        """The connection used last, unless the engine may be closing it by now."""
        idle = self._idle.get(place)
        now = asyncio.get_running_loop().time()
        while idle:
            connection = idle.pop()
            if connection.transport is not None and now - connection.idle_since < KEEP_ALIVE_S:
                return connection
            connection.broke("closed")
        return None

    def _give_back(self, connection: Connection) -> None:
        transport = connection.transport
        if not connection.complete or not connection.keep or connection.parts or transport is None:
            connection.broke("left")
            return
        transport.resume_reading()
        connection.idle_since = asyncio.get_running_loop().time()
        idle = self._idle.setdefault(connection.place, [])
        idle.append(connection)
        if len(idle) > IDLE_MAX:
            idle.pop(0).broke("closed")

    def _head(self, method: str, url: URL, headers: Mapping[str, str]) -> bytes:
        """The request's head up to the value of Content-Length; the same for most requests, so kept."""
        key = (method, url, tuple(headers.items()))
        head = self._heads.get(key)
        if head is None:
            fields = {"Host": url.authority, "User-Agent": "quorum", "Accept-Encoding": "identity", **headers}
            lines = [f"{method} {url.raw_path_qs} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
            if any(sign in line for line in lines for sign in "\r\n\0"):
                raise EngineFault("The address or key of the engine has a character that can't be sent.")
            if len(self._heads) > IDLE_MAX:
                self._heads.clear()
            head = self._heads[key] = "\r\n".join([*lines, "Content-Length: "]).encode("latin-1", "replace")
        return head


def _refuse_odd(connection: Connection, status: int) -> None:
    """Redirects and compressed answers are not accepted."""
    where = f"The engine at {connection.place[0]}:{connection.place[1]}"
    if 300 <= status < 400:
        raise EngineFault(f"{where} redirects elsewhere.")
    if connection.headers.get("content-encoding", "identity").lower() != "identity":
        raise EngineFault(f"{where} compresses its answers.")
