"""What is switched on when, who is listed how, and pairing with both users answering."""

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
from router.errors import BadRequestError, QuorumError
from router.pairing import PairingDesk
from router.peer_looks import split_address
from router.peer_tls import server_context
from router.peering import Peering
from router.peers import Peers
from router.settings import Settings
from router.states import PeerState
from router.trust import Peer, node_id_of
from router.web.answers import errors, json_answer
from router.web.strict_json import decode
from router.wire_peers import DoctorReport, JoinPairing, PairingAnswer, PeerPatch
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


# -- what is on


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


async def test_without_a_network_no_digits_are_shown(one: World) -> None:
    one.addresses = []
    with pytest.raises(QuorumError, match="in no network"):
        await one.peers.open_pairing()
    assert one.peers.pairing().state == "closed"


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


# -- who is listed


async def test_paired_and_seen_computers_are_listed_with_what_is_known(one: World) -> None:
    await one.here.trust.add(peer_of(OTHER, may_use=True))
    one.finder.seen = (Sight(OTHER, "old name"), Sight(THIRD, "attic"))
    await settled(one)
    studio, attic = one.peers.infos()
    assert (studio.id, studio.name, studio.paired, studio.state) == (OTHER, "studio", True, PeerState.HEALTHY)
    assert (studio.models, studio.loaded, studio.width, studio.latency_s) == (["llama", "qwen"], ["llama"], 4, 0.002)
    assert (attic.id, attic.paired, attic.state, attic.port) == (THIRD, False, PeerState.DISCOVERED, 7412)


async def test_what_the_owner_calls_a_computer_counts_more_than_what_it_calls_itself(one: World) -> None:
    await one.here.trust.add(peer_of(OTHER))
    await settled(one)
    changed = await one.peers.patch(OTHER, PeerPatch(own_name="Big box"))
    assert (changed.name, changed.own_name, changed.send) == ("Big box", "Big box", True)
    assert not (await one.peers.patch(OTHER, PeerPatch(send=False))).send
    assert one.links[-1].peer == one.here.trust.get(OTHER), "its line hears of the change"
    with pytest.raises(QuorumError, match="not paired"):
        await one.peers.patch(THIRD, PeerPatch(own_name="x"))


async def test_grants_and_ignoring_are_remembered(one: World) -> None:
    await one.here.trust.add(peer_of(OTHER))
    one.finder.seen = (Sight(THIRD, "attic"),)
    changed = await one.peers.patch(OTHER, PeerPatch(may_use=True))
    assert (changed.may_use, changed.may_manage) == (True, False)
    assert one.settings["share"]
    assert (await one.peers.patch(THIRD, PeerPatch(ignored=True))).ignored
    assert (await one.peers.patch(OTHER, PeerPatch(ignored=True))).ignored
    await settled(one)
    assert not any(link.running for link in one.links)


@pytest.mark.parametrize("node_id", [THIRD, "nobody"])
async def test_who_is_not_known_can_be_neither_changed_nor_unpaired(one: World, node_id: str) -> None:
    for attempt in (
        one.peers.patch(node_id, PeerPatch(ignored=True)),
        one.peers.patch(node_id, PeerPatch(may_use=True)),
        one.peers.unpair(node_id),
    ):
        with pytest.raises(QuorumError):
            await attempt


# -- pairing


async def joined(one: World, two: World, answer: PairingAnswer, **asked: object) -> None:
    """``two`` shows the digits and answers; ``one`` types them."""
    opened = await two.peers.open_pairing()
    given: dict[str, object] = {"address": f"127.0.0.1:{two.peering.port}"}
    asking = asyncio.ensure_future(
        one.peers.join(JoinPairing(code=opened.code, **(given | asked)))  # type: ignore[arg-type]
    )
    try:
        await two.until(lambda: two.peers.pairing().state == "asking")
        assert two.peers.pairing().peer_name == "laptop"
        two.peers.answer(answer)
        await asking
    finally:
        asking.cancel()


async def test_one_pairing_serves_both_directions(one: World, two: World) -> None:
    await joined(one, two, PairingAnswer(accept=True))
    await settled(two)
    assert two.peers.pairing().state == "paired"
    for here, other in ((one, two), (two, one)):
        listed = here.peers.infos()
        assert [(info.id, info.paired, info.may_use) for info in listed] == [(other.here.identity.node_id, True, True)]
        assert here.settings["share"]
        assert here.links[0].running


async def test_a_no_to_the_question_shares_nothing(one: World, two: World) -> None:
    await joined(one, two, PairingAnswer(accept=True, may_use=False), may_use=False)
    assert [here.settings["share"] for here in (one, two)] == [False, False]
    assert [info.may_use for info in one.peers.infos() + two.peers.infos()] == [False, False]


async def test_a_declined_computer_is_paired_nowhere(one: World, two: World) -> None:
    with pytest.raises(QuorumError, match="declined"):
        await joined(one, two, PairingAnswer(accept=False))
    assert one.peers.infos() == two.peers.infos() == []
    assert not two.settings["share"]


async def test_a_computer_chosen_from_the_list_is_paired_at_its_address(one: World, two: World) -> None:
    two.settings.update({"share": True})
    await settled(two)
    one.finder.seen = (Sight(two.here.identity.node_id, "studio", ("127.0.0.1",), two.peering.port),)
    await joined(one, two, PairingAnswer(accept=True), node_id=two.here.identity.node_id, address="")
    assert one.peers.infos()[0].paired


async def test_another_computer_at_the_address_of_the_chosen_one_is_refused(one: World, two: World) -> None:
    opened = await two.peers.open_pairing()
    one.finder.seen = (Sight(THIRD, "studio", ("127.0.0.1",), two.peering.port),)
    with pytest.raises(QuorumError, match="Another computer"):
        await one.peers.join(JoinPairing(code=opened.code, node_id=THIRD))


async def test_the_next_address_is_tried_where_nobody_answers(one: World, two: World) -> None:
    one.finder.seen = (Sight(THIRD, "Studio", ("127.0.0.2", "127.0.0.1"), 0),)
    await two.peers.open_pairing()
    one.finder.seen = (Sight(THIRD, "Studio", ("127.0.0.2", "127.0.0.1"), two.peering.port),)
    await joined(one, two, PairingAnswer(accept=True), address="studio")
    assert one.peers.infos()[0].paired


async def test_answering_nobody_is_told(one: World) -> None:
    with pytest.raises(QuorumError, match="No computer asks"):
        one.peers.answer(PairingAnswer(accept=True))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("studio", ("studio", 7412)),
        (" 10.0.0.2:7500 ", ("10.0.0.2", 7500)),
        ("[fd00::2]:7500", ("fd00::2", 7500)),
        ("[fd00::2]", ("fd00::2", 7412)),
        ("fd00::2", ("fd00::2", 7412)),
    ],
)
def test_addresses_are_taken_as_people_write_them(text: str, meant: tuple[str, int]) -> None:
    assert split_address(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        *("", ":7412", "host:", "host:0", "host:99999", "host:x", "a b", "user@host", "h/p", "x" * 300),
        *("a..b", "x" * 70, "studio.\ud800", "a\x00b"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError):
        split_address(text)
