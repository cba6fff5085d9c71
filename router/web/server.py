"""The listener: one aiohttp application on several sockets, with the limits on time and number that aiohttp lacks."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

import psutil
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage

from router.errors import StartError
from router.web.answers import answer_for
from router.web.connection import Connection, Limits, Population
from router.web.guard import body_limit

log = logging.getLogger(__name__)

BACKLOG: Final = 512
_BUSY: Final = frozenset({errno.EADDRINUSE, errno.EACCES})
_NO_SUCH_ADDRESS: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


class Check(Protocol):
    """What the listener needs of the guard."""

    def check(self, request: web.BaseRequest) -> web.Response | None: ...
    def bound(self, addresses: Iterable[tuple[str, int]]) -> None: ...
    async def finish(self, request: web.Request, response: web.StreamResponse) -> None: ...


class Closable(Protocol):
    """Whatever takes connections at one socket."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Socket:
    """One address where connections are taken."""

    server: Closable
    host: str
    port: int


class Listener:
    """Serves ``app`` behind ``guard``. ``start`` raises StartError; ``stop`` ends every connection."""

    def __init__(self, app: web.Application, guard: Check, limits: Limits | None = None) -> None:
        self._guard = guard
        self._limits = limits or Limits()
        app.on_response_prepare.append(guard.finish)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        self._sockets: list[Socket] = []
        self._population = Population(self._limits)
        self._server: web.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self.port = 0
        self.refused: list[str] = []

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """(host, port) of each socket."""
        return [(one.host, one.port) for one in self._sockets]

    @property
    def connections(self) -> int:
        """Open connections now."""
        return len(self._population)

    async def emptied(self) -> None:
        """Wait until no connection is open."""
        await self._population.emptied()

    async def start(self, port: int, also: Iterable[tuple[str, int]] = ()) -> None:
        """Answer on 127.0.0.1 and ::1 at ``port`` (0: one that is free on both), and at ``also`` where it can be had.

        Raises StartError when ``port`` is taken. What was refused of ``also`` is in ``refused`` as sentences.
        """
        raise_open_files(self._limits.connections)
        bound = _bind_pair(port)
        for host, other in also:
            try:
                bound.append(bind(host, other))
            except OSError as error:
                self.refused.append(_taken(error, host, other).message)
                log.warning("not answering at %s port %d: %s", host, other, error.strerror)
        await self._prepare()
        for one in bound:
            await self._serve(one)
        self.port = self._sockets[0].port
        self._guard.bound(self.addresses)

    async def add(self, host: str, port: int) -> None:
        """Answer at one more address. Raises OSError when it can't be had."""
        await self._serve(bind(host, port))
        self._guard.bound(self.addresses)

    async def remove(self, host: str, port: int) -> None:
        """Stop taking connections at an address; those that are open stay."""
        for one in [one for one in self._sockets if (one.host, one.port) == (host, port)]:
            one.server.close()
            self._sockets.remove(one)
        self._guard.bound(self.addresses)

    async def stop(self) -> None:
        """Take no new connections, give running answers ``stop_s`` seconds, then cut."""
        if self._sweep is not None:
            self._sweep.cancel()
        for one in self._sockets:
            one.server.close()
        self._sockets.clear()
        if self._server is not None:
            self._server.pre_shutdown()
        await self._population.end(self._limits.stop_s)
        await self._runner.cleanup()
        self._server = None

    async def _prepare(self) -> None:
        await self._runner.setup()
        server = self._runner.server
        assert server is not None  # noqa: S101 - setup made it
        inner = server.request_handler
        check = self._guard.check

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            refusal = check(request)
            if refusal is not None:
                return refusal
            try:
                return await inner(request)
            except (ConnectionError, web.HTTPRedirection):
                raise
            except Exception as exception:
                return answer_for(request, exception)

        server.request_handler = handle
        server.request_factory = _request
        self._server = server
        self._look()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._population.sweep(loop.time())
        self._sweep = loop.call_later(self._limits.look_s, self._look)

    async def _serve(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        host, port = sock.getsockname()[:2]
        server = await loop.create_server(self._connection, sock=sock, backlog=BACKLOG, start_serving=False)
        self._sockets.append(Socket(server, host, port))  # before the loop turns: a cancelled start is closed, too
        await server.start_serving()

    def _connection(self) -> Connection:
        assert self._server is not None  # noqa: S101 - sockets open after _prepare
        return Connection(self._server, self._population, asyncio.get_running_loop())


def raise_open_files(connections: int) -> int:
    """Let this process hold two sockets a connection and some files; the bound then in force.

    Many systems begin with 1,024 and allow far more on request; where they don't, accepting waits when it is reached.
    """
    if sys.platform == "win32":
        return 0  # there is none
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.Request:
    """A request whose ``read()`` stops at the bound of its route."""
    limit = body_limit(message.path.partition("?")[0])
    loop = asyncio.get_running_loop()
    return web.Request(message, payload, protocol, writer, task, loop, client_max_size=limit)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _bind_pair(port: int) -> list[socket.socket]:
    """127.0.0.1 and, where there is IPv6, ::1 at the same port."""
    for attempt in range(20):
        try:
            first = bind("127.0.0.1", port)
        except OSError as error:
            raise _taken(error, "127.0.0.1", port) from error
        try:
            return [first, bind("::1", first.getsockname()[1])]
        except OSError as error:
            if error.errno in _NO_SUCH_ADDRESS:
                log.info("no IPv6 loopback here; answering on 127.0.0.1 only")
                return [first]
            first.close()
            if port or attempt == 19:
                raise _taken(error, "::1", port) from error
    raise AssertionError


def _taken(error: OSError, host: str, port: int) -> StartError:
    if error.errno not in _BUSY:
        return StartError(
            f"Quorum can't listen at {host} port {port}: {error.strerror}.",
            "Start it with another '--port N', or change the setting 'port' (QUORUM_PORT).",
        )
    owner = _owner(port) if error.errno == errno.EADDRINUSE else ""
    what = f"is taken by {owner}" if owner else "is taken by another program"
    if error.errno == errno.EACCES:
        what = "may not be used by this user"
    return StartError(
        f"Port {port} {what}.",
        "Stop that program, start Quorum with another '--port N', or change the setting 'port' (QUORUM_PORT).",
    )


def _owner(port: int) -> str:
    """The program that listens at ``port``, where the system tells."""
    with suppress(psutil.Error, OSError):
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid:
                return f"'{psutil.Process(one.pid).name()}' (process {one.pid})"
    return ""
