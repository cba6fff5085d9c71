"""The peer surface as a whole: pairing through it, revoking, calling back, starting and stopping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from router.node import Node
from router.pairing import Answer, PairingAsk, PairingError, join
from router.peer_tls import client_session, pin_of, server_context, url_of
from router.trust import authorization, fingerprint_of
from router.web.peer import CALLBACKS
from tests.fakes import BOUND_S, HANG, ScriptedEngine, chunk, free_port, happens, head
from tests.router.conftest import MakeNode
from tests.router.peer_kit import computer, peer_of
from tests.router.web.peer_kit import DESKTOP, LAPTOP, OTHER_SECRET, SECRET, Site, Stream, asked, surface_of


@pytest.fixture
async def node(make_node: MakeNode, engine: ScriptedEngine) -> Node:
    return await make_node(engine, share=True, concurrency=4)


@pytest.fixture
async def site(node: Node) -> AsyncIterator[Site]:
    async with surface_of(node) as made:
        yield made


# -- pairing


async def test_a_computer_pairs_through_the_surface_and_is_known_on_it(site: Site, tmp_path: Path) -> None:
    async def accept(ask: PairingAsk) -> Answer:
        return Answer(accept=True, may_use=True)

    async with computer(tmp_path / "new", "new") as new, client_session() as session:
        code = site.desk.open(accept).code
        own = ("new", [], 7412)
        peer = await join("127.0.0.1", site.port, code, new.identity, new.trust, own, may_use=True)
        headers = {"Authorization": authorization(new.id, peer), "X-Quorum-Protocol": "1"}
        async with session.get(site.url("state"), headers=headers, ssl=pin_of(peer.certificate_sha256)) as answer:
            assert answer.status == 200
        with pytest.raises(PairingError, match="No pairing is open"):
            await join("127.0.0.1", site.port, code, new.identity, new.trust, own, may_use=True)


async def test_three_wrong_codes_close_the_routes(site: Site, tmp_path: Path) -> None:
    async def accept(ask: PairingAsk) -> Answer:
        raise AssertionError

    async with computer(tmp_path / "new", "new") as new:
        code = int(site.desk.open(accept).code)
        for wrong in range(1, 4):
            digits = f"{(code + wrong) % 10**6:06d}"
            with pytest.raises(PairingError, match="code is wrong"):
                await join("127.0.0.1", site.port, digits, new.identity, new.trust, ("n", [], 7412), may_use=True)
    assert (await site.status("pair/1", {}, headers={"X-Quorum-Protocol": "1"}))[0] == 403


# -- revoking


async def breaks(stream: Stream) -> None:
    """The connection is cut, with or without an error event before."""
    with suppress(EOFError, aiohttp.ClientError, ConnectionError):
        while True:
            await stream.next()


async def test_revoking_cuts_what_runs_within_100_ms_and_the_next_call_gets_401(
    site: Site, engine: ScriptedEngine
) -> None:
    engine.play(head(), chunk("a"), HANG)
    async with site.run() as answer, site.state() as states:
        await states.next()
        await answer.until("message")
        gone = (await engine.request()).gone
        began = time.monotonic()
        revoking = asyncio.ensure_future(site.trust.revoke(LAPTOP))
        await breaks(answer)
        await breaks(states)
        assert time.monotonic() - began < 0.1
        await happens(gone, 0.1)
        await revoking
    assert (await site.status("run", asked(2)))[0] == 401
    assert len(site.surface.runs) == 0


async def test_a_kept_connection_is_no_way_around_a_revocation(site: Site) -> None:
    async with site.raw() as (reader, writer):
        writer.write(site.head("GET", "x"))
        await reader.readuntil(b"\r\n\r\n")
        await site.trust.revoke(LAPTOP)
        async with asyncio.timeout(1):
            with suppress(ConnectionError):
                assert b"HTTP/1.1 2" not in await reader.read(-1)


async def test_revoking_one_leaves_the_others_alone(site: Site, engine: ScriptedEngine) -> None:
    await site.trust.add(peer_of(DESKTOP, OTHER_SECRET))
    engine.play(head(), chunk("a"), HANG)
    async with site.run(headers=site.known(DESKTOP, OTHER_SECRET)) as answer:
        await answer.until("message")
        await site.trust.revoke(LAPTOP)
        assert len(site.surface.runs) == 1
        assert not (await engine.request()).gone.is_set()


async def test_an_ignored_computer_is_refused_like_a_stranger(site: Site) -> None:
    await site.trust.ignore(LAPTOP, True)
    assert (await site.status("run", asked()))[0] == 401
    await site.trust.ignore(LAPTOP, False)
    assert (await site.status("x", method="GET"))[0] == 404


async def test_pairing_again_ends_the_older_secret(site: Site) -> None:
    await site.trust.add(peer_of(LAPTOP, OTHER_SECRET))
    assert (await site.status("x", method="GET"))[0] == 401
    assert (await site.status("x", method="GET", headers=site.known(LAPTOP, OTHER_SECRET)))[0] == 404
    assert SECRET != OTHER_SECRET


# -- the two-way check


async def test_a_caller_that_can_be_reached_is_told_so(site: Site, tmp_path: Path) -> None:
    async with computer(tmp_path / "other") as other:
        await site.trust.add(peer_of(other.id, OTHER_SECRET))
        server = await asyncio.start_server(
            lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=server_context(other.identity)
        )
        port = server.sockets[0].getsockname()[1]
        status, told = await site.status("callback", {"port": port}, headers=site.known(other.id, OTHER_SECRET))
        assert abs(told.pop("at") - time.time()) < BOUND_S
        assert (status, told) == (200, {"reached": True, "address": "127.0.0.1", "detail": ""})
        server.close()
        await server.wait_closed()


async def test_why_a_caller_can_not_be_reached_is_told(site: Site) -> None:
    _, told = await site.status("callback", {"port": free_port()})
    assert (told["reached"], told["detail"]) == (False, "refused")
    _, told = await site.status("callback", {"port": site.port})
    assert (told["reached"], told["detail"]) == (False, "certificate")


@pytest.mark.parametrize("said", [{}, {"port": 22}, {"port": "7412"}, {"port": True}, {"port": 70_000}])
async def test_a_call_back_goes_to_no_port_but_a_peers(site: Site, said: dict[str, object]) -> None:
    assert (await site.status("callback", said))[0] == 400


async def test_one_call_back_at_a_time(site: Site) -> None:
    site.surface._calling_back.add(LAPTOP)
    assert (await site.status("callback", {"port": 7412}))[0] == 429


async def test_call_backs_are_few_so_that_nobody_looks_for_open_ports_with_them(site: Site) -> None:
    answers = [(await site.status("callback", {"port": free_port()}))[0] for _ in range(CALLBACKS + 1)]
    assert answers == [200] * CALLBACKS + [429]


# -- starting and stopping


async def test_nothing_listens_before_it_is_started_and_after_it_is_stopped(site: Site) -> None:
    port = site.port
    await site.surface.stop()
    assert (site.surface.port, site.surface.addresses, site.surface.connections) == (0, [], 0)
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection("127.0.0.1", port)


async def test_it_can_be_started_again_at_the_same_port(site: Site) -> None:
    await site.surface.stop()
    site.port = await site.surface.start(["127.0.0.1"], site.port)
    assert (await site.status("hello", method="GET", headers={}))[0] == 200


async def test_starting_it_while_it_listens_brings_its_addresses_up_to_date(site: Site) -> None:
    assert await site.surface.start(["127.0.0.1", "127.0.0.2"], 1) == site.port
    assert [host for host, _ in site.surface.addresses] == ["127.0.0.1", "127.0.0.2"]
    async with (
        client_session() as session,
        session.get(url_of("127.0.0.2", site.port, "/peer/v1/hello"), ssl=pin_of(fingerprint_of(site.id))) as answer,
    ):
        assert answer.status == 200


async def test_stopping_ends_what_runs(site: Site, engine: ScriptedEngine) -> None:
    engine.play(head(), chunk("a"), HANG)
    async with site.run() as answer:
        await answer.until("message")
        began = time.monotonic()
        stopping = asyncio.ensure_future(site.surface.stop())
        last = (await answer.rest())[-1]
        assert (last.kind, last.json["code"]) == ("error", "no_holder_available")  # it may ask another holder at once
        await stopping
        assert time.monotonic() - began < 1.5
    await happens((await engine.request()).gone, 1.0)
