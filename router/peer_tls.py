"""TLS between paired computers: 1.3 only, certificates pinned by their SHA-256 instead of verified by an authority."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
import sys
from contextlib import suppress
from typing import Any, Final

import aiohttp
from aiohttp import ClientRequest

from router.identity import Identity

TLS_S: Final = 5.0
CLOSE_S: Final = 1.0
IDLE_S: Final = 60.0
CONNECTIONS: Final = 1024
_THIN_LINEAR_TIMEOUTS: Final = 16  # Linux's TCP_THIN_LINEAR_TIMEOUTS, which the socket module does not name


def server_context(identity: Identity) -> ssl.SSLContext:
    """What this node shows to those who connect. Sessions are not resumed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.load_cert_chain(identity.certificate, identity.key)
    return context


def client_context() -> ssl.SSLContext:
    """Verifies nothing by itself: whoever uses it compares the certificate with a pin before anything is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def thin(sock: Any) -> None:
    """``sock`` carries words, which are few packets: one that is lost is sent again without doubling the wait."""
    if sock is not None and sys.platform == "linux":
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, _THIN_LINEAR_TIMEOUTS, 1)


class _PinnedConnector(aiohttp.TCPConnector):
    """Connects only where a pin is given; aiohttp's own context for pinned calls would allow TLS 1.2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._context = client_context()

    def _get_ssl_context(self, req: ClientRequest) -> ssl.SSLContext:
        if not isinstance(req.ssl, aiohttp.Fingerprint) or not req.is_ssl():
            raise ValueError("a call to a peer needs https and the pin of its certificate")
        return self._context


def client_session() -> aiohttp.ClientSession:
    """A session for calls to peers. Every call gives ``ssl=`` the peer's pin, always the same object: the pool keys by
    it. No proxies, cookies, redirects to other hosts (``allow_redirects=False`` is the caller's) or decompression.
    """
    return aiohttp.ClientSession(
        connector=_PinnedConnector(limit=CONNECTIONS, limit_per_host=0, keepalive_timeout=IDLE_S, force_close=False),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None),
        read_bufsize=65_536,
        max_line_size=8190,
        max_field_size=8190,
    )


def pin_of(certificate_sha256: bytes) -> aiohttp.Fingerprint:
    """The pin of one peer. Make one a peer and keep it: a new object a call would defeat the pool of connections."""
    return aiohttp.Fingerprint(certificate_sha256)


async def certificate_at(address: str, port: int, *, timeout_s: float = TLS_S) -> bytes:
    """The SHA-256 of the certificate shown at an address. Nothing is sent but TLS. Raises OSError, TimeoutError."""
    async with asyncio.timeout(timeout_s):
        _, writer = await asyncio.open_connection(
            address, port, ssl=client_context(), ssl_handshake_timeout=timeout_s, ssl_shutdown_timeout=CLOSE_S
        )
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if not der:
            raise ConnectionError("no certificate was shown")
        return hashlib.sha256(der).digest()
    finally:
        writer.transport.abort()
        with suppress(OSError, TimeoutError):
            await writer.wait_closed()


def url_of(address: str, port: int, path: str) -> str:
    """The https address of ``path`` at a peer."""
    host = f"[{address}]" if ":" in address else address
    return f"https://{host}:{port}{path}"
