"""What is announced in the network decides nothing: liars, floods, blocked multicast, several networks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from router.sightings import UNPAIRED_MAX
from tests.cluster.impostor import Impostor, announcement, malformed, nobody
from tests.cluster.kit import ask, pair
from tests.cluster.net import Computer, Net, needs_nft
from tests.fakes import happens, head, stream

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


async def test_who_announces_the_id_of_a_paired_computer_gets_no_byte_of_a_request(net: Net, tmp_path: Path) -> None:
    laptop, studio = await net.computer("laptop"), await net.computer("studio", "llama")
    liar = await net.computer("liar")
    studio.engine.play(head(), stream("studio"))
    await asyncio.gather(laptop.start(), studio.start())
    await pair(laptop, studio)
    await laptop.offers("llama", "studio")
    (seen,) = await laptop.look("peers")
    async with Impostor(liar, tmp_path / "liar-identity") as impostor:
        impostor.announce(seen["id"])
        answer = await ask(laptop)
        assert (answer.status, answer.text) == (200, "studio"), answer.got
        assert impostor.connections == 0, "a computer that is reached is not looked for"

        await studio.kill()
        await laptop.peer_is(studio, "unhealthy")
        impostor.announce(seen["id"])
        await happens(impostor.met, 20)
        await happens(impostor.left, 20)
        assert (await ask(laptop)).status >= 400
        assert impostor.got == b""
        await studio.start()
        await laptop.peer_is(studio, "healthy", 40)
        await laptop.offers("llama", "studio")
        answer = await ask(laptop)
        assert (answer.status, answer.text) == (200, "studio"), answer.got
        assert impostor.got == b""


async def test_a_flood_of_announcements_fills_nothing_and_leaves_paired_computers_alone(
    net: Net, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    laptop, studio = await net.computer("laptop"), await net.computer("studio", "llama")
    liar = await net.computer("liar")
    studio.engine.play(head(), stream("studio"))
    await asyncio.gather(laptop.start(QUORUM_SHARE="1"), studio.start(QUORUM_SHARE="1"))
    await pair(laptop, studio)
    await laptop.offers("llama", "studio")
    async with Impostor(liar, tmp_path / "liar-identity") as impostor:
        await _flood(impostor, laptop, 0)
        before = laptop.memory_bytes
        for wave in range(1, 5):
            await _flood(impostor, laptop, wave)
        grown = laptop.memory_bytes - before
        peers = await laptop.look("peers")
        record_property("grown_mib", round(grown / 2**20, 1))
        assert len(peers) <= UNPAIRED_MAX + 1
        assert [peer["state"] for peer in peers if peer["paired"]] == ["healthy"]
        assert grown < 24 * 2**20
        answer = await ask(laptop)
        assert (answer.status, answer.text) == (200, "studio"), answer.got
        assert impostor.connections == 0, "nobody dials who is only announced"
        assert laptop.log.count("\n") < 200


async def _flood(impostor: Impostor, laptop: Computer, wave: int) -> None:
    """Two thousand instances, some at addresses that nobody may dial, and packets that are none."""
    forbidden = (["127.0.0.1"], ["8.8.8.8"], ["224.0.0.1"], ["169.254.1.1"], ["10.99.0.1"], [laptop.address])
    for number in range(wave * 2000, wave * 2000 + 2000):
        addresses = [f"10.77.0.{50 + number % 200}"] if number % 3 else forbidden[number % len(forbidden)]
        for packet in announcement(nobody(number), addresses, host="" if number % 4 else "one-for-all"):
            impostor.say(packet)
        if not number % 50:
            await laptop.look("status")  # it still answers, and the packets are not lost in a full buffer
    for packet in malformed(500, wave):
        impostor.say(packet)
    await laptop.until(lambda seen: len(seen.get("peers", ())) == UNPAIRED_MAX + 1)
    assert not [peer for peer in await laptop.look("peers") if set(peer["addresses"]) & {a for (a,) in forbidden}]


async def test_where_multicast_is_blocked_an_address_pairs_and_everything_works(net: Net) -> None:
    needs_nft()
    laptop, studio = await net.computer("laptop"), await net.computer("studio", "llama")
    for one in (laptop, studio):
        one.filter("udp dport 5353 drop")
    studio.engine.play(head(), stream("studio"))
    await asyncio.gather(laptop.start(QUORUM_SHARE="1"), studio.start(QUORUM_SHARE="1"))
    await pair(laptop, studio)
    await laptop.offers("llama", "studio")
    answer = await ask(laptop)
    assert (answer.status, answer.text) == (200, "studio"), answer.got
    await studio.kill()
    await laptop.peer_is(studio, "unhealthy")
    await studio.start()
    await laptop.peer_is(studio, "healthy", 40)


async def test_of_a_computer_in_two_networks_the_cable_comes_before_the_vpn_which_takes_over(net: Net) -> None:
    laptop, studio = await net.computer("laptop"), await net.computer("studio", "llama")
    tunnel = net.another("tunnel")
    laptop.join(tunnel, "wg0", "10.66.0.1")
    studio.join(tunnel, "wg0", "10.66.0.2")
    studio.engine.play(head(), stream("studio"))
    await asyncio.gather(laptop.start(QUORUM_SHARE="1"), studio.start(QUORUM_SHARE="1"))
    seen = await laptop.peer_is(studio, "discovered")
    assert seen["addresses"] == [studio.address, "10.66.0.2"]
    await pair(laptop, studio)
    await laptop.offers("llama", "studio")
    assert (await laptop.peer_is(studio, "healthy"))["addresses"][0] == studio.address

    studio.cut()
    async with asyncio.timeout(40):
        while (answer := await ask(laptop)).status != 200:
            assert answer.text == ""
    assert answer.text == "studio"
    assert (await laptop.peer_is(studio, "healthy"))["paired"]
