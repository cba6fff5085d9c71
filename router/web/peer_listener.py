"""The listener of the peer surface: TLS, with bounds on who is not known yet that count from the first packet.

A connection is a stranger's until a request on it proves a paired computer. asyncio tells of a TLS connection only
after its handshake, so sockets are accepted here and counted before it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage

from router.aio import Tasks
from router.errors import StartError
from router.peer_tls import thin
from router.web.connection import Connection, Limits, Population
from router.web.peer_guard import PeerGuard, body_limit
from router.web.server import Listener, Socket, bind, raise_open_files

log = logging.getLogger(__name__)

PORTS: Final = 20
PAUSE_S: Final = 0.2
SAID_S: Final = 60.0  # between two lines of the log about refused connections, however many there are


@dataclass(frozen=True, slots=True)
class PeerLimits(Limits):
    """Seconds and counts on the peer surface. ``strangers`` are connections of one address that prove nobody."""

    idle_s: float = 120.0
    handshake_s: float = 5.0
    strangers: int = 64
    strangers_in_all: int = 512
    known: int = 1024
    a_peer: int = 512


class Doors:
    """Counts the connections of strangers by address, and the others by peer."""

    def __init__(self, limits: PeerLimits) -> None:
        self._limits = limits
        self._strangers: Counter[str] = Counter()
        self._known: Counter[str] = Counter()
        self._silent_until = 0.0
        self.of_peer: dict[str, set[PeerConnection]] = {}

    def enter(self, host: str) -> bool:
        """Count a new connection from ``host`` in, unless too many of it prove nobody."""
        known = bool(self._known[host])
        most = self._limits.known if known else self._limits.strangers
        if self._strangers[host] >= most or (not known and self._in_all() >= self._limits.strangers_in_all):
            self._say_refused(self._strangers[host])
            return False
        self._strangers[host] += 1
        return True

    def _say_refused(self, strangers: int) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._silent_until:
            self._silent_until = now + SAID_S
            log.warning("refused a connection: %d of one address prove nobody", strangers)

    def _in_all(self) -> int:
        return self._strangers.total()

    def leave(self, host: str) -> None:
        """A stranger's connection ended, or is a stranger's no more."""
        _less(self._strangers, host)

    def prove(self, connection: PeerConnection, node_id: str) -> str:
        """A request proved whose the connection is. The code of the refusal: it is another's, or there are too many."""
        if connection.node_id:
            return "" if connection.node_id == node_id else "unauthorized"
        mine = self.of_peer.setdefault(node_id, set())
        if len(mine) >= self._limits.a_peer:
            return "queue_full"
        mine.add(connection)
        connection.node_id = node_id
        connection.leave()
        self._known[connection.host] += 1
        return ""

    def forget(self, connection: PeerConnection) -> None:
        """The connection of a peer ended."""
        mine = self.of_peer.get(connection.node_id, set())
        mine.discard(connection)
        if not mine:
            self.of_peer.pop(connection.node_id, None)
        _less(self._known, connection.host)

    def cut(self, node_id: str) -> None:
        """Close all connections of a peer now; their handlers are cancelled."""
        for connection in tuple(self.of_peer.get(node_id, ())):
            connection.cut()


def _less(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]


class PeerConnection(Connection):
    """A connection that knows whose it is."""

    __slots__ = ("_doors", "_stranger", "host", "node_id")

    def __init__(
        self, server: web.Server, population: Population, loop: asyncio.AbstractEventLoop, doors: Doors, host: str
    ) -> None:
        super().__init__(server, population, loop)
        self._doors = doors
        self._stranger = True
        self.host = host
        self.node_id = ""

    def leave(self) -> None:
        """It is a stranger's no more."""
        if self._stranger:
            self._stranger = False
            self._doors.leave(self.host)

    def prove(self, node_id: str) -> str:
        """A request on it proved to be ``node_id``'s; the code of the refusal, empty when it may go on."""
        return self._doors.prove(self, node_id)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it out."""
        self.leave()
        if self.node_id:
            self._doors.forget(self)
        super().connection_lost(exc)


class _Door:
    """One listening socket and the task that accepts at it."""

    def __init__(self, sock: socket.socket, task: asyncio.Task[None]) -> None:
        self._task = task
        task.add_done_callback(lambda _: sock.close())  # not before: the loop still watches it

    def close(self) -> None:
        self._task.cancel()


class PeerListener(Listener):
    """Serves ``app`` to peers. ``open`` raises StartError; ``stop`` ends every connection."""

    def __init__(
        self,
        app: web.Application,
        guard: PeerGuard,
        context: ssl.SSLContext,
        tasks: Tasks,
        limits: PeerLimits | None = None,
    ) -> None:
        limits = limits or PeerLimits()
        super().__init__(app, guard, replace(limits, per_address=limits.connections))
        self.doors = Doors(limits)
        self._context = context
        self._tasks = tasks
        self._handshake_s = limits.handshake_s
        self._handshakes: set[asyncio.Task[None]] = set()

    async def open(self, addresses: Sequence[str], port: int) -> int:
        """Answer at all of ``addresses`` that can be had, at ``port`` or the next that is free (0: any); which it is.

        Raises StartError when none can be had.
        """
        raise_open_files(self._limits.connections)
        bound = _bind_all(addresses, port)
        await self._prepare()
        server = self._server
        assert server is not None  # noqa: S101 - made by _prepare
        server.request_factory = _request
        for sock in bound:
            await self._serve(sock)
        self.port = self._sockets[0].port
        self._guard.bound(self.addresses)
        return self.port

    async def follow(self, addresses: Sequence[str]) -> None:
        """The addresses of this computer changed: answer at the new ones, stop at those that went."""
        for host, port in self.addresses:
            if host not in addresses:
                await self.remove(host, port)
        for host in addresses:
            if (host, self.port) not in self.addresses:
                try:
                    await self.add(host, self.port)
                except OSError as error:
                    log.warning("peers can't reach this computer at one of its addresses: %s", error.strerror)

    async def stop(self) -> None:
        """Take no new connections, end those that still shake hands, give running answers a moment, then cut."""
        for one in self._sockets:
            one.server.close()
        for task in tuple(self._handshakes):
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)
        await super().stop()

    async def _serve(self, sock: socket.socket) -> None:
        host, port = sock.getsockname()[:2]
        task = self._tasks.spawn("accept", self._accept(sock))
        self._sockets.append(Socket(_Door(sock, task), host, port))

    async def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(sock)
            except OSError as error:
                if sock.fileno() < 0:
                    return
                log.warning("a connection could not be accepted: %s", error.strerror)
                await asyncio.sleep(PAUSE_S)
                continue
            host = str(address[0])
            if self.doors.enter(host):
                task = self._tasks.spawn("handshake", self._secure(connection, host))
                self._handshakes.add(task)
                task.add_done_callback(self._handshakes.discard)
            else:
                connection.close()

    async def _secure(self, sock: socket.socket, host: str) -> None:
        """TLS, in time or not at all."""
        loop = asyncio.get_running_loop()
        server = self._server
        if server is None:
            self.doors.leave(host)
            sock.close()
            return
        made = PeerConnection(server, self._population, loop, self.doors, host)
        thin(sock)
        try:
            await loop.connect_accepted_socket(
                lambda: made,
                sock,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_s,
                ssl_shutdown_timeout=self._limits.linger_s,
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            log.debug("a handshake failed: %s", type(error).__name__)
            made.leave()
            sock.close()
        except asyncio.CancelledError:
            made.leave()
            sock.close()
            raise


def _bind_all(addresses: Sequence[str], port: int) -> list[socket.socket]:
    """Sockets at one port on all addresses that this computer has. Raises StartError."""
    last: OSError | None = None
    for attempt in range(PORTS):
        bound: list[socket.socket] = []
        try:
            wanted = port + attempt if port else 0
            for host in addresses:
                try:
                    bound.append(bind(host, wanted))
                except OSError as error:
                    if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL):
                        raise
                    last = error
                else:
                    wanted = bound[0].getsockname()[1]
        except OSError as error:
            last = error
            for sock in bound:
                with suppress(OSError):
                    sock.close()
            continue
        if bound:
            return bound
        break
    raise StartError(
        f"Paired computers can't reach this one: {last.strerror if last else 'it has no address in a network'}.",
        "Change the setting 'peer_port' (QUORUM_PEER_PORT), or connect to a network.",
    )


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
