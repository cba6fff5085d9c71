"""Other computers in memory behind the real routes, for tests of the routes and the commands."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from aiohttp import web

from router.errors import BadRequestError, QuorumError
from router.states import PeerState
from router.web.answers import openai_error
from router.web.local_peers import PeerRoutes
from router.wire_peers import (
    DoctorReport,
    Finding,
    JoinPairing,
    Level,
    PairingAnswer,
    PairingInfo,
    PeerInfo,
    PeerPatch,
)

STUDIO = "a" * 52
LAPTOP = "b" * 52
SEEN = "c" * 52


def peer(node_id: str, name: str, **more: object) -> PeerInfo:
    given: dict[str, object] = {"id": node_id, "name": name, "state": PeerState.HEALTHY, "paired": True}
    return PeerInfo(**(given | more))  # type: ignore[arg-type]


class FakePeers:
    """Two paired computers and one that was seen; each change is put into ``told``."""

    def __init__(self) -> None:
        self.peers = {
            STUDIO: peer(
                STUDIO, "studio", may_use=True, width=4, in_flight=1, models=["llama", "qwen"], latency_s=0.002
            ),
            LAPTOP: peer(LAPTOP, "laptop", state=PeerState.OFFLINE, reason="It was last seen an hour ago."),
            SEEN: peer(SEEN, "attic", state=PeerState.DISCOVERED, paired=False),
        }
        self.stands = PairingInfo()
        self.answers: list[PairingAnswer] = []
        self.joins: list[JoinPairing] = []
        self.refusal: QuorumError | None = None
        self.findings: dict[str, Finding] = {}
        self.examined: list[str] = []
        self.told: list[asyncio.Queue[PairingInfo]] = []

    def become(self, **stands: object) -> PairingInfo:
        self.stands = PairingInfo(**stands)  # type: ignore[arg-type]
        for queue in self.told:
            queue.put_nowait(self.stands)
        return self.stands

    def infos(self) -> list[PeerInfo]:
        return list(self.peers.values())

    def pairing(self) -> PairingInfo:
        return self.stands

    async def open_pairing(self) -> PairingInfo:
        return self.become(
            state="open", code="042137", until_at=time.time() + 120, addresses=["192.168.1.20", "10.0.0.2"]
        )

    async def close_pairing(self) -> PairingInfo:
        return self.become()

    def answer(self, answer: PairingAnswer) -> PairingInfo:
        self.answers.append(answer)
        if not answer.accept:
            return self.become(state="failed", detail="You declined.")
        return self.become(state="paired", peer_id=SEEN, peer_name="attic")

    async def join(self, asked: JoinPairing) -> PeerInfo:
        if self.refusal is not None:
            raise self.refusal
        self.joins.append(asked)
        return self.peers[STUDIO]

    async def patch(self, peer_id: str, patch: PeerPatch) -> PeerInfo:
        changes = {name: value for name, value in msgspec.structs.asdict(patch).items() if value is not None}
        self.peers[peer_id] = msgspec.structs.replace(self._known(peer_id), **changes)
        return self.peers[peer_id]

    async def unpair(self, peer_id: str) -> PeerInfo:
        known = self._known(peer_id)
        del self.peers[peer_id]
        return known

    async def examine(self, peer_id: str) -> DoctorReport:
        self.examined.append(peer_id)
        paired = [one for one in self.peers.values() if one.paired and peer_id in ("", one.id)]
        found = [
            self.findings.get(one.id)
            or Finding(id=one.id, name=one.name, level=Level.GOOD, code="good", sentence=f"{one.name} is fine.")
            for one in paired
        ]
        green = all(one.level is Level.GOOD for one in found)
        here = [Finding(level=Level.GOOD, code="good", sentence="This computer is announced.")]
        return DoctorReport(at=1.0, green=green, here=here, peers=found)

    async def reach(self, peer_id: str, address: str) -> PeerInfo:
        if self.refusal is not None:
            raise self.refusal
        self.peers[peer_id] = msgspec.structs.replace(self._known(peer_id), addresses=[address])
        return self.peers[peer_id]

    def _known(self, peer_id: str) -> PeerInfo:
        if peer_id not in self.peers:
            raise QuorumError("not_found", "This computer is not paired.")
        return self.peers[peer_id]


@asynccontextmanager
async def served(peers: FakePeers, folder: Path) -> AsyncIterator[str]:
    """The routes on a loopback port, found by commands through ``folder``; the address."""

    @web.middleware
    async def tell(request: web.Request, handler: web.RequestHandler) -> web.StreamResponse:  # type: ignore[type-arg]
        try:
            return await handler(request)  # type: ignore[operator,no-any-return]
        except (QuorumError, BadRequestError) as error:
            return openai_error(error.info())

    async def events(request: web.Request) -> web.StreamResponse:
        queue: asyncio.Queue[PairingInfo] = asyncio.Queue()
        peers.told.append(queue)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"event: snapshot\ndata: {}\n\n")
        while True:
            told = json.dumps({"pairing": msgspec.to_builtins(await queue.get())})
            await response.write(f"event: change\ndata: {told}\n\n".encode())

    app = web.Application(middlewares=[tell])
    app.router.add_get("/local/v1/events", events)
    PeerRoutes(peers).add_to(app)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    _write_down(folder, address)
    try:
        yield address
    finally:
        await runner.cleanup()


def _write_down(folder: Path, address: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "control.token").write_text("token")
    (folder / "node.json").write_text(json.dumps({"address": address, "pid": os.getpid()}))
