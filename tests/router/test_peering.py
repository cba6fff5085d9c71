"""What is switched on when."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from router.aio import SystemClock, Tasks
from router.pairing import PairingDesk
from router.peer_tls import server_context
from router.peering import Peering
from router.peers import Peers
from router.settings import Settings
from router.states import PeerState
from router.trust import Peer, node_id_of
from router.web.answers import errors, json_answer
from router.web.strict_json import decode
from router.wire_peers import DoctorReport
from router.wire_snapshot import PeerModel, PeerSnapshot
from tests.fakes import BOUND_S, happens
from tests.router.peer_kit import Computer, computer, peer_of

OTHER = node_id_of(bytes(range(32)))
THIRD = node_id_of(bytes(range(1, 33)))


class LoopbackSurface:
    """The two routes of pairing over TLS on this computer alone; ``on`` is what it was last asked to listen at."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.desk: PairingDesk | None = None
        self.on: list[str] = []
        self.starts = 0
        self.said = ""
        self._context = context
        self._runner: web.AppRunner | None = None

    async def start(self, addresses: Sequence[str], port: int) -> int:
        self.on = list(addresses)
        self.starts += 1
        if self._runner is None:
            app = web.Application(middlewares=[errors])
            app.router.add_post("/peer/v1/pair/1", self._first)
            app.router.add_post("/peer/v1/pair/2", self._second)
            self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
            await self._runner.setup()
            await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._context).start()
        return int(self._runner.addresses[0][1])

    async def goodbye(self, *, asleep: bool = False) -> None:
        self.said = "asleep" if asleep else "closed"

    def back(self) -> None:
        self.said = "back"

    async def stop(self) -> None:
        self.on = []
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _first(self, request: web.Request) -> web.Response:
        assert self.desk is not None
        return json_answer(await self.desk.first(decode(await request.read())))

    async def _second(self, request: web.Request) -> web.Response:
        assert self.desk is not None
        return json_answer(await self.desk.second(decode(await request.read()), request.remote or ""))


@dataclass(frozen=True)
class Sight:
    node_id: str
    name: str
    addresses: tuple[str, ...] = ("192.168.1.9",)
    port: int = 7412


class FakeFinder:
    def __init__(self) -> None:
        self.seen: tuple[Sight, ...] = ()
        self.shown: tuple[str, tuple[str, ...], int] | None = None
        self.running = False
        self.started = asyncio.Event()
        self.refreshed = asyncio.Event()

    async def start(self) -> None:
        self.running = True
        self.started.set()

    async def stop(self) -> None:
        self.running = False
        self.shown = None

    async def announce(self, name: str, addresses: Sequence[str], port: int) -> None:
        self.shown = (name, tuple(addresses), port)

    async def withdraw(self) -> None:
        self.shown = None

    async def refresh(self) -> None:
        self.refreshed.set()

    def sightings(self) -> tuple[Sight, ...]:
        return self.seen


class FakeLink:
    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.state = PeerState.HEALTHY
        self.reason = ""
        self.latencies_s: tuple[float, ...] = (0.003, 0.002)
        self.left = False
        self.heard_at: float | None = 1_800_000_000.0
        self.dialled: list[tuple[str, int]] = []
        self.snapshot: PeerSnapshot | None = PeerSnapshot(
            node_id=peer.node_id,
            name="studio",
            width=4,
            models=[PeerModel(name="llama", resident=True), PeerModel(name="qwen")],
        )
        self.running = False
        self.pokes = self.anew = 0

    async def start(self) -> None:
        self.running = True

    async def stop(self) -> None:
        self.running = False

    def renew(self, peer: Peer) -> None:
        self.peer = peer

    def poke(self, *, anew: bool = False) -> None:
        self.pokes += 1
        self.anew += anew

    def dial(self, place: tuple[str, int]) -> None:
        self.dialled.append(place)

    async def up(self, within_s: float) -> bool:
        return self.state is PeerState.HEALTHY


class World:
    """One computer with everything but the network."""

    def __init__(self, here: Computer, name: str) -> None:
        self.here = here
        self.settings = Settings(None, environ={})
        self.finder = FakeFinder()
        self.links: list[FakeLink] = []
        self.surface = LoopbackSurface(server_context(here.identity))
        self.addresses = ["192.168.1.5"]
        self.changes = asyncio.Event()
        self.tasks = Tasks()
        self.closed = False
        self.desk = PairingDesk(
            here.identity, here.trust, SystemClock(), lambda: self.peering.own(), self._desk_changed
        )
        self.surface.desk = self.desk
        self.peering = Peering(
            trust=here.trust,
            desk=self.desk,
            surface=self.surface,
            finder=self.finder,
            link=self._link,
            settings=self.settings,
            tasks=self.tasks,
            name=lambda: name,
            changed=self.changes.set,
            close=self._close,
            addresses=lambda: list(self.addresses),
        )
        self.peers = Peers(
            here.identity, here.trust, self.desk, self.peering, self.settings, self._no_doctor, self.changes.set
        )

    async def _close(self) -> None:
        self.closed = True

    async def _no_doctor(self, peer_id: str) -> DoctorReport:
        raise AssertionError(peer_id)

    def _desk_changed(self) -> None:
        self.peering.poke()

    def _link(self, peer: Peer) -> FakeLink:
        link = FakeLink(peer)
        self.links.append(link)
        return link

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(BOUND_S):
            while not holds():
                self.changes.clear()
                await self.changes.wait()


@asynccontextmanager
async def world(folder: Path, name: str) -> AsyncIterator[World]:
    async with computer(folder, name) as here:
        made = World(here, name)
        made.peering.start()
        async with asyncio.timeout(BOUND_S):
            await made.finder.started.wait()
        try:
            yield made
        finally:
            await made.peering.stop()
            await made.tasks.close()


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path / "laptop", "laptop") as made:
        yield made


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path / "studio", "studio") as made:
        yield made


async def settled(here: World) -> None:
    await here.peering.settle()


async def test_nothing_listens_and_nothing_is_shown_at_first(one: World) -> None:
    assert (one.surface.on, one.finder.shown, one.surface.starts) == ([], None, 0)
    assert one.finder.running


async def test_sharing_listens_and_is_shown_and_ends_with_it(one: World) -> None:
    one.settings.update({"share": True})
    await settled(one)
    assert one.surface.on == ["192.168.1.5"]
    assert one.finder.shown == ("laptop", ("192.168.1.5",), one.peering.port)
    one.settings.update({"share": False})
    await settled(one)
    assert (one.surface.on, one.finder.shown) == ([], None)


async def test_a_paired_computer_reaches_this_one_without_its_being_shown(one: World) -> None:
    await one.here.trust.add(peer_of(OTHER))
    await settled(one)
    assert (one.surface.on, one.finder.shown) == (["192.168.1.5"], None)
    assert [link.running for link in one.links] == [True]


async def test_an_open_pairing_listens_as_long_as_it_is_open(one: World) -> None:
    opened = await one.peers.open_pairing()
    assert (opened.state, len(opened.code), opened.addresses) == ("open", 6, [f"192.168.1.5:{one.peering.port}"])
    assert one.surface.on
    await one.peers.close_pairing()
    await settled(one)
    assert not one.surface.on


async def test_another_address_is_listened_at_and_shown(one: World) -> None:
    one.settings.update({"share": True})
    await settled(one)
    one.addresses = ["10.0.0.7"]
    await settled(one)
    assert one.surface.on == ["10.0.0.7"]
    assert one.finder.shown is not None
    assert one.finder.shown[1] == ("10.0.0.7",)


async def test_a_link_ends_with_the_pairing_and_begins_anew_with_a_new_one(one: World) -> None:
    await one.here.trust.add(peer_of(OTHER, "first"))
    await settled(one)
    await one.here.trust.add(peer_of(OTHER, "second"))
    await settled(one)
    assert [link.running for link in one.links] in ([True], [False, True])
    await one.peers.unpair(OTHER)
    assert not any(link.running for link in one.links)


async def test_stopping_ends_everything(tmp_path: Path) -> None:
    async with world(tmp_path / "x", "x") as made:
        made.settings.update({"share": True})
        await made.here.trust.add(peer_of(OTHER))
        await settled(made)
    assert (made.surface.on, made.finder.running, made.links[0].running, made.closed) == ([], False, False, True)


async def test_a_computer_that_is_away_is_tried_as_soon_as_it_is_seen(one: World) -> None:
    await one.here.trust.add(peer_of(OTHER))
    await settled(one)
    link = one.links[0]
    for state, pokes in ((PeerState.HEALTHY, 0), (PeerState.OFFLINE, 1), (PeerState.UNHEALTHY, 2)):
        link.state = state
        one.finder.seen = (Sight(OTHER, "studio"), Sight(THIRD, "attic"))
        one.peering.sighted()
        assert link.pokes == pokes


async def test_a_computer_that_sleeps_is_shown_to_nobody_and_looks_at_everything_anew_when_it_wakes(one: World) -> None:
    one.settings.update({"share": True})
    await one.here.trust.add(peer_of(OTHER))
    await settled(one)
    await one.peering.goodbye(asleep=True)
    await settled(one)
    assert (one.surface.said, one.finder.shown, one.surface.on) == ("asleep", None, ["192.168.1.5"])
    one.addresses = ["10.0.0.7"]
    one.peering.back()
    assert (one.surface.said, one.links[0].anew) == ("back", 1)
    await happens(one.finder.refreshed, BOUND_S)
    await settled(one)
    assert one.finder.shown is not None
    assert one.finder.shown[1] == ("10.0.0.7",)
