"""The doctor's questions to one paired computer: who answers where, and whether it reaches this one too.

No secret leaves before the certificate has been compared, and every question has its time.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from router.doctor_judge import Knock, Said, Way, Words
from router.peer_client import PeerClient, PeerFault, Place
from router.peer_tls import certificate_at
from router.sightings import Network
from router.trust import node_id_of
from router.wire_snapshot import PROTOCOL, one_line

CONNECT_S: Final = 2.0
TLS_S: Final = 2.0
ANSWER_S: Final = 3.0
BACK_S: Final = 5.0
VERSION_MAX: Final = 63
LATEST_AT: Final = 253_402_300_799  # the year 9999

_NO_ROUTE: Final = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.EAFNOSUPPORT})


async def knock(place: Place, certificate_sha256: bytes, way: Way = Way.LAN) -> Knock:
    """Connect to one place and see whose certificate it shows. Nothing is said there but TLS; at most 4 s."""
    address, port = place
    met = Knock(address, port, Said.SILENT, way)
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        return met
    except ConnectionRefusedError:
        return replace(met, said=Said.REFUSED)
    except OSError as error:
        return replace(met, said=Said.NO_ROUTE if error.errno in _NO_ROUTE else Said.UNREACHABLE)
    writer.transport.abort()  # what follows is a connection of its own: a half-made one can't be awaited to its end
    with suppress(OSError):
        await writer.wait_closed()
    try:
        shown = await certificate_at(address, port, timeout_s=TLS_S)
    except TimeoutError:
        return replace(met, said=Said.FROZEN)
    except OSError:
        return replace(met, said=Said.GARBLED)
    if shown == certificate_sha256:
        return replace(met, said=Said.PAIRED)
    return replace(met, said=Said.OTHER, shown=node_id_of(shown))


async def question(client: PeerClient, place: Place, own_port: int, wall: Callable[[], float]) -> Words:
    """Ask the computer at ``place`` which protocol it speaks, then to call this one back at ``own_port``."""
    words = await _greet(client, place)
    if not words.protocol or not 1024 <= own_port < 65_536:
        return words
    began = wall()
    try:
        status, told = await client.ask(
            "POST", "/peer/v1/callback", body={"port": own_port}, place=place, timeout_s=BACK_S
        )
    except PeerFault:
        return words
    ended = wall()
    if status != 200 or not isinstance(told, dict):
        return replace(words, status=status)
    missed = told.get("detail") if told.get("reached") is False else ""
    at, address = told.get("at"), told.get("address")
    return replace(
        words,
        status=status,
        missed=missed if missed in ("", "timeout", "refused", "certificate") else "timeout",
        back_to=one_line(address, VERSION_MAX) if isinstance(address, str) else "",
        ahead_s=_ahead(at, began, ended),
    )


async def _greet(client: PeerClient, place: Place) -> Words:
    try:
        status, told = await client.ask("GET", "/peer/v1/hello", place=place, timeout_s=ANSWER_S)
    except PeerFault:
        return Words()
    if status != 200 or not isinstance(told, dict) or type(told.get("protocol")) is not int:
        return Words()
    version = told.get("version")
    spoken = max(1, min(told["protocol"], 2**31))
    if spoken == PROTOCOL - 1:
        client.speak(spoken)
    return Words(protocol=spoken, version=one_line(version, VERSION_MAX) if isinstance(version, str) else "")


def _ahead(theirs: object, began: float, ended: float) -> float | None:
    """How far another clock is ahead, with what the call took as doubt: no difference within it. None: no time."""
    if isinstance(theirs, bool) or not isinstance(theirs, int | float) or not 0 <= theirs <= LATEST_AT:
        return None
    if began <= theirs <= ended:
        return 0.0
    return theirs - (ended if theirs > ended else began)


def way_to(address: str, networks: Sequence[Network]) -> Way:
    """Through which network of this computer an address is reached."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return Way.ROUTED  # a name: whoever knows it knows where it leads
    ways = {network.vpn for network in networks if found in network.address.network}
    if not ways:
        return Way.ROUTED
    return Way.VPN if ways == {True} else Way.LAN
