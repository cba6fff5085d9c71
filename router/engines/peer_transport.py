"""The streaming path to one peer: the connections of ``http1`` inside TLS, each compared with the pin before its use.

Small exchanges and the state stream go through ``peer_client``; here a chunk goes from the socket's callback through
the checks and the relay to the client's socket in one call.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from router.engines.base import Reply
from router.engines.http1 import Connection, Http1Reply, StaleError
from router.engines.peer_stream import PeerStream
from router.errors import EngineFault
from router.health import Failure
from router.peer_client import PeerFault, Place
from router.peer_tls import client_context, thin

KEEP_ALIVE_S: Final = 60.0
IDLE_MAX: Final = 256
HANDSHAKES: Final = 16  # at once: of 256 at once each takes as long as all, and more than it is given
REST_S: Final = 0.05
SIGN_BYTES: Final = 4096  # of an event that is not whole yet: less is no sign of life


class PeerTransport:
    """Connections to one peer, kept between requests; ``headers`` are read at each call. ``close`` lets it go."""

    def __init__(self, name: str, certificate_sha256: bytes, headers: dict[str, str]) -> None:
        self._name = name
        self._pin = certificate_sha256
        self._headers = headers
        self._context: ssl.SSLContext | None = None
        self._idle: list[Connection] = []
        self._doors = asyncio.Semaphore(HANDSHAKES)
        self._silent: tuple[float, Place] | None = None  # when and where nobody answered last

    def close(self) -> None:
        """Close what is kept; what runs goes on."""
        for connection in self._idle:
            connection.broke("closed")
        self._idle.clear()

    @asynccontextmanager
    async def post(
        self, place: Place, path: str, body: bytes, connect_s: float, limit: asyncio.Timeout | None = None
    ) -> AsyncIterator[Http1Reply]:
        """The head of the answer. Leaving early closes the connection. Raises PeerFault.

        The caller bounds the time; ``limit`` stands still while others of this node shake hands with the peer.
        """
        host = f"[{place[0]}]" if ":" in place[0] else place[0]
        lines = "".join(f"{field}: {value}\r\n" for field, value in self._headers.items())
        head = f"POST {path} HTTP/1.1\r\nHost: {host}:{place[1]}\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
        connection, status = await self._send(place, head.encode("latin-1", "replace") + body, connect_s, limit)
        try:
            if 300 <= status < 400:
                raise PeerFault(f"{self._name} answered with a redirect, which is never followed.", Failure.BROKEN)
            if connection.headers.get("content-encoding", "identity").lower() != "identity":
                raise PeerFault(f"{self._name} sent a compressed answer, not asked for.", Failure.BROKEN)
            yield Http1Reply(connection, status)
        finally:
            self._give_back(connection)

    async def _send(
        self, place: Place, request: bytes, connect_s: float, limit: asyncio.Timeout | None
    ) -> tuple[Connection, int]:
        while True:
            connection, fresh = self._kept(place), False
            if connection is None:
                connection, fresh = await self._wait(place, connect_s, limit)
            try:
                return connection, await connection.send(request)
            except StaleError:
                connection.broke("closed")
                self.close()  # the others are as old: nobody is asked more than once more
                if fresh:
                    raise PeerFault(f"{self._name} closes every connection.", Failure.BROKEN) from None
            except EngineFault as fault:
                connection.broke("left")
                raise PeerFault(f"{self._name} {connection.fault} without an answer.", Failure.BROKEN) from fault
            except BaseException:
                connection.broke("left")
                raise

    async def _wait(self, place: Place, connect_s: float, limit: asyncio.Timeout | None) -> tuple[Connection, bool]:
        """Its turn at the door: a connection, and whether it is new. Whoever waited behind a silence shares it."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        if limit is not None and self._doors.locked():
            until = limit.when()
            limit.reschedule(None)
            await self._doors.acquire()
            limit.reschedule(None if until is None else until + loop.time() - asked)
        else:
            await self._doors.acquire()
        try:
            if self._silent is not None and self._silent[0] > asked and self._silent[1] == place:
                raise self._silence()
            if (kept := self._kept(place)) is not None:
                return kept, False
            return await self._connect(place, connect_s), True
        finally:
            self._doors.release()

    def _silence(self) -> PeerFault:
        return PeerFault(f"{self._name} did not answer in time.", Failure.SILENT)

    async def _connect(self, place: Place, connect_s: float) -> Connection:
        if self._context is None:
            self._context = client_context()
        try:
            async with asyncio.timeout(connect_s):
                transport, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(place),
                    *place,
                    ssl=self._context,
                    server_hostname="quorum",
                    ssl_handshake_timeout=2 * connect_s,
                )
        except TimeoutError:
            self._silent = asyncio.get_running_loop().time(), place
            raise self._silence() from None
        except (OSError, ValueError) as error:
            raise PeerFault(f"{self._name} can't be reached.", Failure.UNREACHABLE) from error
        thin(transport.get_extra_info("socket"))
        certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
        if not hmac.compare_digest(hashlib.sha256(certificate).digest(), self._pin):
            connection.broke("shows another certificate")
            raise PeerFault(
                f"Another computer answers at the address of {self._name}.",
                Failure.SILENT,
                "Its certificate is not the one that was paired; if it was set up anew, pair it again.",
            )
        return connection

    def _kept(self, place: Place) -> Connection | None:
        """The connection used last, if it is still open and leads there."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            usable = connection.transport is not None and now - connection.idle_since < KEEP_ALIVE_S
            if usable and connection.place == place:
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
        self._idle.append(connection)
        if len(self._idle) > IDLE_MAX:
            self._idle.pop(0).broke("closed")


class PeerReply(Reply):
    """A peer's answer after the checks of ``PeerStream``; silence ends it. ``quiet_s``: before content, after it."""

    def __init__(self, label: str, kind: str, source: Http1Reply, quiet_s: tuple[float, float]) -> None:
        super().__init__(200, kind, self._pull())
        self.stream: PeerStream | None = None
        self._label = label
        self._source = source
        self._quiet_s = quiet_s
        self._paused = False
        self._silent = False
        self._heard = 0.0
        self._events = 0
        self._came = 0
        self._watch: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()  # asking for it at each chunk costs a system call

    @property
    def _checked(self) -> PeerStream:
        assert self.stream is not None  # noqa: S101 - set before the reply is handed out
        return self.stream

    async def accepted(self) -> None:
        """Until the peer has taken the request; the caller bounds the time. Raises PeerFault."""
        while not self._checked.accepted:
            self._checked.feed(await self._read())

    async def _read(self) -> bytes:
        try:
            return await anext(self._source.chunks)
        except StopAsyncIteration:
            raise self._ended() from None
        except PeerFault:
            raise
        except EngineFault as fault:
            raise PeerFault(f"The connection to {self._label} broke.", Failure.BROKEN) from fault

    def _ended(self) -> PeerFault:
        return PeerFault(f"{self._label} closed the stream before its end.", Failure.BROKEN)

    @property
    def _limit_s(self) -> float:
        return self._quiet_s[self._checked.content]

    def _signs(self, data: bytes) -> None:
        """Whole events are signs of life, and so is much of one that is not whole yet; single bytes are none."""
        self._came += len(data)
        if self._checked.events != self._events or self._came >= SIGN_BYTES:
            self._events, self._came = self._checked.events, 0
            self._heard = self._loop.time()

    async def each(self, took: Callable[[bytes], bool]) -> None:
        stream = self._checked
        if (out := stream.take()) and took(out):
            return
        if stream.fault is not None:
            raise stream.fault
        loop = self._loop
        self._heard = loop.time()

        def came(data: bytes) -> bool:
            stream.feed(data)
            self._signs(data)
            if (out := stream.take()) and took(out):
                return True
            if stream.fault is not None:
                raise stream.fault
            return stream.ended

        self._watch = loop.call_later(self._limit_s, self._look)
        try:
            await self._source.each(came)
        except PeerFault:
            raise
        except EngineFault as fault:
            if self._silent:
                raise PeerFault(f"{self._label} said nothing for {self._limit_s:g} s.", Failure.SILENT) from None
            raise PeerFault(f"The connection to {self._label} broke.", Failure.BROKEN) from fault
        finally:
            self._watch.cancel()
        if not stream.ended and self._source.unfinished:
            raise self._ended()

    def _look(self) -> None:
        """Nothing for too long ends it, unless it is this side that does not read."""
        loop = self._loop
        if self._paused:
            self._heard = loop.time()
        left_s = self._heard + self._limit_s - loop.time()
        if left_s > 0.001:
            self._watch = loop.call_later(left_s, self._look)
            return
        self._silent = True
        self._source.abort("fell silent")

    async def _pull(self) -> AsyncIterator[bytes]:
        stream = self._checked
        loop = self._loop
        self._heard = loop.time()
        while True:
            if out := stream.take():
                yield out
                self._heard = loop.time()  # this side may have taken its time
            if stream.ended:
                with contextlib.suppress(TimeoutError, EngineFault):
                    async with asyncio.timeout(REST_S):
                        async for _ in self._source.chunks:  # the end of the answer: the connection serves again
                            pass
                return
            if stream.fault is not None:
                raise stream.fault
            try:
                async with asyncio.timeout_at(self._heard + self._limit_s):
                    data = await self._read()
            except TimeoutError:
                raise PeerFault(f"{self._label} said nothing for {self._limit_s:g} s.", Failure.SILENT) from None
            stream.feed(data)
            self._signs(data)

    def pause(self) -> None:
        self._paused = True
        self._source.pause()

    def resume(self) -> None:
        self._paused = False
        self._source.resume()
