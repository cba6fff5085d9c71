"""Builds ``peering`` and ``peers`` of trust, pairing desk, peer surface, discovery and lines to paired computers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from router.aio import Clock, Tasks
from router.discovery import Discovery
from router.doctor import Doctor
from router.doctor_ward import OwnWard
from router.holders import Holders
from router.identity import Identity
from router.pairing import PairingDesk
from router.peer_link import PeerLink
from router.peer_tls import client_session
from router.peering import Peering
from router.peers import Peers
from router.sleep import take_back
from router.states import PeerState
from router.store import Store
from router.trust import Peer, Trust
from router.web.peer import PeerSurface
from router.web.service import Service


async def open_peering(
    service: Service,
    identity: Identity,
    store: Store,
    data_dir: Path,
    clock: Clock,
    tasks: Tasks,
    width: Callable[[str], int],
    discovery: bool,
) -> tuple[Peering, Peers]:
    """Read who is paired and put the parts together; ``Peering.start`` brings them up. ``discovery`` False: no mDNS."""
    trust = Trust(store, identity, data_dir, clock)
    await trust.open()
    holders = Holders(store, clock)
    await holders.open()
    trust.listen(lambda node_id: None if trust.get(node_id) else holders.forget(node_id))
    session = client_session()
    desk = PairingDesk(identity, trust, clock, lambda: peering.own(), lambda: peering.poke())
    finder = Discovery(
        identity.node_id,
        tasks,
        clock,
        changed=lambda: peering.sighted(),
        paired=lambda: [peer.node_id for peer in trust.peers()],
    )

    def told() -> None:
        service.view.changed("peers")

    def link(peer: Peer) -> PeerLink:
        return PeerLink(
            peer,
            own_id=identity.node_id,
            session=session,
            registry=service.registry,
            tasks=tasks,
            clock=clock,
            changed=told,
            sighted=finder.places,
            far=finder.far,
            moved=trust.moved,
            asleep=lambda engine_id: take_back(service.scheduler, engine_id, "It went to sleep."),
            renamed=trust.rename,
            held=holders.models(peer.node_id),
            holds=holders.told,
        )

    surface = PeerSurface(service, identity, trust, desk, tasks, width)

    def came(node_id: str) -> None:
        """It has called, so it is awake and in this network: no need to wait for the next round."""
        line = peering.line(node_id)
        if line is not None and line.state in (PeerState.OFFLINE, PeerState.UNHEALTHY):
            line.poke()

    surface.came = came
    peering = Peering(
        trust=trust,
        desk=desk,
        surface=surface,
        finder=finder if discovery else None,
        link=link,
        settings=service.settings,
        tasks=tasks,
        name=lambda: service.info().name,
        changed=told,
        close=session.close,
    )
    ward = OwnWard(trust, peering, finder if discovery else None, service.settings, surface.called_at, clock.wall)
    doctor = Doctor(identity.node_id, session, ward, clock, tasks)
    peers = Peers(identity, trust, desk, peering, service.settings, doctor.report, told)
    service.view.peers = peers.infos
    service.view.pairing = peers.pairing
    return peering, peers
