"""The one seam for HTTP to engines. Whatever goes wrong below is an ``EngineFault`` above; a fake replaces all of it.

Proxies of the environment are not used, redirects not followed, compressed answers not accepted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final, Protocol
from weakref import WeakSet

import aiohttp
import msgspec
from aiohttp import ClientRequest, ClientTimeout, hdrs
from aiohttp.connector import Connection
from yarl import URL

from router.engines.base import Reply
from router.errors import EngineFault

CONNECT_S: Final = 1.0
POLL_S: Final = 5.0
MAX_JSON_BYTES: Final = 16 * 2**20
# Shorter than the 5 s after which llama.cpp and uvicorn drop an idle connection: ours must not meet a closing one.
KEEP_ALIVE_S: Final = 3.0
STALE_MAX: Final = 8

_reused: ContextVar[bool] = ContextVar("reused", default=False)


class Transport(Protocol):
    """What the adapters need of the network."""

    def open(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        connect_s: float = CONNECT_S,
    ) -> AbstractAsyncContextManager[Reply]:
        """``async with`` gives the ``Reply``; leaving early closes the connection. No limit on time but to connect."""

    async def json(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        body: object = None,
        timeout_s: float = POLL_S,
    ) -> tuple[int, Any]:
        """A whole small exchange: status and decoded answer (None if it isn't JSON). Raises EngineFault."""

    def drop_idle(self) -> None:
        """Close the connections that nobody uses now."""

    async def close(self) -> None:
        """Close all connections."""


class _Connector(aiohttp.TCPConnector):
    """Tells the task that asked, through ``_reused``, whether the connection it got had carried a request before."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._seen: WeakSet[object] = WeakSet()

    async def connect(self, req: ClientRequest, traces: list[Any], timeout: ClientTimeout) -> Connection:
        connection = await super().connect(req, traces, timeout)
        protocol = connection.protocol
        _reused.set(protocol in self._seen)
        self._seen.add(protocol)
        return connection


class HttpTransport:
    """``Transport`` over aiohttp. Made on the loop it is used on."""

    def __init__(self) -> None:
        connector = _Connector(limit=0, limit_per_host=0, keepalive_timeout=KEEP_ALIVE_S)
        self._session = aiohttp.ClientSession(
            connector=connector,
            trust_env=False,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={hdrs.ACCEPT_ENCODING: "identity", hdrs.USER_AGENT: "quorum"},
            skip_auto_headers=(hdrs.CONTENT_TYPE,),
            read_bufsize=2**16,
        )
        self._timeouts: dict[float, ClientTimeout] = {}

    def drop_idle(self) -> None:
        """Close the connections that nobody uses now."""
        drop_idle(self._session)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

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
        timeout = self._timeouts.get(connect_s)
        if timeout is None:
            timeout = ClientTimeout(total=None, connect=None, sock_connect=connect_s, sock_read=None)
            self._timeouts[connect_s] = timeout
        response = await self._send(method, url, headers, body, timeout)
        try:
            _refuse_odd(url, response)
            received = {name.lower(): value for name, value in response.headers.items()}
            yield Reply(response.status, response.content_type, _chunks(url, response), received)
        finally:
            response.close()

    async def _send(
        self, method: str, url: URL, headers: Mapping[str, str] | None, body: bytes | None, timeout: ClientTimeout
    ) -> aiohttp.ClientResponse:
        """The answer's head. A kept connection that turns out to be closed already was never asked: take another."""
        for _ in range(STALE_MAX):
            _reused.set(False)
            try:
                return await self._session.request(
                    method, url, headers=headers, data=body, allow_redirects=False, timeout=timeout
                )
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                if not _reused.get():
                    raise _fault(url, error) from error
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                raise _fault(url, error) from error
        raise EngineFault(f"The engine at {_place(url)} closes every connection.")

    async def json(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        body: object = None,
        timeout_s: float = POLL_S,
    ) -> tuple[int, Any]:
        """A whole small exchange: status and decoded answer (None if it isn't JSON). Raises EngineFault."""
        data = None if body is None else msgspec.json.encode(body)
        sent = dict(headers or {})
        if data is not None:
            sent[hdrs.CONTENT_TYPE] = "application/json"
        try:
            async with asyncio.timeout(timeout_s), self.open(method, url, headers=sent, body=data) as reply:
                parts = bytearray()
                async for chunk in reply.chunks:
                    parts += chunk
                    if len(parts) > MAX_JSON_BYTES:
                        raise EngineFault(f"The engine at {_place(url)} sent an answer of absurd size.")
        except TimeoutError:
            raise EngineFault(f"The engine at {_place(url)} did not answer within {timeout_s:g} s.") from None
        try:
            return reply.status, msgspec.json.decode(bytes(parts))
        except (msgspec.DecodeError, ValueError, RecursionError):
            return reply.status, None


def drop_idle(session: aiohttp.ClientSession) -> None:
    """Close the connections that ``session`` keeps for its next requests."""
    kept = session.connector._conns if session.connector is not None else {}
    for connections in kept.values():
        for connection, _ in connections:
            connection.close()
    kept.clear()


async def _chunks(url: URL, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    read = response.content.readany
    try:
        while chunk := await read():
            yield chunk
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise EngineFault(
            f"The connection to the engine at {_place(url)} broke in the middle of its answer."
        ) from error


def _refuse_odd(url: URL, response: aiohttp.ClientResponse) -> None:
    if 300 <= response.status < 400:
        raise EngineFault(f"The engine at {_place(url)} answered with a redirect, which is never followed.")
    if response.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise EngineFault(f"The engine at {_place(url)} sent a compressed answer, which was not asked for.")


def _fault(url: URL, error: Exception) -> EngineFault:
    place = _place(url)
    match error:
        case aiohttp.ConnectionTimeoutError() | TimeoutError():
            return EngineFault(f"The engine at {place} could not be reached in time.")
        case aiohttp.ClientConnectorError():
            return EngineFault(f"The engine at {place} refused the connection: is it running?", away=True)
        case aiohttp.ClientConnectionError() | OSError():
            return EngineFault(f"The engine at {place} closed the connection without an answer.")
        case _:
            return EngineFault(f"The engine at {place} did not answer in HTTP that can be used.")


def _place(url: URL) -> str:
    return f"{url.host}:{url.port}"
