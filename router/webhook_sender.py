"""Sends webhooks: resolves names itself, checks every address, connects to exactly what was checked.

No redirects, no proxies, no kept connections: each delivery stands for itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeAlias

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from router.errors import BadRequestError

TRY_S: Final = 10.0
LOOK_S: Final = 2.0
URL_MAX: Final = 2048
LOOKUPS: Final = 4

Lookup: TypeAlias = Callable[[str, int], Awaitable[list[str]]]

_NAT64: Final = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


class _ForbiddenError(OSError):
    """The address is none that a webhook may go to."""


def permitted(address: str, *, loopback: bool, private: bool) -> bool:
    """Whether a webhook may go to ``address`` (IPv4 or IPv6).

    Public ones always; this computer's own if ``loopback``; those of private and local networks if ``private``.
    """
    ip = _inner(ipaddress.ip_address(address.partition("%")[0]))
    if ip.is_multicast or ip.is_unspecified:
        return False
    if ip.is_loopback:
        return loopback
    if private:
        return True
    local = ip.is_link_local or (isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local)
    return ip.is_global and not ip.is_reserved and not local


def _inner(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address inside an IPv6 one that only wraps it."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if any(ip in network for network in _NAT64):
        return ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    teredo = ip.teredo
    return ip.ipv4_mapped or ip.sixtofour or (teredo[1] if teredo else None) or ip


def parse(text: str) -> URL:
    """``text`` as the address of a webhook. Raises BadRequestError; never repeats what it refuses."""
    url = URL()
    if len(text) <= URL_MAX and text.isascii() and text.isprintable() and " " not in text:
        with suppress(ValueError):
            url = URL(text)
    host = url.host or ""
    if url.scheme not in ("http", "https") or not host or not url.port:
        raise _wrong(f"must be an http or https address of at most {URL_MAX:,} characters")
    if url.user is not None or url.password is not None:
        raise _wrong("must have no user or password in it")
    if _literal(host) is None and _like_a_number(host):
        raise _wrong("must have a name or a plain IP address as its host")
    return url.with_fragment(None)


def _literal(host: str) -> str | None:
    """``host`` if it is an address itself."""
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return None


def _like_a_number(host: str) -> bool:
    """Old ways to write an IPv4 address: 127.1, 0x7f000001, 2130706433."""
    last = host.rstrip(".").rpartition(".")[2]
    return last.isdigit() or last.lower().startswith("0x")


def _wrong(what: str) -> BadRequestError:
    return BadRequestError(f"'webhook' {what}.", field="webhook")


class Sender:
    """``private`` tells whether addresses of private networks are allowed now."""

    def __init__(self, private: Callable[[], bool], lookup: Lookup | None = None) -> None:
        self._private = private
        self._lookup = lookup or _Lookups().find
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def check(self, text: str, *, loopback: bool) -> str:
        """The address as it will be used. Raises BadRequestError when it is malformed or leads where none may go.

        A name that can't be resolved now passes: each delivery is checked again.
        """
        url = parse(text)
        host = url.host or ""
        found = [literal] if (literal := _literal(host)) else []
        if not found:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    found = await self._lookup(host, url.port or 0)
        if not all(permitted(address, loopback=loopback, private=self._private()) for address in found):
            raise _wrong("leads into a private network; the setting 'webhook_private' allows that")
        return str(url)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], *, loopback: bool) -> str:
        """One try of at most 10 s. Empty when it was taken (2xx), else why not."""
        try:
            target = URL(url, encoded=True)
            host = _literal(target.host or "")
            if host is not None and not permitted(host, loopback=loopback, private=self._private()):
                return "Its address is in a private network."
            async with (
                asyncio.timeout(TRY_S),
                self._session(loopback).post(target, data=body, headers=headers, allow_redirects=False) as reply,
            ):
                return "" if 200 <= reply.status < 300 else f"It answered {reply.status}."
        except TimeoutError:
            return f"It did not answer within {TRY_S:g} s."
        except aiohttp.ClientConnectorCertificateError:
            return "Its certificate is not trusted."
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, _ForbiddenError):
                return "Its address is in a private network."
            return "It can't be reached."
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return f"The delivery failed ({type(error).__name__})."

    def _session(self, loopback: bool) -> aiohttp.ClientSession:
        session = self._sessions.get(loopback)
        if session is None:

            def allowed(address: str) -> bool:
                return permitted(address, loopback=loopback, private=self._private())

            connector = aiohttp.TCPConnector(
                resolver=_Resolver(self._lookup, allowed),
                use_dns_cache=False,
                force_close=True,
                limit=0,
                socket_factory=lambda info: _socket(info, allowed),
            )
            session = self._sessions[loopback] = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=TRY_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
            )
        return session

    async def close(self) -> None:
        """End what is under way."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()


class _Resolver(AbstractResolver):
    """Gives a connection only addresses that may be used; one that may not spoils the name."""

    def __init__(self, lookup: Lookup, allowed: Callable[[str], bool]) -> None:
        self._lookup = lookup
        self._allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._lookup(host, port)
        if not all(self._allowed(address) for address in found):
            raise _ForbiddenError(None, "forbidden")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in found
        ]

    async def close(self) -> None:
        """Nothing is open."""


def _socket(info: tuple[Any, ...], allowed: Callable[[str], bool]) -> socket.socket:
    """The last look, at the very address that is connected to."""
    family, kind, proto, _, address = info
    if not allowed(address[0]):
        raise _ForbiddenError(None, "forbidden")
    return socket.socket(family, kind, proto)


class _Lookups:
    """The system's resolver, in a few threads of its own: one that hangs stops neither others' work nor the exit."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(LOOKUPS)

    async def find(self, host: str, port: int) -> list[str]:
        """The addresses of a name. Raises OSError."""
        await self._turns.acquire()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[str]] = loop.create_future()

        def tell(found: list[str] | OSError) -> None:
            self._turns.release()
            if future.done():
                return
            if isinstance(found, OSError):
                future.set_exception(found)
            else:
                future.set_result(found)

        def work() -> None:
            found: list[str] | OSError
            try:
                listed = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                found = list(dict.fromkeys(str(one[4][0]) for one in listed))
            except (OSError, UnicodeError) as error:
                found = error if isinstance(error, OSError) else OSError(0, "no name")
            with suppress(RuntimeError):  # the loop is gone
                loop.call_soon_threadsafe(tell, found)

        threading.Thread(target=work, name="resolve", daemon=True).start()
        return await future
