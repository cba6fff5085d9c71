"""Somebody in the same network who lies: answers with a certificate of its own, and announces what it likes."""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
import ssl
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from zeroconf import DNSOutgoing, ServiceInfo, const

from router.discovery import SERVICE
from router.identity import load_identity
from router.peer_tls import server_context
from router.trust import node_id_of
from tests.cluster.net import PEER_PORT, Computer, inside

GROUP = ("224.0.0.251", 5353)


class Impostor:
    """Lives on ``computer``, whose node does not run. ``got`` are the bytes that anybody sent it inside TLS."""

    def __init__(self, computer: Computer, folder: Path) -> None:
        folder.mkdir()
        self.got = bytearray()
        self.connections = 0
        self.met = asyncio.Event()
        self.left = asyncio.Event()
        self._computer = computer
        self._identity = load_identity(folder)
        self._server: asyncio.Server | None = None
        self._speaker: socket.socket | None = None

    async def __aenter__(self) -> Impostor:
        there = (self._computer.address, PEER_PORT)
        listening = inside(self._computer.namespace, lambda: socket.create_server(there))
        self._server = await asyncio.start_server(self._meet, sock=listening, ssl=server_context(self._identity))
        self._speaker = inside(self._computer.namespace, self._speaking)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        assert self._speaker is not None
        self._server.close()
        self._speaker.close()

    def _speaking(self) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((self._computer.address, 5353))
        made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(self._computer.address))
        return made

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.met.set()
        try:
            while data := await reader.read(65_536):
                self.got += data
        except (OSError, ssl.SSLError):
            pass
        self.left.set()
        writer.transport.abort()

    def say(self, packet: bytes) -> None:
        """One packet to everybody."""
        assert self._speaker is not None
        self._speaker.sendto(packet, GROUP)

    def announce(
        self, node_id: str, addresses: Iterable[str] = (), port: int = PEER_PORT, name: str = "studio"
    ) -> None:
        """Say that ``node_id`` is here, or at ``addresses``."""
        places = list(addresses) or [self._computer.address]
        for packet in announcement(node_id, places, name=name):
            self.say(packet)


def announcement(node_id: str, addresses: Iterable[str], name: str = "studio", host: str = "") -> list[bytes]:
    """The packets with all records of one instance, of a host of its own or one that many share."""
    info = ServiceInfo(
        SERVICE,
        f"{node_id}.{SERVICE}",
        port=PEER_PORT,
        addresses=[ipaddress.ip_address(address).packed for address in addresses],
        properties={"v": "1", "id": node_id, "name": name},
        server=f"q-{host or node_id}.local.",
    )
    out = DNSOutgoing(const._FLAGS_QR_RESPONSE | const._FLAGS_AA)
    for record in (info.dns_pointer(), info.dns_service(), info.dns_text(), *info.dns_addresses()):
        out.add_answer_at_time(record, 0)
    return out.packets()


def nobody(number: int, kind: int = 8) -> str:
    """The id of a node that does not exist."""
    return node_id_of(bytes([kind]) + number.to_bytes(31, "big"))


def malformed(count: int, seed: int = 7) -> list[bytes]:
    """Packets that are none: cut, bent, noise."""
    chance = random.Random(seed)  # noqa: S311 - the same packets in each run
    good = announcement(nobody(1, 6), ["10.77.0.9"])[0]
    packets = []
    for _ in range(count):
        packet = bytearray(good[: chance.randrange(1, len(good) + 1)])
        for _ in range(chance.randrange(8)):
            packet[chance.randrange(len(packet))] = chance.randrange(256)
        packets.append(bytes(packet) if chance.random() < 0.8 else chance.randbytes(chance.randrange(1, 1400)))
    return packets
