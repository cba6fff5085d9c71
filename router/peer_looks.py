"""How other computers and an open pairing look to the page and the commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from router.errors import BadRequestError
from router.pairing import PairingState
from router.states import PeerState
from router.trust import Peer
from router.wire_peers import PairingInfo, PeerInfo
from router.wire_snapshot import PeerSnapshot

USUAL_PORT: Final = 7412


class Seen(Protocol):
    """One sighting in the network; nothing in it is trusted."""

    @property
    def node_id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def addresses(self) -> tuple[str, ...]: ...
    @property
    def port(self) -> int: ...


class Link(Protocol):
    """The open line to one paired computer; it keeps the registry's engine of that computer true."""

    @property
    def state(self) -> PeerState: ...
    @property
    def reason(self) -> str: ...
    @property
    def snapshot(self) -> PeerSnapshot | None: ...
    @property
    def latencies_s(self) -> tuple[float, ...]: ...
    @property
    def left(self) -> bool: ...
    @property
    def heard_at(self) -> float | None: ...
    def dial(self, place: tuple[str, int]) -> None: ...
    async def up(self, within_s: float) -> bool: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def poke(self, *, anew: bool = False) -> None: ...
    def renew(self, peer: Peer) -> None: ...


def paired_info(peer: Peer, link: Link | None) -> PeerInfo:
    """A paired computer, with what its link knows."""
    told = (link.snapshot if link else None) or PeerSnapshot(node_id=peer.node_id, width=0)
    return PeerInfo(
        id=peer.node_id,
        name=peer.own_name or told.name or peer.name,
        state=link.state if link else PeerState.OFFLINE,
        reason=link.reason if link else "You ignore this computer." if peer.ignored else "",
        paired=True,
        ignored=peer.ignored,
        may_use=peer.may_use,
        may_manage=peer.may_manage,
        addresses=list(peer.addresses),
        port=peer.port,
        version=told.version,
        in_flight=told.in_flight,
        waiting=told.waiting,
        width=told.width,
        ram_total_bytes=told.ram_total_bytes,
        ram_free_bytes=told.ram_free_bytes,
        gpu=told.gpu,
        vram_total_bytes=told.vram_total_bytes,
        vram_free_bytes=told.vram_free_bytes,
        models=[model.name for model in told.models],
        loaded=[model.name for model in told.models if model.resident],
        latencies_s=list(link.latencies_s) if link else [],
        latency_s=link.latencies_s[-1] if link and link.latencies_s else None,
        heard_at=link.heard_at if link else None,
        shared=told.shared,
        granted=told.granted,
        own_name=peer.own_name,
        send=peer.send,
    )


def sighted_info(seen: Seen, ignored: bool, asks: bool) -> PeerInfo:
    """A computer that is not paired; ``asks`` while it wants to be."""
    return PeerInfo(
        id=seen.node_id,
        name=seen.name,
        state=PeerState.PENDING if asks else PeerState.DISCOVERED,
        ignored=ignored,
        addresses=list(seen.addresses),
        port=seen.port,
    )


def split_address(text: str) -> tuple[str, int]:
    """``host``, ``host:port``, ``[v6]:port`` or a bare IPv6 address. Raises BadRequestError."""
    host, port = text.strip(), str(USUAL_PORT)
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    if not _may_be_host(host):
        raise BadRequestError("That is no address of a computer.", "Write host, or host:port.", field="address")
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536):
        raise BadRequestError("That is no port.", "Write host:port with a number up to 65535.", field="address")
    return host, int(port)


def _may_be_host(host: str) -> bool:
    """Whether a resolver can be asked for ``host``; what its encoding refuses would be no OSError there."""
    if not host or len(host) > 253 or not host.isprintable() or any(letter in " /@?#" for letter in host):
        return False
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def pairing_info(state: PairingState, addresses: Sequence[str], port: int) -> PairingInfo:
    """A pairing that this computer offers at ``addresses`` and ``port``."""
    suffix = f":{port}" if port != USUAL_PORT else ""
    return PairingInfo(
        state=state.phase,
        code=state.code,
        until_at=state.until,
        addresses=[(f"[{one}]" if ":" in one and suffix else one) + suffix for one in addresses],
        peer_id=state.ask.node_id if state.ask else "",
        peer_name=state.ask.name if state.ask else "",
        detail=state.detail,
    )
