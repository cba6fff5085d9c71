"""The network doctor: asks every paired computer, from here and back, and says in one sentence why it isn't green.

It mends what it can: a computer that is found at an address is followed there at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import aiohttp

from router.aio import Clock, Tasks
from router.doctor_judge import HereFacts, Knock, PeerFacts, Said, Way, judge, judge_here
from router.doctor_probe import knock, question, way_to
from router.errors import QuorumError
from router.peer_client import PeerClient, Place
from router.sightings import Network, own_networks
from router.states import PeerState
from router.trust import Peer
from router.wire_peers import DoctorReport, Level
from router.wire_snapshot import PeerSnapshot

PLACES_MAX: Final = 16
AT_ONCE: Final = 8
UP_S: Final = 4.0


class Line(Protocol):
    """The open line to one paired computer."""

    @property
    def state(self) -> PeerState: ...
    @property
    def reason(self) -> str: ...
    @property
    def left(self) -> bool: ...
    @property
    def heard_at(self) -> float | None: ...
    @property
    def snapshot(self) -> PeerSnapshot | None: ...
    def dial(self, place: Place) -> None: ...
    async def up(self, within_s: float) -> bool: ...


class Ward(Protocol):
    """What the doctor is told by those who know. ``here`` may block for a few milliseconds."""

    def patients(self) -> Sequence[tuple[Peer, Line | None]]: ...
    def places(self, node_id: str) -> Sequence[Place]: ...
    def follows(self, node_id: str) -> bool: ...
    def name_of(self, node_id: str) -> str: ...
    async def sees(self, node_id: str) -> bool | None: ...
    def here(self) -> HereFacts: ...


@dataclass(frozen=True, slots=True)
class _Examined:
    facts: PeerFacts
    near: bool


class Doctor:
    """One examination at a time: whoever asks meanwhile gets what it finds."""

    def __init__(
        self,
        own_id: str,
        session: aiohttp.ClientSession,
        ward: Ward,
        clock: Clock,
        tasks: Tasks,
        networks: Callable[[], tuple[Network, ...]] = own_networks,
    ) -> None:
        self._own_id = own_id
        self._session = session
        self._ward = ward
        self._clock = clock
        self._tasks = tasks
        self._networks = networks
        self._running: dict[str, asyncio.Task[DoctorReport]] = {}

    async def report(self, node_id: str = "") -> DoctorReport:
        """Look at all paired computers and at this one, or at one of them only. Raises QuorumError (not_found).

        Takes about 15 s at most for each eight computers; ignored ones are left out.
        """
        running = self._running.get(node_id)
        if running is None or running.done():
            if node_id and not self._chosen(node_id):
                raise QuorumError("not_found", "This computer is not paired.", "'quorum peers' lists the paired ones.")
            running = self._running[node_id] = self._tasks.spawn("doctor", self._examine_all(node_id))
            running.add_done_callback(lambda _: self._running.pop(node_id, None))
        return await asyncio.shield(running)

    def _chosen(self, node_id: str) -> list[tuple[Peer, Line | None]]:
        return [
            (peer, line) for peer, line in self._ward.patients() if not peer.ignored and node_id in ("", peer.node_id)
        ]

    async def _examine_all(self, node_id: str) -> DoctorReport:
        networks = await asyncio.to_thread(self._networks)
        bound = asyncio.Semaphore(AT_ONCE)
        here = await asyncio.to_thread(self._ward.here)

        async def one(peer: Peer, line: Line | None) -> _Examined:
            async with bound:
                return await self._examine(peer, line, networks, here.port)

        examined = await asyncio.gather(*(one(peer, line) for peer, line in self._chosen(node_id)))
        of_here = judge_here(here, [one.facts for one in examined if one.near])
        of_peers = [judge(one.facts, here.port) for one in examined]
        green = all(one.level is Level.GOOD for one in of_peers) and all(one.level is not Level.BAD for one in of_here)
        return DoctorReport(at=self._clock.wall(), green=green, here=of_here, peers=of_peers)

    async def _examine(self, peer: Peer, line: Line | None, networks: Sequence[Network], own_port: int) -> _Examined:
        places = self._places(peer)
        met, seen = await asyncio.gather(
            asyncio.gather(*(knock(at, peer.certificate_sha256, way_to(at[0], networks)) for at in places)),
            self._ward.sees(peer.node_id),
        )
        facts = PeerFacts(
            node_id=peer.node_id,
            name=peer.name,
            seen=seen,
            follows=self._ward.follows(peer.node_id),
            knocks=tuple(met),
            known_as=next((self._ward.name_of(one.shown) for one in met if one.shown), ""),
        )
        reached = next((one for one in met if one.said is Said.PAIRED), None)
        if reached is not None:
            facts = await self._ask(facts, peer, line, reached, own_port)
        if line is None:
            return _Examined(facts, False)
        told = line.snapshot or PeerSnapshot(node_id=peer.node_id)
        return _Examined(
            replace(
                facts,
                name=told.name or peer.name,
                state=line.state,
                reason=line.reason,
                left=line.left,
                mode=told.mode,
                shared=told.shared,
                granted=told.granted,
            ),
            reached is not None and reached.way is Way.LAN,
        )

    async def _ask(self, facts: PeerFacts, peer: Peer, line: Line | None, reached: Knock, own_port: int) -> PeerFacts:
        """What the computer says for itself; its line is led there where it is down."""
        place = (reached.address, reached.port)
        client = PeerClient(self._session, self._own_id, peer)
        words = await question(client, place, own_port, self._clock.wall)
        if line is not None and line.state in (PeerState.OFFLINE, PeerState.UNHEALTHY) and words.status != 401:
            line.dial(place)
            await line.up(UP_S)
        return replace(facts, words=words)

    def _places(self, peer: Peer) -> list[Place]:
        """Everywhere it may be: where it is seen now, then where it was."""
        known = [*self._ward.places(peer.node_id), *((address, peer.port) for address in peer.addresses)]
        return list(dict.fromkeys(known))[:PLACES_MAX]


async def reach_at(
    peer: Peer, line: Line | None, places: Sequence[Place], moved: Callable[[Place], Awaitable[None]]
) -> None:
    """Follow a paired computer at the first of ``places`` that proves to be it. Raises QuorumError when none does."""
    said = [await knock(place, peer.certificate_sha256) for place in places]
    found = next((one for one in said if one.said is Said.PAIRED), None)
    if found is None:
        other = any(one.said is Said.OTHER for one in said)
        raise QuorumError(
            "peer_failed",
            f"Another computer than {peer.name} answers there." if other else f"{peer.name} does not answer there.",
            "Look at its address again: its Peers page shows it when it shows digits for pairing.",
        )
    place = (found.address, found.port)
    await moved(place)
    if line is not None:
        line.dial(place)
        await line.up(UP_S)
