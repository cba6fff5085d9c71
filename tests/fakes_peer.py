"""Other computers of paper: one in memory for the scheduler, and one over TLS that can lie in every way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from router.engines.base import EngineModel, EngineSnapshot, Kind
from router.identity import load_identity
from router.peer_link import STATE
from router.peer_tls import server_context
from router.prediction import UNMEASURED, Speed
from router.states import NodeMode
from router.trust import Peer, fingerprint_of
from router.wire import PeerModel, PeerSnapshot, Receipt
from tests.fakes import DONE, MemoryEngine, chunk


class MemoryPeer(MemoryEngine):
    """Another computer as the registry sees it: it loads by itself and says what it does for others."""

    kind = "peer"
    local = False

    def __init__(self, node: str = "p", models: tuple[str, ...] = ("m",), **more: Any) -> None:
        super().__init__(f"peer-{node}", models, **more)
        self.node = node
        self.label = node.title()
        self.mode = NodeMode.RUNNING
        self.in_flight = 0
        self.resident = list(models)
        self.sizes: dict[str, int] = {}
        self.speeds: dict[str, Speed] = {}

    def needs_load(self, model: str, kind: Kind = Kind.CHAT) -> bool:
        return False

    def look(self, *, ready: bool = True, detail: str = "", **more: Any) -> EngineSnapshot:
        models = tuple(
            EngineModel(
                name=name,
                digest=self.digests.get(name),
                resident=name in self.resident,
                size_bytes=self.sizes.get(name),
                speed=self.speeds.get(name, UNMEASURED),
            )
            for name in self.names
        )
        told: dict[str, Any] = {"mode": self.mode, "width": self.width, "in_flight": self.in_flight}
        return EngineSnapshot(ready=ready, models=models, detail=detail, **(told | more))


# -- over TLS


@dataclass
class Asked:
    """One request that a scripted peer got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Talk:
    """One request being answered, in raw bytes: nothing keeps a script from breaking HTTP."""

    def __init__(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked = asked
        self.keep = False
        self._reader = reader
        self._writer = writer

    async def raw(self, *data: bytes) -> None:
        for piece in data:
            self._writer.write(piece)
            await self._writer.drain()

    async def refuse(self, status: int, code: str = "", message: str = "No.", **headers: str) -> None:
        body = json.dumps({"error": {"code": code, "message": message, "hint": "", "status": status}}).encode()
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
        await self.raw(head.encode() + body)

    async def begin(self, *, accept: bool = True) -> None:
        await self.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        if accept:
            await self.say(b": accepted\n\n")

    async def say(self, *events: bytes) -> None:
        for event in events:
            await self.raw(b"%x\r\n%b\r\n" % (len(event), event))

    async def end(self) -> None:
        """The regular end: the connection may serve again."""
        await self.raw(b"0\r\n\r\n")
        self.keep = True

    async def gone(self) -> None:
        """Until the other side closes."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while await self._reader.read(65536):
                pass

    async def left(self, within_s: float) -> bool:
        """Whether the other side closes within that time."""
        try:
            async with asyncio.timeout(within_s):
                await self.gone()
        except TimeoutError:
            return False
        return True

    def reset(self) -> None:
        self._writer.transport.abort()


Script = Callable[[Talk], Awaitable[None]]


def told(name: str, payload: object) -> bytes:
    """A named event."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(payload))


async def answering(talk: Talk) -> None:
    """What an honest peer says to a run."""
    await talk.begin()
    if talk.asked.json["stream"]:
        await talk.say(chunk(role=True), chunk("Hel"), b": beat\n\n", chunk("lo"), chunk(finish="stop"))
    else:
        await talk.say(told("body", {"choices": [{"message": {"role": "assistant", "content": "Hello"}}]}))
    await talk.say(told("facts", RECEIPT), DONE)
    await talk.end()


RECEIPT = Receipt(
    node="p",
    engine="builtin",
    model="m",
    digest=None,
    reason="local-warm",
    verdicts=[],
    tries=[],
    queued_s=0.0,
    loading_s=0.0,
    prompt_tokens=7,
    completion_tokens=2,
    tokens_per_s=50.0,
)


class ScriptedPeer:
    """A peer over TLS with an own certificate. ``scripts`` are by path; each request is remembered in ``asked``."""

    def __init__(self, folder: Path, name: str = "studio") -> None:
        folder.mkdir(exist_ok=True)
        self.identity = load_identity(folder)
        self.name = name
        self.asked: list[Asked] = []
        self.connections = 0
        self.scripts: dict[str, Script] = {"/peer/v1/run": answering}
        self.port = 0
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    @property
    def node_id(self) -> str:
        return self.identity.node_id

    @property
    def peer(self) -> Peer:
        """The record of it that this node has."""
        return Peer(
            node_id=self.node_id,
            name=self.name,
            certificate_sha256=fingerprint_of(self.node_id),
            secret_out="s" * 43,
            secret_in_sha256=bytes(32),
            addresses=("127.0.0.1",),
            port=self.port,
            may_use=True,
        )

    def runs(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == "/peer/v1/run"]

    def snapshot(self, *models: str, **changes: Any) -> PeerSnapshot:
        held = [PeerModel(name=name, resident=True) for name in models or ("m",)]
        given: dict[str, Any] = {"node_id": self.node_id, "name": self.name, "models": held, "width": 4}
        return PeerSnapshot(**(given | changes))

    async def start(self, *, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", port, ssl=server_context(self.identity))
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """As a process that dies: every connection breaks."""
        if self._server is not None:
            self._server.close()
        for task in self._talks:
            task.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        self._talks.clear()

    async def __aenter__(self) -> ScriptedPeer:
        await self.start()
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.stop()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                talk = Talk(await _read(reader), reader, writer)
                self.asked.append(talk.asked)
                await self.scripts[talk.asked.path](talk)
                if not talk.keep:
                    return
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort()


class LivePeer(ScriptedPeer):
    """A peer whose state stream says what the test puts in ``say``."""

    def __init__(self, folder: Path, name: str = "studio") -> None:
        super().__init__(folder, name)
        self.say: asyncio.Queue[bytes] = asyncio.Queue()
        self.streams = 0
        self.now: PeerSnapshot | None = None
        self.scripts[STATE] = self._state
        self.scripts["/peer/v1/hello"] = self._hello

    async def _state(self, talk: Talk) -> None:
        self.streams += 1
        await talk.begin(accept=False)
        await talk.say(told("snapshot", self.now or self.snapshot("m")))
        while data := await self.say.get():
            await talk.say(data)

    async def _hello(self, talk: Talk) -> None:
        await talk.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        talk.keep = True


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return Asked(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


@asynccontextmanager
async def frozen() -> AsyncIterator[int]:
    """A port whose program is stopped: the system takes connections, nobody answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        yield listening.getsockname()[1]
