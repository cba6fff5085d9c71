"""The open line to one paired computer: keeps its state stream open, and the registry's engine of it true.

The stream is looked for where it was last, then where mDNS shows that node id, then at the addresses known from the
pairing; the certificate is compared before a byte is sent, so a wrong place costs one connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

import aiohttp

from router.aio import Clock, Tasks
from router.engines.peer import PeerEngine, away, look_of
from router.liveness import Liveness, Patience
from router.peer_client import PeerClient, PeerFault, Place, decoded
from router.registry import Registry
from router.state_stream import ANSWER_S, Event, SilentFault, SleptFault, StateStream, refusal
from router.states import NodeMode, PeerState
from router.trust import Peer
from router.wire_snapshot import PROTOCOL_HEADER, PeerModel, PeerSnapshot, read_snapshot

log = logging.getLogger(__name__)

STATE: Final = "/peer/v1/state"
HELLO: Final = "/peer/v1/hello"
CONNECT_S: Final = 1.0
AGAIN_FIRST_S: Final = 0.25
ROUND_S: Final = 0.25  # whatever is announced, it is dialled no more often
AGAIN_MAX_S: Final = 15.0
REFUSED_S: Final = 30.0
PLACES_MAX: Final = 16
SIGHTED_MAX: Final = 8  # of them: what anybody may announce leaves room for what is known
GAP_S: Final = 0.01  # between two looks at what it tells
REST: Final = 4  # times as long as the look took, where that is longer
MEASURE_S: Final = 30.0
LATENCIES_MAX: Final = 20
_UNUSED: Final = "You send it no work."


class PeerLink:
    """From ``start`` to ``stop``; ``changed`` hears of every change of what the properties say.

    ``sighted`` gives the places at which mDNS shows a node id, ``far`` says which are behind a VPN. ``moved`` is told
    the addresses and port at which the peer proved to be, when they are not those of its record; ``renamed`` its name,
    when it has another one now.
    ``held`` are the models it told of in an earlier run, ``holds`` hears of those it tells of.
    """

    def __init__(
        self,
        peer: Peer,
        *,
        own_id: str,
        session: aiohttp.ClientSession,
        registry: Registry,
        tasks: Tasks,
        clock: Clock,
        changed: Callable[[], None] = lambda: None,
        sighted: Callable[[str], Iterable[Place]] = lambda node_id: (),
        far: Callable[[str], bool] = lambda host: False,
        moved: Callable[[str, Sequence[str], int], Awaitable[None]] | None = None,
        renamed: Callable[[str, str], Awaitable[None]] | None = None,
        held: Sequence[PeerModel] = (),
        holds: Callable[[str, Sequence[PeerModel]], None] = lambda node_id, models: None,
        patience: Patience | None = None,
        asleep: Callable[[str], None] = lambda engine_id: None,
    ) -> None:
        self.snapshot: PeerSnapshot | None = None
        self.latencies_s: tuple[float, ...] = ()
        self.client = PeerClient(session, own_id, peer)
        self.engine = PeerEngine(self.client, registry.health, registry.update)
        self.engine.label = peer.own_name or peer.name
        self._peer = peer
        self._registry = registry
        self._tasks = tasks
        self._clock = clock
        self._changed = changed
        self._sighted = sighted
        self._far = far
        self._tell_moved = moved
        self._fell_asleep = asleep
        self._tell_renamed = renamed
        self._held = tuple(held)
        self._tell_holds = holds
        self._liveness = Liveness(clock, self._moved, patience)
        self._known = {(address, peer.port) for address in peer.addresses}
        self._trusted = True
        self._wake = asyncio.Event()
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stream: StateStream | None = None

    # -- what others see

    @property
    def state(self) -> PeerState:
        return self._liveness.state

    @property
    def reason(self) -> str:
        return self._liveness.reason

    @property
    def left(self) -> bool:
        """Whether its last word was a goodbye."""
        return self._liveness.left

    @property
    def heard_at(self) -> float | None:
        """Wall time of its last word; None before the first."""
        return self._liveness.heard_at

    def dial(self, place: Place) -> None:
        """Somebody found it at ``place``: look there first, at once, unless it is followed already."""
        if self.state in (PeerState.OFFLINE, PeerState.UNHEALTHY):
            self.client.place = place
            self._wake.set()

    async def up(self, within_s: float) -> bool:
        """Wait until it is followed, for so long at most; whether it is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._up.wait()
        return self._up.is_set()

    async def start(self) -> None:
        """Take the peer in as an engine and begin to reach for it."""
        self._registry.add(self.engine)
        self._show()
        self._task = self._tasks.spawn("peer link", self._keep())

    async def stop(self) -> None:
        """Let go of it: its engine leaves the registry."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._registry.remove(self.engine.id)
        await self.engine.stop()

    def poke(self, *, anew: bool = False) -> None:
        """Try at once, because something changed: it was sighted. ``anew``: this machine slept, the stream is void."""
        self._wake.set()
        if anew:
            self.engine.drop_connections()
            if self._stream is not None:
                self._stream.make_void()

    def renew(self, peer: Peer) -> None:
        """Its record changed: what its owner here calls it, whether it gets work."""
        self._peer = peer
        told = self.snapshot.name if self.snapshot is not None else ""
        self.engine.label = peer.own_name or told or peer.name
        self._show()

    # -- the state

    def _moved(self, old: PeerState) -> None:
        if self.state is not old:
            log.info("%s is %s. %s", self._peer.name, self.state, self.reason)
            if old is PeerState.OFFLINE:
                self._registry.health.clear(self.engine.id)
            if self.state is PeerState.OFFLINE:
                self._registry.replicas.clear(self.engine.id)
        self._show()

    def _show(self) -> None:
        if self.state in (PeerState.HEALTHY, PeerState.DRAINING):
            self._up.set()
        else:
            self._up.clear()
        if self.snapshot is not None and self.state in (PeerState.HEALTHY, PeerState.DRAINING):
            look = look_of(self.snapshot)
            self.engine.show(look if self._peer.send else replace(look, mode=NodeMode.PAUSED, detail=_UNUSED))
        else:
            self.engine.show(away(self._held, self.reason, self._trusted))
        self._changed()

    # -- the stream

    async def _keep(self) -> None:
        """Follow the peer's state, again and again."""
        pause_s, loop = AGAIN_FIRST_S, asyncio.get_running_loop()
        while True:
            next_at = loop.time() + ROUND_S
            pause_s = await self._round(pause_s)
            await asyncio.sleep(next_at - loop.time())
            await self._rest(pause_s * random.uniform(0.8, 1.2))  # noqa: S311 - spreads retries, keeps no secret

    async def _rest(self, pause_s: float) -> None:
        """Wait, unless poked; meanwhile silence goes on, and makes it offline when its time has come."""
        until = self._clock.mono() + pause_s
        while (left_s := until - self._clock.mono()) > 0 and not self._wake.is_set():
            if self.state is not PeerState.OFFLINE:
                left_s = min(left_s, self._liveness.left_s + 0.01)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._wake.wait()
            self._liveness.look()
        self._wake.clear()

    async def _round(self, pause_s: float) -> float:
        """Try each place once; seconds to wait before the next round."""
        why, was = "No address of it is known.", self.state
        self.client.speak()
        for place in self._places():
            try:
                await self._follow(place)
                return AGAIN_FIRST_S * 8  # it said goodbye
            except PeerFault as fault:
                why = fault.message
                if isinstance(fault, SleptFault):
                    return 0.0  # what was known of it counts until it has been asked again
                if not self._trusted:
                    self._liveness.broke(why)
                    return min(pause_s * 2, REFUSED_S)  # one that is just being paired knows us in a moment
                if self.state is not was and self.state in (PeerState.HEALTHY, PeerState.DRAINING):
                    self._liveness.broke(why)  # it was followed there: reach for it again at once
                    return AGAIN_FIRST_S
            self._liveness.look()
        self._liveness.broke(why)
        return min(pause_s * 2, AGAIN_MAX_S)

    def _places(self) -> list[Place]:
        """Where it may be, the likeliest first, and those behind a VPN last."""
        known = [self.client.place] if self.client.place[0] else []
        known += list(self._sighted(self._peer.node_id))[:SIGHTED_MAX]
        known += [(address, self._peer.port) for address in self._peer.addresses]
        return sorted(dict.fromkeys(known), key=lambda place: self._far(place[0]))[:PLACES_MAX]

    async def _follow(self, place: Place) -> None:
        """Read the stream until its goodbye. Raises PeerFault when it can't be had or breaks."""
        async with self.client.open("GET", STATE, place=place, connect_s=CONNECT_S, answer_s=ANSWER_S) as response:
            self._liveness.answered()
            if response.status == 200:
                self._trusted = True
                measuring = self._tasks.spawn("peer latency", self._measure_on(place))
                try:
                    await self._listen(response, place)
                finally:
                    measuring.cancel()
                return
            told = response.headers.get(PROTOCOL_HEADER, "") if response.status == 400 else ""
            if not self.client.gives_way(told):
                fault = await refusal(response)
                if response.status in (401, 403):
                    self._trusted = False
                raise fault
        await self._follow(place)  # in the older version that it speaks

    async def _listen(self, response: aiohttp.ClientResponse, place: Place) -> None:
        stream = self._stream = StateStream(response.content)
        opened, loop = self._clock.mono(), asyncio.get_running_loop()
        first, rest_s = True, GAP_S
        while True:
            told = await self._heard(stream, self._patience_left(opened, first))
            newest = next((data for name, data in reversed(told) if name in (b"snapshot", b"change")), None)
            if newest is not None:
                began = loop.time()
                self._told(newest, place)
                rest_s = max(GAP_S, REST * (loop.time() - began))
                first = False
            elif not first and any(name == b"" for name, _ in told):
                self._liveness.beat()
            last = next((data for name, data in told if name == b"goodbye"), None)
            if last is not None:
                asleep = decoded(last) == {"why": "asleep"}
                self._liveness.goodbye(asleep=asleep)
                if asleep:
                    self._fell_asleep(self.engine.id)
                return
            if newest is not None:
                await asyncio.sleep(rest_s)  # a peer that tells without end gets no more than its share

    def _patience_left(self, opened: float, first: bool) -> float:
        """Seconds in which the next word must come; the first one soon."""
        if first:
            return max(0.0, opened + ANSWER_S - self._clock.mono())
        return self._liveness.left_s

    async def _heard(self, stream: StateStream, left_s: float) -> Sequence[Event]:
        try:
            return await stream.read(left_s)
        except SilentFault:
            self._liveness.look()
            self.engine.drop_connections()  # they are as dead as this one
            raise

    def _told(self, data: bytes, place: Place) -> None:
        try:
            snapshot = read_snapshot(data, self._peer.node_id)
        except ValueError as error:
            raise PeerFault(f"It can't be understood: {error}.", None) from None
        news = snapshot != self.snapshot
        if snapshot.name and snapshot.name != self._peer.name:
            self._peer = replace(self._peer, name=snapshot.name)
            self.engine.label = self._peer.own_name or snapshot.name  # what is shown follows; the id is what counts
            if self._tell_renamed is not None:
                self._tasks.spawn("peer renamed", _quietly(self._tell_renamed(self._peer.node_id, snapshot.name)))
        self.snapshot = snapshot
        self._held = tuple(snapshot.models)
        self._tell_holds(self._peer.node_id, snapshot.models)
        self.client.place = place
        was = self.state
        self._liveness.told(snapshot.mode)
        if news and self.state is was:
            self._show()
        if self._tell_moved is not None and place not in self._known:
            self._known.add(place)
            addresses = list(dict.fromkeys([place[0], *self._peer.addresses]))[:PLACES_MAX]
            self._tasks.spawn("peer moved", _quietly(self._tell_moved(self._peer.node_id, addresses, place[1])))

    async def _measure_on(self, place: Place) -> None:
        """How long a word takes there and back, on a connection that is open already: now, and again and again."""
        await self._up.wait()
        while True:
            with contextlib.suppress(PeerFault):
                await self.client.ask("GET", HELLO, place=place, timeout_s=ANSWER_S)
                began = asyncio.get_running_loop().time()
                await self.client.ask("GET", HELLO, place=place, timeout_s=ANSWER_S)
                took_s = round(asyncio.get_running_loop().time() - began, 5)
                self.latencies_s = (*self.latencies_s, took_s)[-LATENCIES_MAX:]
                self._changed()
            await asyncio.sleep(MEASURE_S)


async def _quietly(telling: Awaitable[None]) -> None:
    """A place that can't be stored now is found again at the next start."""
    try:
        await telling
    except Exception as error:
        log.warning("the address of a computer could not be kept: %s", type(error).__name__)
