"""A real peer surface on a real node, and a paired computer that calls it over TLS."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from router.identity import load_identity
from router.keychain import Keychain
from router.node import Node
from router.pairing import PairingDesk
from router.peer_tls import client_context, client_session, pin_of, url_of
from router.trust import Peer, Trust, fingerprint_of, node_id_of
from router.web.peer import PeerSurface
from router.web.peer_listener import PeerLimits
from tests.fakes import BOUND_S
from tests.router.peer_kit import no_keyring, peer_of

LAPTOP = node_id_of(bytes(range(32)))
DESKTOP = node_id_of(bytes(range(1, 33)))
SECRET = "s" * 64
OTHER_SECRET = "o" * 64
ASK = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True}


@dataclass
class Event:
    """One Server-Sent Event or comment."""

    kind: str
    data: str

    @property
    def json(self) -> Any:
        return json.loads(self.data)


class Stream:
    """The events of an answer, one by one."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.raw = b""
        self._rest = b""

    async def next(self, within_s: float = BOUND_S) -> Event:
        """The next event. Raises EOFError at the end."""
        async with asyncio.timeout(within_s):
            while b"\n\n" not in self._rest:
                piece = await self.answer.content.readany()
                if not piece:
                    raise EOFError
                self.raw += piece
                self._rest += piece
        event, _, self._rest = self._rest.partition(b"\n\n")
        return _event(event.decode())

    async def until(self, kind: str) -> Event:
        """The next event of ``kind``."""
        while (event := await self.next()).kind != kind:
            pass
        return event

    async def rest(self) -> list[Event]:
        """All that follow."""
        events = []
        try:
            while True:
                events.append(await self.next())
        except EOFError:
            return events


def _event(text: str) -> Event:
    if text.startswith(":"):
        return Event("comment", text[1:].strip())
    kind, data = "message", []
    for line in text.split("\n"):
        name, _, value = line.partition(":")
        if name == "event":
            kind = value.strip()
        elif name == "data":
            data.append(value.removeprefix(" "))
    return Event(kind, "\n".join(data))


@dataclass
class Site:
    """The surface under test and the means to call it."""

    node: Node
    trust: Trust
    desk: PairingDesk
    surface: PeerSurface
    sessions: dict[str, aiohttp.ClientSession]
    pin: aiohttp.Fingerprint
    port: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.node.info().id

    def url(self, path: str) -> str:
        return url_of("127.0.0.1", self.port, f"/peer/v1/{path}")

    def known(self, node_id: str = LAPTOP, secret: str = SECRET) -> dict[str, str]:
        """The headers of a paired computer."""
        return {"Authorization": f"Quorum {node_id} {secret}", "X-Quorum-Protocol": "1"}

    @asynccontextmanager
    async def call(
        self, path: str, said: object = None, *, headers: dict[str, str] | None = None, method: str = "POST"
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One call by the laptop; ``said`` is JSON, or bytes as they are."""
        body = said if isinstance(said, bytes | None) else json.dumps(said).encode()
        given = dict(self.known() if headers is None else headers)
        if body is not None:
            given.setdefault("Content-Type", "application/json")
        caller = given.get("Authorization", "")
        if caller not in self.sessions:  # a connection belongs to one computer
            self.sessions[caller] = client_session()
        async with self.sessions[caller].request(
            method, self.url(path), data=body, headers=given, ssl=self.pin, allow_redirects=False
        ) as answer:
            yield answer

    async def status(self, path: str, said: object = None, **options: Any) -> tuple[int, dict[str, Any]]:
        """Status and JSON of one call."""
        async with asyncio.timeout(BOUND_S), self.call(path, said, **options) as answer:
            return answer.status, json.loads(await answer.read() or b"{}")

    @asynccontextmanager
    async def run(self, said: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Stream]:
        """A run that is accepted."""
        async with self.call("run", said or asked(), **options) as answer:
            assert answer.status == 200, await answer.read()
            yield Stream(answer)

    @asynccontextmanager
    async def state(self, **options: Any) -> AsyncIterator[Stream]:
        """A state stream."""
        async with self.call("state", method="GET", **options) as answer:
            assert answer.status == 200
            yield Stream(answer)

    @asynccontextmanager
    async def raw(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A TLS connection to write bytes on."""
        context: ssl.SSLContext = client_context()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    def head(self, method: str = "GET", path: str = "hello", extra: str = "") -> bytes:
        """The head of a raw request by the laptop."""
        known = "".join(f"{name}: {value}\r\n" for name, value in self.known().items())
        return f"{method} /peer/v1/{path} HTTP/1.1\r\nHost: peer\r\n{known}{extra}\r\n".encode()


def asked(number: int = 1, job: str = "J1", **changes: Any) -> dict[str, Any]:
    """What a peer sends to ``run``."""
    given: dict[str, Any] = {
        "origin_job": job,
        "try": number,
        "deadline_s": 60.0,
        "digest": None,
        "model": "m",
        "kind": "chat",
        "body": ASK,
        "stream": True,
        "keep_alive_s": None,
    }
    return given | changes


def laptop(**changes: Any) -> Peer:
    """The paired computer that calls."""
    return peer_of(LAPTOP, SECRET, **changes)


@asynccontextmanager
async def surface_of(node: Node, limits: PeerLimits | None = None, *, paired: bool = True) -> AsyncIterator[Site]:
    """A surface on ``node`` at a loopback port; the laptop is paired and may use models."""
    identity = load_identity(node._dir)
    keychain = Keychain(node._dir, identity.node_id, no_keyring)
    trust = Trust(node._store, identity, node._dir, node._clock, keychain)
    await trust.open()
    if paired:
        await trust.add(laptop())
    desk = PairingDesk(identity, trust, node._clock, lambda: ("studio", ["192.168.1.5"], 7412))
    surface = PeerSurface(node._front._service, identity, trust, desk, node._tasks, node._width, limits)
    site = Site(node, trust, desk, surface, {}, pin_of(fingerprint_of(identity.node_id)))
    site.port = await surface.start(["127.0.0.1"], 0)
    try:
        yield site
    finally:
        for session in site.sessions.values():
            await session.close()
        desk.close()
        await surface.stop()
