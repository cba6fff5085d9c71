"""The line to a paired computer, over real TLS: what it tells is known at once, and so is its loss."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from router.aio import SystemClock, Tasks
from router.engines.base import EngineSnapshot
from router.errors import ModelNotFoundError
from router.health import Failure
from router.liveness import Patience
from router.peer_client import Place
from router.peer_link import GAP_S, LATENCIES_MAX, PLACES_MAX, REST, ROUND_S, STATE, PeerLink
from router.peer_tls import client_session
from router.placement import Word
from router.registry import Registry
from router.states import NodeMode, PeerState
from router.trust import Peer
from router.wire import PeerSnapshot
from tests.fakes import BOUND_S, free_port
from tests.fakes_peer import LivePeer as Studio
from tests.fakes_peer import Talk, frozen, told

HEALTHY, UNHEALTHY = PeerState.HEALTHY, PeerState.UNHEALTHY
DRAINING, OFFLINE = PeerState.DRAINING, PeerState.OFFLINE


class Side:
    """This node, and what it learns."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.tasks = Tasks()
        self.registry = Registry("own", lambda: "here")
        self.places: list[Place] = []
        self.moved: list[tuple[str, list[str], int]] = []
        self.links: list[PeerLink] = []
        self._news = asyncio.Event()
        self.states: list[PeerState] = []

    async def link(self, peer: Peer, **more: Any) -> PeerLink:
        link = PeerLink(
            peer,
            own_id="own",
            session=self.session,
            registry=self.registry,
            tasks=self.tasks,
            clock=SystemClock(),
            changed=self._changed,
            sighted=lambda node_id: self.places,
            moved=self._moved,
            **more,
        )
        self.links.append(link)
        await link.start()
        return link

    def _changed(self) -> None:
        self._news.set()
        if self.links and (not self.states or self.states[-1] is not self.links[-1].state):
            self.states.append(self.links[-1].state)

    async def _moved(self, node_id: str, addresses: Sequence[str], port: int) -> None:
        self.moved.append((node_id, list(addresses), port))
        self._news.set()

    async def until(self, true: Callable[[], bool], within_s: float = BOUND_S) -> None:
        async with asyncio.timeout(within_s):
            while not true():
                self._news.clear()
                await self._news.wait()

    def verdict(self) -> Word | None:
        return self.registry.find("m")[0].blocked


@pytest.fixture
async def side() -> AsyncIterator[Side]:
    session = client_session()
    made = Side(session)
    yield made
    for link in made.links:
        await link.stop()
    await made.tasks.close()
    await session.close()


@pytest.fixture
async def studio(tmp_path: Path) -> AsyncIterator[Studio]:
    async with Studio(tmp_path / "studio") as made:
        yield made


async def test_a_peer_is_followed_and_its_models_are_known(side: Side, studio: Studio) -> None:
    link = await side.link(studio.peer)
    assert (link.state, link.reason) == (OFFLINE, "It has not been reached yet.")
    await side.until(lambda: link.state is HEALTHY, 2)
    assert link.snapshot == studio.snapshot("m")
    (holder,) = side.registry.find("m")
    assert (holder.node, holder.engine, holder.local, holder.warm, holder.blocked, holder.width) == (
        studio.node_id,
        link.engine.id,
        False,
        True,
        None,
        4,
    )
    assert studio.asked[0].headers["authorization"].startswith("Quorum own ")
    await side.until(lambda: bool(link.latencies_s), 2)
    assert 0 < link.latencies_s[-1] < 1
    assert side.moved == []


async def test_each_change_is_known_at_once(side: Side, studio: Studio) -> None:
    link = await side.link(studio.peer)
    await side.until(lambda: link.state is HEALTHY)
    studio.say.put_nowait(told("change", studio.snapshot("m", "n", in_flight=3)) + b": beat\n\n")
    await side.until(lambda: link.engine._look.in_flight == 3, 0.5)
    assert side.registry.find("n")
    studio.say.put_nowait(told("change", studio.snapshot("m", mode=NodeMode.PAUSED)))
    await side.until(lambda: link.state is DRAINING, 0.5)
    assert (side.verdict(), link.reason) == (Word.PAUSED, "It is paused.")
    studio.say.put_nowait(told("change", studio.snapshot("m")))
    await side.until(lambda: link.state is HEALTHY, 0.5)
    assert side.verdict() is None
    with pytest.raises(ModelNotFoundError):
        side.registry.find("n")


async def test_the_name_shown_follows_the_one_told_and_is_kept(side: Side, studio: Studio) -> None:
    names: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    link = await side.link(studio.peer, renamed=lambda *named: names.put(named))
    await side.until(lambda: link.state is HEALTHY)
    studio.say.put_nowait(told("change", studio.snapshot("m", name="attic")))
    async with asyncio.timeout(BOUND_S):
        assert await names.get() == (studio.node_id, "attic")
    assert (link.engine.label, link.engine.node) == ("attic", studio.node_id)


async def test_where_somebody_found_it_is_tried_at_once(side: Side, studio: Studio) -> None:
    link = await side.link(replace(studio.peer, addresses=(), port=free_port()))
    await side.until(lambda: link.reason == "No address of it is known.")
    assert (await link.up(0), link.heard_at) == (False, None)
    link.dial(("127.0.0.1", studio.port))
    assert await link.up(BOUND_S)
    assert link.heard_at is not None
    link.dial(("127.0.0.1", 1))  # one that is followed stays
    assert link.client.place == ("127.0.0.1", studio.port)


async def test_the_time_there_and_back_is_measured_again_and_again(
    side: Side, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.peer_link.MEASURE_S", 0.01)
    link = await side.link(studio.peer)
    await side.until(lambda: len(link.latencies_s) == LATENCIES_MAX)
    first = link.latencies_s
    await side.until(lambda: link.latencies_s != first)
    assert len(link.latencies_s) == LATENCIES_MAX
    assert all(0 < took < 1 for took in link.latencies_s)


async def test_one_that_is_just_being_paired_is_asked_again_in_a_moment(side: Side, studio: Studio) -> None:
    honest = studio.scripts[STATE]
    refusals = 3

    async def not_yet(talk: Talk) -> None:
        nonlocal refusals
        refusals -= 1
        if refusals <= 0:
            studio.scripts[STATE] = honest
        await talk.refuse(401, "unauthorized", "This computer is not paired with yours.")

    studio.scripts[STATE] = not_yet
    link = await side.link(studio.peer)
    await side.until(lambda: link.state is HEALTHY, 8)


async def test_a_killed_process_is_known_within_a_second_and_found_again(side: Side, studio: Studio) -> None:
    link = await side.link(studio.peer)
    await side.until(lambda: link.state is HEALTHY)
    port = studio.port
    await studio.stop()
    await side.until(lambda: link.state is UNHEALTHY, 1)
    assert (side.verdict(), link.reason != "") == (Word.UNHEALTHY, True)
    assert not side.registry.find("m")[0].warm
    await studio.start(port=port)
    await side.until(lambda: link.state is HEALTHY, 4)
    assert side.verdict() is None


async def test_goodbye_is_offline_within_a_tenth_of_a_second(side: Side, studio: Studio) -> None:
    link = await side.link(studio.peer)
    await side.until(lambda: link.state is HEALTHY)
    studio.say.put_nowait(b"event: goodbye\ndata: {}\n\n")
    await side.until(lambda: link.state is OFFLINE, 0.1)
    assert side.verdict() is Word.UNHEALTHY
    link.poke()
    await side.until(lambda: link.state is HEALTHY, 1)


async def test_caches_of_its_loaded_models_are_void_once_it_is_offline_not_before(side: Side, studio: Studio) -> None:
    gone: list[tuple[str, str]] = []
    side.registry.replicas.on_removed.append(lambda engine, model: gone.append((engine, model)))
    link = await side.link(studio.peer, patience=Patience(silent_s=0.2, offline_s=0.6))
    await side.until(lambda: link.state is HEALTHY)
    studio.scripts[STATE] = _hangs
    await side.until(lambda: link.state is UNHEALTHY, 5)
    assert gone == []
    await side.until(lambda: link.state is OFFLINE, 5)
    assert gone == [(link.engine.id, "m")]


async def test_silence_is_unhealthy_then_offline_and_a_new_stream_heals(side: Side, studio: Studio) -> None:
    link = await side.link(studio.peer, patience=Patience(silent_s=0.3, offline_s=0.8))
    await side.until(lambda: link.state is HEALTHY)
    studio.scripts[STATE] = _hangs
    await side.until(lambda: link.state is UNHEALTHY, 1)
    await side.until(lambda: link.state is OFFLINE, 5)
    assert side.states == [OFFLINE, HEALTHY, UNHEALTHY, OFFLINE] or side.states == [HEALTHY, UNHEALTHY, OFFLINE]
    studio.scripts[STATE] = studio._state
    link.poke()
    await side.until(lambda: link.state is HEALTHY, 5)


async def test_beats_keep_it_healthy(side: Side, studio: Studio) -> None:
    link = await side.link(studio.peer, patience=Patience(silent_s=0.3, offline_s=0.8))
    await side.until(lambda: link.state is HEALTHY)
    for _ in range(6):
        studio.say.put_nowait(b": beat\n\n")
        with pytest.raises(TimeoutError):
            await side.until(lambda: link.state is not HEALTHY, 0.15)
    assert studio.streams == 1


async def _hangs(talk: Talk) -> None:
    await talk.gone()


async def test_single_bytes_are_no_sign_of_life(side: Side, studio: Studio) -> None:
    async def drips(talk: Talk) -> None:
        await talk.begin(accept=False)
        await talk.say(told("snapshot", studio.snapshot("m")))
        while True:
            await talk.say(b":")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 0.05)

    studio.scripts[STATE] = drips
    link = await side.link(studio.peer, patience=Patience(silent_s=0.3, offline_s=60))
    await side.until(lambda: link.state is HEALTHY)
    await side.until(lambda: link.state is UNHEALTHY, 1)


async def test_a_peer_at_a_new_address_is_found_by_sight_and_its_record_is_corrected(
    side: Side, studio: Studio, tmp_path: Path
) -> None:
    moved = studio.peer
    async with Studio(tmp_path / "other") as other, frozen() as dead:
        peer = Peer(**{name: getattr(moved, name) for name in Peer.__slots__} | {"port": dead})
        side.places = [("127.0.0.1", other.port), ("127.0.0.1", studio.port)]
        link = await side.link(peer)
        await side.until(lambda: link.state is HEALTHY, 5)
        assert other.asked == [], "who lies about a node id gets no byte of a request"
    await side.until(lambda: bool(side.moved))
    assert side.moved == [(studio.node_id, ["127.0.0.1"], studio.port)]
    assert link.client.place == ("127.0.0.1", studio.port)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_peer_that_does_not_know_this_computer_is_untrusted(side: Side, studio: Studio, status: int) -> None:
    async def refuses(talk: Talk) -> None:
        await talk.refuse(status, "unauthorized", "Who are you?")

    link = await side.link(studio.peer)
    await side.until(lambda: link.state is HEALTHY)
    studio.scripts[STATE] = refuses
    studio.say.put_nowait(b"")
    await side.until(lambda: link.reason == "Who are you?", 5)
    assert (link.state, side.verdict()) == (UNHEALTHY, Word.UNTRUSTED)
    studio.scripts[STATE] = studio._state
    link.poke()
    await side.until(lambda: link.state is HEALTHY, 2)
    assert side.verdict() is None


GARBAGE = {
    "nothing": b"",
    "words": b"hello\n\n",
    "no snapshot": b"event: snapshot\ndata: {oops}\n\n",
    "another node": told("snapshot", PeerSnapshot(node_id="x" * 52)),
    "only beats": b": beat\n\n",
    "endless": b"event: snapshot\ndata: " + b"a" * 3_000_000,
}


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_a_peer_that_tells_garbage_is_never_healthy(
    side: Side, studio: Studio, garbage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.peer_link.ANSWER_S", 0.3)

    async def lies(talk: Talk) -> None:
        await talk.begin(accept=False)
        if GARBAGE[garbage]:
            await talk.say(GARBAGE[garbage])
        await talk.gone()

    studio.scripts[STATE] = lies
    link = await side.link(studio.peer)
    await side.until(lambda: link.reason != "It has not been reached yet.")
    assert (link.state, link.snapshot) == (OFFLINE, None)


async def test_garbage_after_a_good_start_ends_the_stream(side: Side, studio: Studio) -> None:
    link = await side.link(studio.peer)
    await side.until(lambda: link.state is HEALTHY)
    studio.now = None
    studio.say.put_nowait(b"event: change\ndata: [1]\n\n")
    await side.until(lambda: link.state is UNHEALTHY, 1)
    assert "can't be understood" in link.reason


async def test_a_peer_that_comes_back_from_offline_is_no_longer_left_alone(side: Side, studio: Studio) -> None:
    link = await side.link(studio.peer)
    await side.until(lambda: link.state is HEALTHY)
    side.registry.health.failed(link.engine.id, "m", Failure.SILENT)
    assert side.verdict() is Word.UNHEALTHY
    studio.say.put_nowait(b"event: goodbye\ndata: {}\n\n")
    await side.until(lambda: link.state is OFFLINE)
    link.poke()
    await side.until(lambda: link.state is HEALTHY)
    assert side.verdict() is None


async def test_after_sleep_the_stream_is_opened_anew(side: Side, studio: Studio) -> None:
    link = await side.link(studio.peer)
    await side.until(lambda: link.state is HEALTHY)
    link.poke(anew=True)
    await side.until(lambda: studio.streams == 2 and link.state is HEALTHY, 2)


async def test_after_sleep_a_peer_counts_as_it_was_until_it_was_asked_in_vain(
    side: Side, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.peer_link.ANSWER_S", 0.3)
    link = await side.link(studio.peer)
    await side.until(lambda: link.state is HEALTHY)
    studio.scripts[STATE] = _hangs
    link.poke(anew=True)
    await side.until(lambda: link.state is UNHEALTHY, 3)
    assert link.reason != "Nothing was heard of it in time."
    assert link.reason


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b'{"why": "asleep"}', "It is asleep."),
        (b'{"why": "closed"}', "It was closed."),
        (b"{}", "It was closed."),
        (b"[1]", "It was closed."),
        (b"oops", "It was closed."),
    ],
)
async def test_a_goodbye_says_whether_it_sleeps(side: Side, studio: Studio, said: bytes, reason: str) -> None:
    asleep: list[str] = []
    link = await side.link(studio.peer, asleep=asleep.append)
    await side.until(lambda: link.state is HEALTHY)
    studio.say.put_nowait(b"event: goodbye\ndata: %b\n\n" % said)
    await side.until(lambda: link.state is OFFLINE)
    assert (link.reason, asleep) == (reason, [link.engine.id] if "asleep" in reason else [])


async def test_a_stopped_link_leaves_nothing(side: Side, studio: Studio) -> None:
    link = await side.link(studio.peer)
    await side.until(lambda: link.state is HEALTHY)
    await link.stop()
    assert not side.registry.has_engine(link.engine.id)
    with pytest.raises(ModelNotFoundError):
        side.registry.find("m")


async def test_a_peer_that_tells_without_end_is_looked_at_a_hundred_times_a_second_at_most(
    side: Side, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = await side.link(studio.peer)
    await side.until(lambda: link.state is HEALTHY)
    began = asyncio.get_running_loop().time()
    looks: list[int] = []
    monkeypatch.setattr(link.engine, "show", lambda look: looks.append(look.in_flight))
    for number in range(2000):
        studio.say.put_nowait(told("change", studio.snapshot("m", in_flight=number)))
    studio.say.put_nowait(told("change", studio.snapshot("m", in_flight=7777)))
    await side.until(lambda: link.snapshot is not None and link.snapshot.in_flight == 7777)
    took = asyncio.get_running_loop().time() - began
    assert len(looks) <= took / GAP_S + 2
    assert looks[-1] == 7777


async def test_a_peer_whose_news_take_long_to_read_gets_a_fifth_of_the_time(
    side: Side, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = await side.link(studio.peer)
    await side.until(lambda: link.state is HEALTHY)
    looks: list[float] = []

    def slow(look: EngineSnapshot) -> None:
        looks.append(time.monotonic())
        while time.monotonic() < looks[-1] + 0.02:
            pass

    monkeypatch.setattr(link.engine, "show", slow)
    for number in range(1, 4):
        studio.say.put_nowait(told("change", studio.snapshot("m", in_flight=number)))
        await side.until(lambda: len(looks) == number)  # noqa: B023 - awaited before the next
    assert all(later - sooner >= 0.02 * (1 + REST) * 0.9 for sooner, later in pairwise(looks))


async def test_an_older_peer_is_followed_in_its_version_of_the_protocol(
    side: Side, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As this version will be by the next one."""
    monkeypatch.setattr("router.peer_client.PeerClient.speak.__defaults__", (2,))
    told_of: list[str] = []

    async def older(talk: Talk) -> None:
        told_of.append(talk.asked.headers["x-quorum-protocol"])
        if told_of[-1] == "1":
            await studio._state(talk)
        else:
            await talk.refuse(400, "bad_request", "It speaks version 1.", X_Quorum_Protocol="1")

    studio.scripts[STATE] = older
    link = await side.link(studio.peer)
    await side.until(lambda: link.state is HEALTHY)
    assert told_of == ["2", "1"]
    assert link.client.headers["X-Quorum-Protocol"] == "1"


@pytest.mark.parametrize("spoken", ["2", "0", "9999", "x", ""])
async def test_a_peer_of_a_version_that_is_not_known_here_is_named_as_the_reason(
    side: Side, studio: Studio, spoken: str
) -> None:
    async def newer(talk: Talk) -> None:
        await talk.refuse(400, "bad_request", "It speaks version 2, you speak version 1.", X_Quorum_Protocol=spoken)

    studio.scripts[STATE] = newer
    link = await side.link(studio.peer)
    await side.until(lambda: "speaks version 2" in link.reason)
    assert link.state is OFFLINE
    assert link.client.headers["X-Quorum-Protocol"] == "1"


async def test_whatever_is_announced_of_it_the_known_addresses_are_tried(side: Side, studio: Studio) -> None:
    """Somebody announces the id of a paired computer at places where nobody is."""
    link = await side.link(studio.peer)
    link.client.place = ("127.0.0.1", 9)
    side.places = [("127.0.0.1", 10 + number) for number in range(50)]
    places = link._places()
    assert len(places) <= PLACES_MAX
    assert places[-1] == ("127.0.0.1", studio.port)


async def test_however_often_it_is_sighted_it_is_dialled_a_few_times_a_second_at_most(
    side: Side, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may announce it, and each news of it is a reason to look at once."""
    link = await side.link(replace(studio.peer, addresses=("127.0.0.1",), port=free_port()))
    rounds: list[float] = []
    enough = asyncio.Event()

    def sighted(node_id: str) -> list[Place]:
        rounds.append(asyncio.get_running_loop().time())
        link.poke()  # there is news again
        if len(rounds) == 4:
            enough.set()
        return []

    monkeypatch.setattr(link, "_sighted", sighted)
    link.poke()
    async with asyncio.timeout(BOUND_S):
        await enough.wait()
    assert rounds[3] - rounds[0] >= 3 * ROUND_S * 0.9
    monkeypatch.undo()
    side.places = [("127.0.0.1", studio.port)]
    link.poke()
    await side.until(lambda: link.state is HEALTHY)


async def test_places_behind_a_vpn_are_tried_last(side: Side, studio: Studio) -> None:
    link = await side.link(studio.peer, far=lambda host: host.startswith("10.66."))
    link.client.place = ("10.66.0.2", 7412)
    side.places = [("10.77.0.2", 7412), ("10.66.0.2", 7412)]
    assert link._places() == [("10.77.0.2", 7412), ("127.0.0.1", studio.port), ("10.66.0.2", 7412)]
