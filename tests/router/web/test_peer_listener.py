"""The peer surface's sockets: handshakes, strangers, slow clients, ports, all over real TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from router.aio import Tasks
from router.errors import StartError
from router.peer_tls import client_context, server_context
from router.web.answers import json_answer
from router.web.peer_guard import PeerGuard
from router.web.peer_listener import PeerLimits, PeerListener
from tests.fakes import BOUND_S, free_port
from tests.router.peer_kit import Computer, computer, peer_of
from tests.router.web.peer_kit import LAPTOP, SECRET
from tests.router.web.web_kit import closed, read_answer

KNOWN = (
    f"GET /peer/v1/x HTTP/1.1\r\nHost: p\r\nAuthorization: Quorum {LAPTOP} {SECRET}\r\nX-Quorum-Protocol: 1\r\n\r\n"
).encode()
HELLO = b"GET /peer/v1/hello HTTP/1.1\r\nHost: p\r\n\r\n"


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Computer]:
    async with computer(tmp_path / "here") as made:
        await made.trust.add(peer_of(LAPTOP, SECRET))
        yield made


@asynccontextmanager
async def listening(
    here: Computer, addresses: tuple[str, ...] = ("127.0.0.1",), port: int = 0, **limits: float
) -> AsyncIterator[PeerListener]:
    app = web.Application()

    async def answer(request: web.Request) -> web.Response:
        return json_answer({"size": len(await request.read())})

    async def hang(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return json_answer({})

    app.router.add_route("*", "/peer/v1/x", answer)
    app.router.add_get("/peer/v1/hello", answer)
    app.router.add_get("/peer/v1/hang", hang)
    tasks = Tasks()
    guard = PeerGuard(here.trust, lambda: False)
    given = PeerLimits(**({"look_s": 0.02} | limits))  # type: ignore[arg-type]
    listener = PeerListener(app, guard, server_context(here.identity), tasks, given)
    await listener.open(addresses, port)
    try:
        yield listener
    finally:
        await listener.stop()
        await tasks.close()


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(listener: PeerListener, host: str = "127.0.0.1") -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection(host, listener.port, ssl=client_context())
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(streams: Streams, data: bytes) -> int:
    reader, writer = streams
    writer.write(data)
    async with asyncio.timeout(BOUND_S):
        return (await read_answer(reader)).status


async def gone(reader: asyncio.StreamReader) -> None:
    """The other side closes."""
    await closed(reader)


# -- handshakes


async def test_a_handshake_that_takes_too_long_is_closed(here: Computer) -> None:
    async with listening(here, handshake_s=0.1) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        await gone(reader)
        assert not listener.doors._strangers
        writer.close()


def test_the_shipped_bounds_are_those_of_the_trust_page() -> None:
    limits = PeerLimits()
    assert (limits.handshake_s, limits.head_s, limits.body_stall_s, limits.strangers) == (5.0, 10.0, 30.0, 64)


async def test_plain_http_and_garbage_end_at_the_handshake(here: Computer) -> None:
    async with listening(here) as listener:
        for data in (HELLO, b"\x00" * 100, b"\x16\x03\x01\xff\xff" + b"\xff" * 100):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(data)
            await gone(reader)
            writer.close()
        async with connected(listener) as streams:
            assert await ask(streams, HELLO) == 200


async def test_tls_1_2_is_refused(here: Computer) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with listening(here) as listener:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", listener.port, ssl=old)


# -- strangers


async def test_one_address_gets_no_more_than_64_connections_that_prove_nobody(here: Computer) -> None:
    async with listening(here) as listener, AsyncExitStack() as stack:
        for _ in range(64):
            _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            stack.callback(writer.close)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        stack.callback(writer.close)
        await gone(reader)
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await asyncio.open_connection("127.0.0.1", listener.port, ssl=client_context())


async def test_another_address_is_not_refused_for_it(here: Computer) -> None:
    async with listening(here, strangers=1) as listener, connected(listener):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", listener.port, local_addr=("127.0.0.2", 0), ssl=client_context()
        )
        assert await ask((reader, writer), HELLO) == 200
        writer.transport.abort()


async def test_connections_of_a_paired_computer_do_not_count(here: Computer) -> None:
    async with listening(here, strangers=2) as listener, AsyncExitStack() as stack:
        for _ in range(6):
            streams = await stack.enter_async_context(connected(listener))
            assert await ask(streams, KNOWN) == 200
        assert not listener.doors._strangers
        assert len(listener.doors.of_peer[LAPTOP]) == 6


async def test_a_stranger_that_leaves_makes_room(here: Computer) -> None:
    async with listening(here, strangers=1) as listener:
        for _ in range(3):
            async with connected(listener) as (reader, writer):
                assert await ask((reader, writer), HELLO) == 200
                writer.write(b"GET /none HTTP/1.1\r\nHost: p\r\n\r\n")  # refused, which closes
                await gone(reader)
            async with asyncio.timeout(BOUND_S):
                await listener.emptied()
        assert not listener.doors._strangers


async def test_a_flood_of_refused_connections_does_not_fill_the_log(
    here: Computer, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(here, strangers=1) as listener, connected(listener):
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            await gone(reader)
            writer.transport.abort()
    assert [line for line in caplog.messages if "refused a connection" in line] == [
        "refused a connection: 1 of one address prove nobody"
    ]


async def test_all_strangers_together_are_bounded(here: Computer) -> None:
    async with listening(here, strangers_in_all=1) as listener, connected(listener):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, local_addr=("127.0.0.2", 0))
        await gone(reader)
        writer.close()


async def test_a_cut_peer_is_forgotten_and_its_handler_cancelled(here: Computer) -> None:
    async with listening(here) as listener, connected(listener) as (reader, writer):
        writer.write(KNOWN.replace(b"/x ", b"/hang "))
        assert await ask_known(listener) == 200
        listener.doors.cut(LAPTOP)
        async with asyncio.timeout(1):
            await gone(reader)
            await listener.emptied()
        assert listener.doors.of_peer == {}
        assert not listener.doors._known


async def ask_known(listener: PeerListener) -> int:
    async with connected(listener) as streams:
        return await ask(streams, KNOWN)


# -- slow clients


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        (b"", {"head_s": 0.1}),
        (b"GET /peer/v1/hello HT", {"head_s": 0.1}),
        (
            KNOWN.replace(b"GET", b"POST")[:-2] + b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
            {"body_stall_s": 0.1},
        ),
    ],
    ids=["nothing", "part of a head", "part of a body"],
)
async def test_slow_clients_are_closed(here: Computer, data: bytes, limits: dict[str, float]) -> None:
    async with listening(here, **limits) as listener, connected(listener) as (reader, writer):
        writer.write(data)
        await gone(reader)


async def test_a_head_without_end_is_closed(here: Computer) -> None:
    async with listening(here) as listener, connected(listener) as (reader, writer):
        writer.write(b"GET /peer/v1/hello HTTP/1.1\r\nX: " + b"a" * 100_000)
        await gone(reader)


# -- ports and addresses


async def test_a_busy_port_means_the_next_that_is_free(here: Computer) -> None:
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        async with listening(here, port=port) as listener:
            assert port < listener.port <= port + 19
            async with connected(listener) as streams:
                assert await ask(streams, HELLO) == 200


async def test_all_addresses_have_one_port_and_those_not_here_are_left_out(here: Computer) -> None:
    async with listening(here, ("127.0.0.1", "203.0.113.7", "127.0.0.2")) as listener:
        assert listener.addresses == [("127.0.0.1", listener.port), ("127.0.0.2", listener.port)]
        async with connected(listener, "127.0.0.2") as streams:
            assert await ask(streams, HELLO) == 200


async def test_no_address_at_all_is_said_so(here: Computer) -> None:
    with pytest.raises(StartError, match="can't reach"):
        async with listening(here, ()):
            pass
    with pytest.raises(StartError, match="can't reach"):
        async with listening(here, ("203.0.113.7",)):
            pass


async def test_addresses_that_come_and_go_are_followed(here: Computer) -> None:
    async with listening(here, ("127.0.0.1",)) as listener:
        port = listener.port
        await listener.follow(["127.0.0.2", "203.0.113.7"])
        assert listener.addresses == [("127.0.0.2", port)]
        async with connected(listener, "127.0.0.2") as streams:
            assert await ask(streams, HELLO) == 200
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await asyncio.open_connection("127.0.0.1", port)


async def test_stopping_frees_the_port_and_ends_what_shakes_hands(here: Computer) -> None:
    port = free_port()
    for _ in range(2):
        async with listening(here, port=port) as listener:
            assert listener.port == port
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await ask_known(listener) == 200  # so the one before it was accepted, too
            assert listener._handshakes
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 1.0  # not the 5 s of a handshake
        await gone(reader)
        assert not listener._handshakes
        assert not listener.doors._strangers
        writer.close()
