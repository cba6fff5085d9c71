"""The doctor's questions over real sockets: who answers where, and what is said to whom."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from router.doctor_judge import Said, Way
from router.doctor_probe import knock, question, way_to
from router.identity import load_identity
from router.peer_client import PeerClient
from router.peer_tls import client_session, server_context
from router.sightings import Network
from router.trust import node_id_of
from router.wire_snapshot import PROTOCOL
from tests.fakes import free_port
from tests.fakes_peer import ScriptedPeer, Talk, frozen


@pytest.fixture
async def studio(tmp_path: Path) -> AsyncIterator[ScriptedPeer]:
    async with ScriptedPeer(tmp_path / "studio") as made:
        yield made


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with client_session() as made:
        yield made


def answers(status: int, told: object) -> object:
    async def say(talk: Talk) -> None:
        body = json.dumps(told).encode()
        await talk.raw(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
        talk.keep = True

    return say


def hello(studio: ScriptedPeer, **more: object) -> None:
    told = {"node_id": studio.node_id, "protocol": PROTOCOL, "version": "1.2"} | more
    studio.scripts["/peer/v1/hello"] = answers(200, told)  # type: ignore[assignment]


async def test_the_paired_computer_is_known_by_its_certificate(studio: ScriptedPeer) -> None:
    met = await knock(("127.0.0.1", studio.port), studio.peer.certificate_sha256, Way.VPN)
    assert (met.said, met.way, met.port) == (Said.PAIRED, Way.VPN, studio.port)
    assert studio.asked == []


async def test_another_certificate_is_told_with_whose_it_is(studio: ScriptedPeer) -> None:
    met = await knock(("127.0.0.1", studio.port), bytes(32))
    assert (met.said, met.shown) == (Said.OTHER, node_id_of(studio.peer.certificate_sha256))


async def test_a_port_at_which_nobody_listens_refuses() -> None:
    assert (await knock(("127.0.0.1", free_port()), bytes(32))).said is Said.REFUSED


async def test_a_program_that_does_not_answer_is_frozen() -> None:
    async with frozen() as port:
        assert (await knock(("127.0.0.1", port), bytes(32))).said is Said.FROZEN


async def test_a_program_without_tls_is_another_one() -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(rude, "127.0.0.1", 0)
    met = await knock(("127.0.0.1", server.sockets[0].getsockname()[1]), bytes(32))
    server.close()
    await server.wait_closed()
    assert met.said is Said.GARBLED


async def test_an_older_tls_is_another_program(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    context = server_context(load_identity(tmp_path / "old"))
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    met = await knock(("127.0.0.1", server.sockets[0].getsockname()[1]), bytes(32))
    server.close()
    await server.wait_closed()
    assert met.said is Said.GARBLED


async def test_a_network_that_is_not_there_is_no_route() -> None:
    assert (await knock(("100::1", 7412), bytes(32))).said in (Said.NO_ROUTE, Said.UNREACHABLE, Said.SILENT)


async def test_the_two_ways_and_the_clock_are_asked_for(studio: ScriptedPeer, session: aiohttp.ClientSession) -> None:
    hello(studio)
    told = {"reached": False, "address": "10.0.0.1", "detail": "timeout", "at": 1300.0}
    studio.scripts["/peer/v1/callback"] = answers(200, told)  # type: ignore[assignment]
    now = iter([1000.0, 1002.0])
    client = PeerClient(session, "own", studio.peer)
    words = await question(client, ("127.0.0.1", studio.port), 7412, lambda: next(now))

    assert (words.protocol, words.version, words.status) == (PROTOCOL, "1.2", 200)
    assert (words.missed, words.back_to, words.ahead_s) == ("timeout", "10.0.0.1", 298.0)
    assert studio.asked[-1].json == {"port": 7412}


@pytest.mark.parametrize(("status", "told"), [(401, {"error": {}}), (429, {}), (200, ["?"]), (200, {})])
async def test_a_refusal_is_told_by_its_status(
    studio: ScriptedPeer, session: aiohttp.ClientSession, status: int, told: object
) -> None:
    hello(studio)
    studio.scripts["/peer/v1/callback"] = answers(status, told)  # type: ignore[assignment]
    client = PeerClient(session, "own", studio.peer)
    words = await question(client, ("127.0.0.1", studio.port), 7412, lambda: 1.0)
    assert (words.status, words.missed or "", words.ahead_s) == (status, "", None)


@pytest.mark.parametrize("at", [10**400, -1, 1e308, True, "1", None])
async def test_a_time_that_can_not_be_is_none(studio: ScriptedPeer, session: aiohttp.ClientSession, at: object) -> None:
    hello(studio)
    told = {"reached": False, "address": ["?"], "detail": "?" * 1000, "at": at}
    studio.scripts["/peer/v1/callback"] = answers(200, told)  # type: ignore[assignment]
    client = PeerClient(session, "own", studio.peer)
    words = await question(client, ("127.0.0.1", studio.port), 7412, lambda: 1.0)
    assert (words.status, words.missed, words.back_to, words.ahead_s) == (200, "timeout", "", None)


@pytest.mark.parametrize("protocol", ["1", None, True, 0.5])
async def test_what_is_no_greeting_is_none(
    studio: ScriptedPeer, session: aiohttp.ClientSession, protocol: object
) -> None:
    hello(studio, protocol=protocol)
    client = PeerClient(session, "own", studio.peer)
    words = await question(client, ("127.0.0.1", studio.port), 7412, lambda: 1.0)
    assert words.protocol == 0
    assert [asked.path for asked in studio.asked] == ["/peer/v1/hello"]


async def test_no_secret_is_sent_to_another_certificate(studio: ScriptedPeer, session: aiohttp.ClientSession) -> None:
    hello(studio)
    other = aiohttp.Fingerprint(bytes(32))
    client = PeerClient(session, "own", studio.peer)
    client._pin = other
    words = await question(client, ("127.0.0.1", studio.port), 7412, lambda: 1.0)
    assert words.protocol == 0
    assert studio.asked == []


def test_the_way_to_an_address_is_that_of_the_network_it_lies_in() -> None:
    lan = Network(ipaddress.ip_interface("10.0.0.1/24"))
    vpn = Network(ipaddress.ip_interface("100.64.0.1/10"), vpn=True)
    wide = Network(ipaddress.ip_interface("10.0.0.9/8"), vpn=True)
    assert way_to("10.0.0.2", [lan, vpn]) is Way.LAN
    assert way_to("10.0.0.2", [lan, wide]) is Way.LAN
    assert way_to("100.64.1.1", [lan, vpn]) is Way.VPN
    assert way_to("192.168.7.7", [lan, vpn]) is Way.ROUTED
    assert way_to("studio.local", [lan, vpn]) is Way.ROUTED
