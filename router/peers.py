"""Other computers as the user meets them: listed, paired, granted, ignored, looked for and unpaired."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from router.doctor import reach_at
from router.errors import BadRequestError, QuorumError, StoreError
from router.identity import Identity
from router.pairing import Answer, PairingAsk, PairingDesk, Phase, join
from router.peer_looks import USUAL_PORT, Seen, paired_info, pairing_info, sighted_info, split_address
from router.peering import Peering
from router.settings import Settings
from router.trust import Peer, Trust
from router.wire_peers import DoctorReport, JoinPairing, PairingAnswer, PairingInfo, PeerInfo, PeerPatch


class Peers:
    """Behind the page and the commands. ``examine`` is the doctor's report; ``changed`` hears of news in ``infos``."""

    def __init__(
        self,
        identity: Identity,
        trust: Trust,
        desk: PairingDesk,
        peering: Peering,
        settings: Settings,
        examine: Callable[[str], Awaitable[DoctorReport]],
        changed: Callable[[], None],
    ) -> None:
        self._identity = identity
        self._trust = trust
        self._desk = desk
        self._peering = peering
        self._settings = settings
        self._examine = examine
        self._changed = changed
        self._answer: asyncio.Future[Answer] | None = None

    def infos(self) -> list[PeerInfo]:
        """Paired ones in the order of their pairing, then those seen."""
        asks = self._desk.state.ask if self._desk.state.phase is Phase.ASKING else None
        known = {peer.node_id for peer in self._trust.peers()}
        return [
            *(paired_info(peer, self._peering.line(peer.node_id)) for peer in self._trust.peers()),
            *(
                sighted_info(one, self._trust.ignored(one.node_id), asks is not None and asks.node_id == one.node_id)
                for one in self._peering.sightings()
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
        return pairing_info(self._desk.state, self._peering.addresses, self._peering.port)

    # -- pairing

    async def open_pairing(self) -> PairingInfo:
        """Show digits that let one computer pair. Raises QuorumError when nobody could reach this one."""
        self._desk.open(self._ask)
        try:
            await self._peering.settle()
        except (OSError, QuorumError):
            self._desk.close()
            raise
        if not self._peering.listens:
            self._desk.close()
            raise QuorumError("conflict", "This computer is in no network.", "Connect it, then try again.")
        return self.pairing()

    async def close_pairing(self) -> PairingInfo:
        """Take the digits back; one that asks is refused."""
        self._desk.close()
        self._peering.poke()
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
        async with self._peering.joining():
            peer = await self._join_at(places, asked)
        if asked.may_use:
            self._share()
        await self._peering.settle()
        return self._info(peer.node_id)

    def _sighting(self, meant: Callable[[Seen], bool]) -> list[tuple[str, int]]:
        return [(address, one.port) for one in self._peering.sightings() if meant(one) for address in one.addresses]

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
                    self._peering.own(),
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
            await self._peering.settle()
        if patch.ignored is not None:
            self._info(peer_id)
            await self._trust.ignore(peer_id, patch.ignored)
        self._peering.poke()
        return self._info(peer_id)

    async def examine(self, peer_id: str) -> DoctorReport:
        """What the doctor says of one paired computer, or (empty) of all. Raises QuorumError."""
        report = await self._examine(peer_id)
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

        await reach_at(peer, self._peering.line(peer_id), places, moved)
        return self._info(peer_id)

    async def unpair(self, peer_id: str) -> PeerInfo:
        """End the pairing at once. Raises QuorumError."""
        was = self._info(peer_id)
        await self._trust.revoke(peer_id)
        await self._peering.settle()
        return was
