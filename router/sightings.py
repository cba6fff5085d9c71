"""What is believed of an announcement in the network: next to nothing, and only so much of it. Pure.

A sighting says where a node id may be looked for. Its certificate decides there, before one byte of a request is sent.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Final

import psutil

from router.trust import fingerprint_of
from router.wire_snapshot import NODE_NAME_MAX, one_line

UNPAIRED_MAX: Final = 256
FORGET_S: Final = 300.0
KEYS_MAX: Final = 16
VALUE_MAX_BYTES: Final = 128
ADDRESSES_MAX: Final = 16
PORT_MIN: Final = 1024

_VPN: Final = ("tun", "tap", "wg", "utun", "ppp", "zt", "tailscale", "ipsec", "nordlynx", "vpn")


@dataclass(frozen=True, slots=True)
class Network:
    """One address of this computer with the subnet it lies in. ``scope`` are the names an address in it may carry."""

    address: IPv4Interface | IPv6Interface
    vpn: bool = False
    scope: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Sighting:
    """One announcement as far as it is believed. ``addresses`` has those of the LAN before those of a VPN."""

    node_id: str
    name: str
    addresses: tuple[str, ...]
    port: int
    version: str = ""


def own_networks() -> tuple[Network, ...]:
    """The subnets this computer is in, loopback left out. Blocks for about a millisecond."""
    found = []
    for name, entries in psutil.net_if_addrs().items():
        vpn = name.lower().startswith(_VPN)
        scope = frozenset({name, str(_index(name))})
        for entry in entries:
            if entry.family not in (socket.AF_INET, socket.AF_INET6) or not entry.netmask:
                continue
            address = entry.address.partition("%")[0]
            try:
                bits = ipaddress.ip_address(entry.netmask)
                length = bin(int(bits)).count("1")
                network = Network(ipaddress.ip_interface(f"{address}/{length}"), vpn, scope)
            except ValueError:
                continue
            if not network.address.ip.is_loopback:
                found.append(network)
    return tuple(found)


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def lan_first(addresses: Iterable[str], networks: Sequence[Network]) -> list[str]:
    """``addresses`` of this computer with those of VPNs last."""
    vpn = {str(network.address.ip) for network in networks if network.vpn}
    return sorted(addresses, key=lambda address: address.partition("%")[0] in vpn)


def in_vpn(host: str, networks: Sequence[Network]) -> bool:
    """Whether ``host`` is an address that only a VPN leads to, as far as is known."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    found = [network.vpn for network in networks if address in network.address.network]
    return bool(found) and all(found)


def read(
    label: str,
    addresses: Iterable[str],
    port: int | None,
    txt: Mapping[bytes, bytes | None],
    networks: Sequence[Network],
    own_id: str,
) -> Sighting | None:
    """An announcement of the instance ``label`` as a sighting; None for one that breaks a rule, or is our own."""
    node_id = label.lower()
    try:
        fingerprint_of(node_id)
        told = _texts(txt)
    except ValueError:
        return None
    if node_id == own_id or told.get("id", node_id).lower() != node_id:
        return None
    if port is None or not PORT_MIN <= port <= 65_535:
        return None
    places = _places(addresses, networks)
    if not places:
        return None
    name = one_line(told.get("name", ""), NODE_NAME_MAX) or node_id[:12]
    return Sighting(node_id, name, places, port, one_line(told.get("v", ""), 16))


def _texts(txt: Mapping[bytes, bytes | None]) -> dict[str, str]:
    """The TXT record as text. Raises ValueError when it is larger than allowed or not UTF-8."""
    if len(txt) > KEYS_MAX:
        raise ValueError("too many keys")
    texts = {}
    for key, value in txt.items():
        if len(key) > VALUE_MAX_BYTES or len(value or b"") > VALUE_MAX_BYTES:
            raise ValueError("too long")
        texts[key.decode().lower()] = (value or b"").decode()
    return texts


def _places(addresses: Iterable[str], networks: Sequence[Network]) -> tuple[str, ...]:
    """The addresses that lie in a subnet of this computer and are not its own, LAN before VPN, IPv4 first in each."""
    ranked = []
    for text in list(addresses)[:64]:
        bare, _, scope = text.partition("%")
        try:
            address = ipaddress.ip_address(bare)
        except ValueError:
            continue
        network = _network_of(address, scope, networks)
        if network is not None:
            ranked.append((network.vpn, address.version, text if address.is_link_local else str(address)))
    return tuple(dict.fromkeys(text for _, _, text in sorted(ranked, key=lambda rank: rank[:2])))[:ADDRESSES_MAX]


def _network_of(address: IPv4Address | IPv6Address, scope: str, networks: Sequence[Network]) -> Network | None:
    """The subnet in which another computer may have ``address``; None when it may be dialled nowhere."""
    if address.is_loopback or address.is_multicast or address.is_unspecified or address.is_global:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return None
    if any(address == network.address.ip for network in networks):
        return None
    if address.is_link_local:
        if address.version == 4 or not scope:
            return None
        networks = [network for network in networks if scope in network.scope]
    for network in networks:
        edge = network.address.network
        if address in edge and (address.version == 6 or edge.prefixlen > 30 or address not in _edges(edge)):
            return network
    return None


def _edges(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> tuple[object, object]:
    """The subnet's own address and its broadcast address, at which no computer is."""
    return network.network_address, network.broadcast_address


class Sightings:
    """Who was seen when. Unpaired ones are bounded: the one seen longest ago leaves. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, Sighting]] = {}

    def put(self, sighting: Sighting, now: float, paired: frozenset[str]) -> bool:
        """It was seen; whether that is news."""
        before = self._seen.pop(sighting.node_id, None)
        self._seen[sighting.node_id] = (now, sighting)  # the last of the dict is the one seen last
        unpaired = [node_id for node_id in self._seen if node_id not in paired]
        for node_id in unpaired[: max(0, len(unpaired) - UNPAIRED_MAX)]:
            del self._seen[node_id]
        return before is None or before[1] != sighting

    def drop(self, node_id: str) -> bool:
        """It said goodbye; whether it was known."""
        return self._seen.pop(node_id, None) is not None

    def forget(self, now: float) -> bool:
        """Drop those not seen for five minutes; whether there were any."""
        old = [node_id for node_id, (at, _) in self._seen.items() if now - at >= FORGET_S]
        for node_id in old:
            del self._seen[node_id]
        return bool(old)

    def get(self, node_id: str) -> Sighting | None:
        """Where one may be."""
        found = self._seen.get(node_id)
        return found[1] if found else None

    def all(self) -> tuple[Sighting, ...]:
        """All, by name."""
        return tuple(
            sorted((sighting for _, sighting in self._seen.values()), key=lambda s: (s.name.lower(), s.node_id))
        )
