"""A real Listener with a small application, and raw sockets to talk to it byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from router.settings import Settings, Value
from router.web.answers import json_answer
from router.web.connection import Limits
from router.web.guard import Guard
from router.web.keys import key_id
from router.web.server import Listener
from router.web.strict_json import decode

TOKEN = "c0ffee" * 10 + "f00d"
GOOD_KEY = "Bearer qk-good"
BOUND_S = 5.0


class MemorySessions:
    """Sessions in memory."""

    def __init__(self) -> None:
        self.hashes: set[str] = set()

    def known(self, token_hash: str) -> bool:
        return token_hash in self.hashes

    async def add(self, token_hash: str) -> None:
        self.hashes.add(token_hash)


class OneKey:
    """One good API key, called key-1."""

    def check(self, authorization: str) -> str | None:
        return "key-1" if authorization == GOOD_KEY else None


@dataclass
class Answer:
    """One parsed answer."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Served:
    """A listener that runs, its guard, and what its handlers saw."""

    listener: Listener
    guard: Guard
    settings: Settings
    sessions: MemorySessions
    seen: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.listener.port

    @property
    def host(self) -> bytes:
        """A good Host line."""
        return b"Host: localhost:%d\r\n" % self.port

    def post(
        self,
        body: bytes,
        extra: bytes = b"",
        *,
        path: bytes = b"/v1/chat/completions",
        host: bytes | None = None,
        kind: bytes = b"Content-Type: application/json\r\n",
    ) -> bytes:
        """The bytes of a POST."""
        head = b"POST %b HTTP/1.1\r\n" % path + (self.host if host is None else host) + kind + extra
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def get(self, path: bytes = b"/v1/models", extra: bytes = b"", *, host: bytes | None = None) -> bytes:
        """The bytes of a GET."""
        return b"GET %b HTTP/1.1\r\n" % path + (self.host if host is None else host) + extra + b"\r\n"

    async def ask(self, data: bytes, address: str = "127.0.0.1") -> Answer:
        """Send ``data`` on a new connection and read one answer."""
        reader, writer = await asyncio.open_connection(address, self.port)
        try:
            writer.write(data)
            async with asyncio.timeout(BOUND_S):
                return await read_answer(reader)
        finally:
            writer.close()

    @asynccontextmanager
    async def connection(
        self, address: str = "127.0.0.1", port: int = 0
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection that closes with the block."""
        reader, writer = await asyncio.open_connection(address, port or self.port)
        try:
            yield reader, writer
        finally:
            writer.close()


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """The next answer on a connection. Raises IncompleteReadError when it closes first."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    status = int(head[0].split(" ")[1])
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    elif headers.get("transfer-encoding") == "chunked":
        body = await _chunks(reader)
    else:
        body = b""
    return Answer(status, headers, body)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


async def closed(reader: asyncio.StreamReader) -> bytes:
    """Everything until the other side closes; TimeoutError when it does not."""
    async with asyncio.timeout(BOUND_S):
        try:
            return await reader.read(-1)
        except ConnectionError:
            return b""


def small_app(served: Served) -> web.Application:
    """Routes of each surface that answer at once."""
    app = web.Application()

    async def echo(request: web.Request) -> web.Response:
        served.seen.append(request.path)
        body = await request.read()
        served.bodies.append(body)
        return json_answer({"keys": len(decode(body)), "key": key_id(request)})

    async def listing(request: web.Request) -> web.Response:
        served.seen.append(request.path)
        return json_answer({"data": [], "key": key_id(request)})

    for path in ("/v1/chat/completions", "/api/chat", "/v1/embeddings", "/local/v1/pause", "/v1/messages"):
        app.router.add_post(path, echo)
    app.router.add_post("/local/v1/chats/{id}/messages", echo)
    app.router.add_post("/local/v1/session", served.guard.open_session)
    for path in ("/v1/models", "/v1/models/{name:.+}", "/api/tags", "/local/v1/status", "/healthz", "/metrics", "/"):
        app.router.add_get(path, listing)
    return app


@asynccontextmanager
async def serving(
    limits: Limits | None = None,
    *,
    keys: bool = False,
    also: tuple[tuple[str, int], ...] = (),
    app: web.Application | None = None,
    **settings: Value,
) -> AsyncIterator[Served]:
    """A listener on a free port with ``settings`` in force."""
    values: Mapping[str, Value] = settings
    held = Settings(None, environ={})
    held.update(values)
    sessions = MemorySessions()
    guard = Guard(held, TOKEN, sessions, OneKey() if keys else None)
    served = Served(listener=None, guard=guard, settings=held, sessions=sessions)  # type: ignore[arg-type]
    served.listener = Listener(app or small_app(served), guard, limits)
    await served.listener.start(0, also)
    try:
        yield served
    finally:
        await served.listener.stop()
