"""Calls to one paired peer: over its pinned certificate, with the secret of the pair, in bounded time.

Whatever goes wrong is a ``PeerFault`` that says how: nothing is sent before the certificate has been compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final
from weakref import WeakSet

import aiohttp
import msgspec
from aiohttp import ClientTimeout, hdrs

from router.engines.transport import drop_idle
from router.errors import EngineFault
from router.health import Failure
from router.peer_tls import pin_of, url_of
from router.trust import Peer, authorization
from router.wire_snapshot import OLDEST, PROTOCOL, PROTOCOL_HEADER

CONNECT_S: Final = 1.0
ANSWER_S: Final = 2.0
STALE_MAX: Final = 8
REFUSAL_MAX_BYTES: Final = 64 * 1024

Place = tuple[str, int]

_reused: ContextVar[bool] = ContextVar("peer_connection_reused", default=False)
_watched: WeakSet[aiohttp.ClientSession] = WeakSet()


class PeerFault(EngineFault):
    """What a peer did wrong, for ejection (``failure``; None: nothing that counts against it)."""

    def __init__(
        self,
        message: str,
        failure: Failure | None,
        hint: str = "",
        *,
        code: str = "peer_failed",
        retryable: bool = True,
    ) -> None:
        super().__init__(message, hint, code=code, retryable=retryable)
        self.failure = failure


class PeerClient:
    """One peer as this node calls it. ``place`` is where it answered last: whoever finds it elsewhere sets it."""

    def __init__(self, session: aiohttp.ClientSession, own_id: str, peer: Peer) -> None:
        _watch(session)
        self.peer = peer
        self.place: Place = (peer.addresses[0] if peer.addresses else "", peer.port)
        self._session = session
        self._pin = pin_of(peer.certificate_sha256)
        self._headers = {
            hdrs.AUTHORIZATION: authorization(own_id, peer),
            PROTOCOL_HEADER: str(PROTOCOL),
            hdrs.ACCEPT_ENCODING: "identity",
            hdrs.USER_AGENT: "quorum",
        }
        self._json = {**self._headers, hdrs.CONTENT_TYPE: "application/json"}
        self._timeouts: dict[float, ClientTimeout] = {}

    def drop_idle(self) -> None:
        """What the session keeps open is void: this machine slept, or the peer is let go."""
        drop_idle(self._session)

    @property
    def headers(self) -> dict[str, str]:
        """Those of a call with a JSON body, the secret among them."""
        return self._json

    def speak(self, version: int = PROTOCOL) -> None:
        """Call it in this version of the protocol from now on."""
        for headers in (self._headers, self._json):
            headers[PROTOCOL_HEADER] = str(version)

    def gives_way(self, told: str) -> bool:
        """Speak the older version that the peer told, if it is known here; whether that is another than before."""
        older = range(OLDEST, int(self._headers[PROTOCOL_HEADER]))
        if told not in map(str, older):
            return False
        self.speak(int(told))
        return True

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        place: Place | None = None,
        connect_s: float = CONNECT_S,
        answer_s: float = ANSWER_S,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The head of the answer within ``answer_s`` from now; leaving the block early closes the connection.

        Raises PeerFault, also for redirects and compressed answers.
        """
        response = await self._answer(method, path, body, place or self.place, connect_s, answer_s)
        try:
            if 300 <= response.status < 400:
                raise PeerFault(f"{self.peer.name} answered with a redirect, which is never followed.", Failure.BROKEN)
            if response.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
                raise PeerFault(f"{self.peer.name} sent a compressed answer, not asked for.", Failure.BROKEN)
            yield response
        finally:
            response.close()

    async def _answer(
        self, method: str, path: str, body: bytes | None, place: Place, connect_s: float, answer_s: float
    ) -> aiohttp.ClientResponse:
        if not place[0]:
            raise PeerFault(f"No address of {self.peer.name} is known.", Failure.UNREACHABLE)
        url = url_of(*place, path)
        headers = self._headers if body is None else self._json
        timeout = self._timeouts.setdefault(connect_s, ClientTimeout(total=None, sock_connect=connect_s))
        try:
            async with asyncio.timeout(answer_s):
                for _ in range(STALE_MAX):
                    _reused.set(False)
                    try:
                        return await self._session.request(
                            method,
                            url,
                            data=body,
                            headers=headers,
                            ssl=self._pin,
                            allow_redirects=False,
                            timeout=timeout,
                        )
                    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                        if not _reused.get():  # a kept connection that was closed already was never asked
                            raise
            raise PeerFault(f"{self.peer.name} closes every connection.", Failure.BROKEN)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise _fault(self.peer.name, error) from error

    async def ask(
        self, method: str, path: str, *, body: object = None, place: Place | None = None, timeout_s: float = 5.0
    ) -> tuple[int, Any]:
        """A whole small exchange: status and decoded answer (None if it isn't JSON). Raises PeerFault."""
        data = None if body is None else msgspec.json.encode(body)
        try:
            async with (
                asyncio.timeout(timeout_s),
                self.open(method, path, body=data, place=place, answer_s=timeout_s) as response,
            ):
                return response.status, decoded(await small(response))
        except TimeoutError:
            raise PeerFault(f"{self.peer.name} did not answer in time.", Failure.SILENT) from None


async def small(response: aiohttp.ClientResponse) -> bytes:
    """At most 64 KiB of a body; what breaks is cut short. The caller bounds the time."""
    parts = bytearray()
    try:
        while len(parts) <= REFUSAL_MAX_BYTES and (data := await response.content.readany()):
            parts += data
    except (aiohttp.ClientError, OSError, ValueError):
        pass
    return bytes(parts[:REFUSAL_MAX_BYTES])


def decoded(data: bytes) -> Any:
    """JSON, or None."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _fault(name: str, error: Exception) -> PeerFault:
    match error:
        case aiohttp.ServerFingerprintMismatch():
            return PeerFault(
                f"Another computer answers at the address of {name}.",
                Failure.SILENT,
                "Its certificate is not the one that was paired; if it was set up anew, pair it again.",
            )
        case aiohttp.ConnectionTimeoutError() | TimeoutError():
            return PeerFault(f"{name} did not answer in time.", Failure.SILENT)
        case aiohttp.ClientConnectorError():
            return PeerFault(f"{name} can't be reached.", Failure.UNREACHABLE)
        case aiohttp.ClientConnectionError() | OSError():
            return PeerFault(f"{name} closed the connection without an answer.", Failure.BROKEN)
        case _:
            return PeerFault(f"{name} did not answer in HTTP that can be used.", Failure.BROKEN)


def _watch(session: aiohttp.ClientSession) -> None:
    """Let each call know whether its connection had carried one before."""
    if session in _watched:
        return
    _watched.add(session)
    trace = aiohttp.TraceConfig()

    async def reused(
        session: aiohttp.ClientSession, context: Any, params: aiohttp.TraceConnectionReuseconnParams
    ) -> None:
        _reused.set(True)

    trace.on_connection_reuseconn.append(reused)
    trace.freeze()
    session.trace_configs.append(trace)
