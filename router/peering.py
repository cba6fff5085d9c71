"""This node among others: listens for them, shows itself while it shares, keeps a link to each, pairs and unpairs.

What must be on follows from what is wanted, in ``_settle`` alone; everything else only wakes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from router.aio import Tasks
from router.doctor import Doctor, reach_at
from router.errors import BadRequestError, QuorumError, StoreError
from router.identity import Identity
from router.pairing import Answer, PairingAsk, PairingDesk, Phase, join
from router.peer_looks import USUAL_PORT, Link, Seen, paired_info, pairing_info, sighted_info
from router.peer_looks import split_address as split_address
from router.settings import Settings
from router.states import PeerState
from router.trust import Peer, Trust
from router.web.network import lan_addresses
from router.wire_peers import DoctorReport, JoinPairing, PairingAnswer, PairingInfo, PeerInfo, PeerPatch

log = logging.getLogger(__name__)

LOOK_S: Final = 15.0


class Surface(Protocol):
    """The socket on which paired computers reach this one."""

    async def start(self, addresses: Sequence[str], port: int) -> int: ...
    async def goodbye(self, *, asleep: bool = False) -> None: ...
    def back(self) -> None: ...
    async def stop(self) -> None: ...


class Finder(Protocol):
    """mDNS: who is seen, and whether this node is."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def announce(self, name: str, addresses: Sequence[str], port: int) -> None: ...
    async def withdraw(self) -> None: ...
    async def refresh(self) -> None: ...
    def sightings(self) -> tuple[Seen, ...]: ...


class Peering:
    """From ``start`` to ``stop``; ``close`` is called last. ``changed`` hears of news in ``infos`` and ``pairing``."""

    def __init__(
        self,
        *,
        identity: Identity,
        trust: Trust,
        desk: PairingDesk,
        surface: Surface,
        finder: Finder | None,
        link: Callable[[Peer], Link],
        settings: Settings,
        tasks: Tasks,
        name: Callable[[], str],
        changed: Callable[[], None],
        close: Callable[[], Awaitable[None]],
        addresses: Callable[[], list[str]] = lan_addresses,
    ) -> None:
        self.port = 0
        self.trouble = ""
        self.doctor: Doctor | None = None
        self._identity = identity
        self._trust = trust
        self._desk = desk
        self._surface = surface
        self._finder = finder
        self._make_link = link
        self._settings = settings
        self._tasks = tasks
        self._name = name
        self._changed = changed
        self._close = close
        self._look = addresses
        self._addresses: list[str] = []
        self._listening: list[str] = []
        self._announced: tuple[str, tuple[str, ...], int] | None = None
        self._links: dict[str, tuple[Peer, Link]] = {}
        self._answer: asyncio.Future[Answer] | None = None
        self._joining = False
        self._away = self._stale = False
        self._wake = asyncio.Event()
        self._settling = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    # -- life

    def start(self) -> None:
        """Begin to listen, to show this node and to reach for the paired ones, as far as the settings want it."""
        self._trust.listen(lambda _: self.poke())
        self._settings.listen(self._settings_changed)
        self._task = self._tasks.spawn("peering", self._run())

    async def goodbye(self, *, asleep: bool = False) -> None:
        """This node goes, or sleeps: whoever follows it sends it nothing more, and mDNS shows it to nobody."""
        self._away, self._announced = True, None
        parts = [self._surface.goodbye(asleep=asleep)] if self._listening else []
        parts += [self._finder.withdraw()] if self._finder is not None else []
        await asyncio.gather(*parts)

    def back(self) -> None:
        """This node slept: nothing that was open to others counts, and it shows itself and looks for them again."""
        self._away, self._announced, self._stale = False, None, True
        self._surface.back()
        for _, link in self._links.values():
            link.poke(anew=True)
        self.poke()

    async def stop(self) -> None:
        """Say goodbye and end everything; at most about a second."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._desk.close()
        if self._listening:
            await self._surface.stop()
        links, self._links = self._links, {}
        await asyncio.gather(*(link.stop() for _, link in links.values()), return_exceptions=True)
        if self._finder is not None:
            await self._finder.stop()
        await self._close()

    def poke(self) -> None:
        """Something about other computers changed: tell it, and see to what must be on."""
        self._wake.set()
        self._changed()

    def sighted(self) -> None:
        """Others are seen, elsewhere or no more: those that are not reached are tried at once."""
        seen = {one.node_id for one in self._finder.sightings()} if self._finder is not None else set()
        for node_id, (_, link) in self._links.items():
            if node_id in seen and link.state in (PeerState.OFFLINE, PeerState.UNHEALTHY):
                link.poke()
        self._changed()

    def _settings_changed(self, names: frozenset[str]) -> None:
        if names & {"share", "name"}:
            self.poke()

    async def _run(self) -> None:
        await self._try_to_settle()
        if self._finder is not None:
            await self._finder.start()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
            self._wake.clear()
            if self._stale and self._finder is not None:
                self._stale = False
                await self._finder.refresh()
            await self._try_to_settle()

    async def _try_to_settle(self) -> None:
        try:
            await self._settle()
        except (OSError, QuorumError) as error:
            self.trouble = str(error)
            log.warning("other computers can't reach this one: %s", error)
        else:
            self.trouble = ""

    async def _settle(self) -> None:
        """Switch on and off what the settings, the pairings and an open pairing want. Raises OSError, QuorumError."""
        async with self._settling:
            self._addresses = await asyncio.to_thread(self._look)
            await self._settle_surface()
            await self._settle_announcement()
            await self._settle_links()

    async def _settle_surface(self) -> None:
        wanted = bool(self._settings["share"]) or self._desk.busy or self._joining or bool(self._trust.peers())
        addresses = self._addresses if wanted else []
        if addresses == self._listening:
            return
        if self._listening and not addresses:
            await self._surface.stop()
            self._listening = []
            return
        self.port = await self._surface.start(addresses, self._settings["peer_port"])
        self._listening = list(addresses)

    async def _settle_announcement(self) -> None:
        if self._finder is None:
            return
        shown = bool(self._settings["share"]) and bool(self._listening) and not self._away
        told = (self._name(), tuple(self._listening), self.port) if shown else None
        if told == self._announced:
            return
        self._announced = told
        if told is None:
            await self._finder.withdraw()
        else:
            await self._finder.announce(*told)

    async def _settle_links(self) -> None:
        wanted = {peer.node_id: peer for peer in self._trust.peers() if not peer.ignored}
        for node_id, (peer, link) in tuple(self._links.items()):
            known = wanted.get(node_id)
            if known is None or known.secret_out != peer.secret_out:
                del self._links[node_id]
                await link.stop()
            elif known != peer:
                self._links[node_id] = (known, link)
                link.renew(known)
        for node_id, peer in wanted.items():
            if node_id not in self._links:
                link = self._make_link(peer)
                self._links[node_id] = (peer, link)
                await link.start()
        self._changed()

    # -- what the page and the commands see

    def own(self) -> tuple[str, Sequence[str], int]:
        """Name, addresses and peer port, as this computer tells them to one that it pairs with."""
        return self._name(), self._addresses, self.port or int(self._settings["peer_port"]) or USUAL_PORT

    @property
    def addresses(self) -> Sequence[str]:
        """Those of this computer in its networks, as last looked."""
        return self._addresses

    @property
    def listens(self) -> bool:
        """Whether other computers can call this one."""
        return bool(self._listening)

    def line(self, node_id: str) -> Link | None:
        """The open line to a paired computer that is not ignored."""
        return self._links.get(node_id, (None, None))[1]

    def infos(self) -> list[PeerInfo]:
        """Paired ones in the order of their pairing, then those seen."""
        asks = self._desk.state.ask if self._desk.state.phase is Phase.ASKING else None
        seen = self._finder.sightings() if self._finder is not None else ()
        known = {peer.node_id for peer in self._trust.peers()}
        return [
            *(paired_info(peer, self._links.get(peer.node_id, (peer, None))[1]) for peer in self._trust.peers()),
            *(
                sighted_info(one, self._trust.ignored(one.node_id), asks is not None and asks.node_id == one.node_id)
                for one in seen
                if one.node_id not in known
            ),
        ]

    def _info(self, peer_id: str) -> PeerInfo:
        found = next((info for info in self.infos() if info.id == peer_id), None)
        if found is None:
            raise QuorumError("not_found", "There is no such computer.", "'quorum peers' lists those that are known.")
        return found

    def pairing(self) -> PairingInfo:
        """Pairing as this computer offers it now."""
        return pairing_info(self._desk.state, self._addresses, self.port)

    # -- pairing

    async def open_pairing(self) -> PairingInfo:
        """Show digits that let one computer pair. Raises QuorumError when nobody could reach this one."""
        self._desk.open(self._ask)
        try:
            await self._settle()
        except (OSError, QuorumError):
            self._desk.close()
            raise
        if not self._listening:
            self._desk.close()
            raise QuorumError("conflict", "This computer is in no network.", "Connect it, then try again.")
        return self.pairing()

    async def close_pairing(self) -> PairingInfo:
        """Take the digits back; one that asks is refused."""
        self._desk.close()
        self.poke()
        return self.pairing()

    async def _ask(self, ask: PairingAsk) -> Answer:
        """Wait for what the user says about ``ask``."""
        self._answer = asyncio.get_running_loop().create_future()
        return await self._answer

    def answer(self, answer: PairingAnswer) -> PairingInfo:
        """What the user says to the one that asks. Raises QuorumError when nobody does."""
        if self._answer is None or self._answer.done():
            raise QuorumError("conflict", "No computer asks to be paired.", "It may have given up; show new digits.")
        may_use = answer.accept and answer.may_use
        if may_use:
            self._share()
        self._answer.set_result(Answer(answer.accept, may_use))
        return self.pairing()

    async def join(self, asked: JoinPairing) -> PeerInfo:
        """Pair with the computer that shows the digits. Raises QuorumError."""
        if asked.node_id:
            places = self._sighting(lambda one: one.node_id == asked.node_id)
            if not places:
                raise QuorumError(
                    "not_found", "That computer is not seen any more.", "Give its address, or choose it again."
                )
        else:
            host, port = split_address(asked.address)
            places = self._sighting(lambda one: one.name.lower() == host.lower()) or [(host, port)]
        self._joining = True  # it is told the port at which this computer listens
        try:
            await self._settle()
            peer = await self._join_at(places, asked)
        finally:
            self._joining = False
            self.poke()
        if asked.may_use:
            self._share()
        await self._settle()
        return self._info(peer.node_id)

    def _sighting(self, meant: Callable[[Seen], bool]) -> list[tuple[str, int]]:
        seen = self._finder.sightings() if self._finder is not None else ()
        return [(address, one.port) for one in seen if meant(one) for address in one.addresses]

    async def _join_at(self, places: Sequence[tuple[str, int]], asked: JoinPairing) -> Peer:
        """Try one address after the other until somebody answers there."""
        for number, (address, port) in enumerate(places, 1):
            try:
                return await join(
                    address,
                    port,
                    asked.code,
                    self._identity,
                    self._trust,
                    self.own(),
                    may_use=asked.may_use,
                    expected=asked.node_id,
                )
            except QuorumError as error:
                if not isinstance(error.__cause__, OSError | TimeoutError) or number == len(places):
                    raise
        raise QuorumError("not_found", "That computer has no address.", "Give its address instead.")

    def _share(self) -> None:
        """A yes to the question turns sharing on, where the environment does not fix it."""
        with suppress(BadRequestError, StoreError):
            if not self._settings["share"]:
                self._settings.update({"share": True})

    # -- paired ones

    async def patch(self, peer_id: str, patch: PeerPatch) -> PeerInfo:
        """Change what a computer may do here, its name and use here, or whether it is shown. Raises QuorumError."""
        if patch.may_use is not None or patch.may_manage is not None:
            await self._trust.grant(peer_id, may_use=patch.may_use, may_manage=patch.may_manage)
            if patch.may_use:
                self._share()
        if patch.own_name is not None or patch.send is not None:
            await self._trust.override(peer_id, own_name=patch.own_name, send=patch.send)
            await self._settle()
        if patch.ignored is not None:
            self._info(peer_id)
            await self._trust.ignore(peer_id, patch.ignored)
        self.poke()
        return self._info(peer_id)

    async def examine(self, peer_id: str) -> DoctorReport:
        """What the doctor says of one paired computer, or (empty) of all. Raises QuorumError."""
        assert self.doctor is not None  # noqa: S101 - put there by peering_parts
        report = await self.doctor.report(peer_id)
        self._changed()
        return report

    async def reach(self, peer_id: str, address: str) -> PeerInfo:
        """Follow a paired computer at the address that the user gives, once it proved to be it. Raises QuorumError."""
        peer = self._trust.get(peer_id)
        if peer is None:
            raise QuorumError("not_found", "This computer is not paired.", "'quorum peers' lists the paired ones.")
        places = [split_address(address)]
        if places[0][1] != peer.port and places[0][1] == USUAL_PORT:
            places.append((places[0][0], peer.port))

        async def moved(place: tuple[str, int]) -> None:
            await self._trust.moved(peer_id, [place[0], *peer.addresses], place[1])

        await reach_at(peer, self.line(peer_id), places, moved)
        return self._info(peer_id)

    async def unpair(self, peer_id: str) -> PeerInfo:
        """End the pairing at once. Raises QuorumError."""
        was = self._info(peer_id)
        await self._trust.revoke(peer_id)
        await self._settle()
        return was
