"""While sharing is off nothing is announced: read off the wire, on the cable of that computer."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.cluster.net import PEER_PORT, Computer, Net, inside
from tests.fakes import BOUND_S

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

MDNS = 5353
ALL_FRAMES = 3
HEADER = struct.Struct("!HHHHHH")


class Heard:
    """One mDNS packet that a computer sent: its flags, how many questions and records it has, and all its bytes."""

    def __init__(self, payload: bytes) -> None:
        _, self.flags, self.questions, *records = HEADER.unpack_from(payload)
        self.records = sum(records)
        self.bytes = payload

    @property
    def answers(self) -> bool:
        return bool(self.flags & 0x8000)


class Wire:
    """Everything that comes out of one computer's cable to port 5353, since ``clear``."""

    def __init__(self, cable: socket.socket) -> None:
        self._cable = cable
        self.heard: list[Heard] = []
        self._more = asyncio.Event()
        asyncio.get_running_loop().add_reader(cable, self._read)

    def _read(self) -> None:
        frame, (_, _, kind, *_) = self._cable.recvfrom(65_536)
        if kind == socket.PACKET_OUTGOING or frame[12:14] not in (b"\x08\x00", b"\x86\xdd"):
            return
        six = frame[12:14] == b"\x86\xdd"
        start = 54 if six else 14 + (frame[14] & 15) * 4
        if frame[20 if six else 23] != socket.IPPROTO_UDP:
            return
        source, target = struct.unpack_from("!HH", frame, start)
        if MDNS in (source, target):
            self.heard.append(Heard(frame[start + 8 :]))
            self._more.set()

    async def until(self, what: str, holds: object) -> Heard:
        """Wait for a packet of which ``holds`` is true."""
        assert callable(holds)
        try:
            async with asyncio.timeout(BOUND_S * 2):
                while not (found := [one for one in self.heard if holds(one)]):
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"never on the wire: {what}") from None
        return found[0]

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._cable)
        self._cable.close()


@asynccontextmanager
async def cable_of(net: Net, computer: Computer) -> AsyncIterator[Wire]:
    """A raw listener at the switch's end of the computer's cable."""

    def listen() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_FRAMES))
        made.bind((computer._link, 0))
        made.setblocking(False)
        return made

    wire = Wire(inside(net.switch, listen))
    try:
        yield wire
    finally:
        wire.close()


async def share(computer: Computer, on: bool) -> None:
    async with computer.http.patch("/local/v1/settings", json={"share": on}, headers=computer.control) as reply:
        assert reply.status == 200, await reply.text()


def answers_at(computer: Computer, asker: Computer) -> bool:
    def connect() -> bool:
        with socket.socket() as made:
            made.settimeout(5)
            return made.connect_ex((computer.address, PEER_PORT)) == 0

    return inside(asker.namespace, connect)


async def test_nothing_of_a_computer_that_does_not_share_is_on_the_wire(net: Net) -> None:
    laptop, studio = await net.computer("laptop"), await net.computer("studio")
    async with cable_of(net, laptop) as wire, cable_of(net, studio) as other:
        await laptop.start()
        await studio.start()
        await share(studio, True)
        # It has looked around and found the one that shares, who has asked everybody: all could have been said by now.
        await laptop.until(lambda seen: any(peer["name"] == "studio" for peer in seen.get("peers", ())))
        await other.until("a question of the one that shares", lambda one: not one.answers and one.questions)
        await wire.until("a question of the one that does not", lambda one: one.questions)
        own_id = (await laptop.look("status"))["node"]["id"]
        telling = [own_id[:12].encode(), b"laptop", socket.inet_aton(laptop.address)]
        for one in wire.heard:
            assert not one.answers
            assert not [word for word in telling if word in one.bytes]
        assert not answers_at(laptop, studio)
        assert await studio.look("peers") == []

        wire.heard.clear()
        await share(laptop, True)
        shown = await wire.until("that it shares", lambda one: one.answers and own_id[:12].encode() in one.bytes)
        assert shown.records > 0
        await studio.until(lambda seen: any(peer["name"] == "laptop" for peer in seen.get("peers", ())))
        assert answers_at(laptop, studio)

        await share(laptop, False)
        await studio.until(lambda seen: not any(peer["name"] == "laptop" for peer in seen.get("peers", ())))
        wire.heard.clear()
        await share(studio, False)
        await share(studio, True)  # announced anew, and everybody is asked anew
        await other.until("news of the one that shares", lambda one: one.answers)
        assert not [one for one in wire.heard if one.answers]
        assert not answers_at(laptop, studio)
