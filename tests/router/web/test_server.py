"""The listener: where it answers, what it refuses before any handler, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import re
import socket

import psutil
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import StartError
from router.settings import Settings
from router.web.connection import Limits
from router.web.guard import Guard
from router.web.server import Listener, raise_open_files
from tests.router.web.web_kit import (
    GOOD_KEY,
    TOKEN,
    MemorySessions,
    Served,
    closed,
    read_answer,
    serving,
)


def listener() -> Listener:
    return Listener(web.Application(), Guard(Settings(None, environ={}), TOKEN, MemorySessions()))


# Where it answers


async def test_one_port_answers_on_both_loopbacks() -> None:
    async with serving() as served:
        assert served.listener.addresses == [("127.0.0.1", served.port), ("::1", served.port)]
        for address in ("127.0.0.1", "::1"):
            assert (await served.ask(served.get(), address)).status == 200


async def test_a_busy_port_is_named_with_its_program_and_the_fix() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StartError) as caught:
            await listener().start(port)
    assert f"Port {port} is taken by" in caught.value.message
    assert psutil.Process().name() in caught.value.message
    assert "--port N" in caught.value.hint
    assert "QUORUM_PORT" in caught.value.hint


async def test_a_port_that_is_busy_on_ipv6_alone_is_busy() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]
        with pytest.raises(StartError, match=f"Port {port} is taken"):
            await listener().start(port)
    with socket.create_server(("127.0.0.1", port)):
        pass  # nothing of it stayed open


async def test_a_further_address_that_is_busy_is_told_and_does_not_stop_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        async with serving(also=(("127.0.0.1", port),)) as served:
            assert (await served.ask(served.get())).status == 200
            assert len(served.listener.refused) == 1
            assert str(port) in served.listener.refused[0]


async def test_an_address_can_be_added_and_given_up() -> None:
    async with serving() as served:
        await served.listener.add("127.0.0.1", 0)
        port = served.listener.addresses[-1][1]
        line = b"Host: localhost:%d\r\n" % port
        async with served.connection(port=port) as (reader, writer):
            writer.write(served.get(host=line))
            assert (await read_answer(reader)).status == 200
        await served.listener.remove("127.0.0.1", port)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        assert (await served.ask(served.get(host=line))).status == 403


def own_address() -> str:
    found = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]
    if not found:
        pytest.skip("this computer has no address but loopback")
    return found[0]


async def test_an_address_of_the_network_wants_a_key_and_has_no_control_surface() -> None:
    address = own_address()
    async with serving(keys=True, also=(("0.0.0.0", 0),)) as served:
        port = served.listener.addresses[-1][1]

        async def ask(data: bytes) -> int:
            async with served.connection(address, port) as (reader, writer):
                writer.write(data)
                return (await read_answer(reader)).status

        line = f"Host: {address}:{port}\r\n".encode()
        key = f"Authorization: {GOOD_KEY}\r\n".encode()
        control = b"Authorization: Bearer " + TOKEN.encode() + b"\r\n"
        assert await ask(served.get(host=line)) == 401
        assert await ask(served.get(b"/metrics", host=line)) == 401
        assert await ask(served.get(b"/v1/models", control, host=line)) == 401
        assert await ask(served.get(b"/v1/models", key, host=line)) == 200
        assert await ask(served.get(b"/healthz", host=line)) == 200
        assert await ask(served.get(b"/local/v1/status", control, host=line)) == 403
        assert await ask(served.get(b"/", host=line)) == 403
        assert await ask(served.get(b"/v1/models", key, host=b"Host: evil.example:%d\r\n" % port)) == 403
        assert await ask(served.get(b"/v1/models", key, host=f"Host: 0.0.0.0:{port}\r\n".encode())) == 403


def test_the_bound_on_open_files_is_raised_for_the_connections_and_never_lowered() -> None:
    resource = pytest.importorskip("resource", reason="this system has no such bound")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 600:
        pytest.skip("this system allows too few open files")
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, before[1]))
        assert raise_open_files(100) == 456
        assert raise_open_files(10) == 456
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# What never reaches a handler

BAD_REQUEST = re.compile(rb"HTTP/\d\.\d 400 ")

SMUGGLED = {
    "content-length and transfer-encoding": b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding and content-length": b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "two content-lengths": b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "two equal content-lengths": b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a list of content-lengths": b"Content-Length: 2, 2\r\n\r\n{}",
    "a signed content-length": b"Content-Length: +2\r\n\r\n{}",
    "a negative content-length": b"Content-Length: -2\r\n\r\n{}",
    "a hexadecimal content-length": b"Content-Length: 0x2\r\n\r\n{}",
    "an immense content-length": b"Content-Length: 99999999999999999999999\r\n\r\n{}",
    "gzip before chunked": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked before identity": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "identity": b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a misspelt chunked": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a blank before the colon": b"Content-Length : 2\r\n\r\n{}",
    "a folded header": b"X-A: b\r\n c\r\nContent-Length: 2\r\n\r\n{}",
    "a folded header with a tab": b"X-A: b\r\n\tc\r\nContent-Length: 2\r\n\r\n{}",
    "a NUL in a header": b"X-A: b\x00c\r\nContent-Length: 2\r\n\r\n{}",
    "a NUL in a header's name": b"X\x00A: b\r\nContent-Length: 2\r\n\r\n{}",
    "a bare CR in a header": b"X-A: b\rc\r\nContent-Length: 2\r\n\r\n{}",
    "a bare LF after a header": b"X-A: b\nContent-Length: 2\r\n\r\n{}",
    "a bare LF at the end of the head": b"Content-Length: 2\r\n\n{}",
    "two hosts": b"Host: localhost\r\nContent-Length: 2\r\n\r\n{}",
    "a header without a name": b": x\r\nContent-Length: 2\r\n\r\n{}",
    "a header without a colon": b"nonsense\r\nContent-Length: 2\r\n\r\n{}",
    "a chunk size that is no number": b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a header of 9 KB": b"X-A: " + b"a" * 9000 + b"\r\nContent-Length: 2\r\n\r\n{}",
    "200 headers": b"".join(b"X-%d: a\r\n" % n for n in range(200)) + b"Content-Length: 2\r\n\r\n{}",
    "a websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("rest", SMUGGLED.values(), ids=SMUGGLED.keys())
async def test_ambiguous_requests_are_refused(rest: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as served:
        head = b"POST /v1/chat/completions HTTP/1.1\r\n" + served.host + b"Content-Type: application/json\r\n"
        async with served.connection() as (reader, writer):
            writer.write(head + rest + served.get(b"/v1/models/smuggled"))
            everything = await closed(reader)
        assert BAD_REQUEST.match(everything)
        assert everything.count(b"HTTP/") == 1
        assert served.bodies == []
        assert "/v1/models/smuggled" not in served.seen
    assert "smuggled" not in caplog.text


@pytest.mark.parametrize(
    "line",
    [
        b"GET /v1/models HTTP/2.0\r\n",
        b"GET /v1/models HTTP/1.1 \r\n",
        b"GET /v1/models\r\n",
        b"GE\x00T /v1/models HTTP/1.1\r\n",
        b"G\xe9T /v1/models HTTP/1.1\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
        b"CONNECT evil:443 HTTP/1.1\r\n",
        b"GET /v1/models HTTP/1.1\n",
    ],
)
async def test_a_malformed_request_line_is_refused(line: bytes) -> None:
    async with serving() as served:
        async with served.connection() as (reader, writer):
            writer.write(line + served.host + b"\r\n")
            everything = await closed(reader)
        assert BAD_REQUEST.match(everything)
        assert served.seen == []


@settings(max_examples=60, deadline=None)
@given(st.data())
async def test_no_mutation_of_a_request_is_an_inner_fault_or_runs_twice(data: st.DataObject) -> None:
    async with serving(Limits(head_s=0.05, body_stall_s=0.05, idle_s=0.05, look_s=0.01)) as served:
        chunked = b"Transfer-Encoding: chunked\r\n" if data.draw(st.booleans()) else b""
        whole = bytearray(served.post(b'{"a":1}', b"Connection: close\r\nX-A: b\r\n" + chunked))
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(whole) - 1))
            piece = data.draw(st.sampled_from([b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\x00", b"\xff", b"0", b""]))
            whole[at : at + data.draw(st.integers(0, 3))] = piece
        async with served.connection() as (reader, writer):
            writer.write(bytes(whole))
            everything = await closed(reader)
        assert not re.search(rb"HTTP/1\.\d 5", everything)
        assert len(served.bodies) <= 1


async def test_http_1_0_is_served_unless_it_has_chunks() -> None:
    async with serving() as served:
        async with served.connection() as (reader, writer):
            writer.write(b"GET /v1/models HTTP/1.0\r\n" + served.host + b"\r\n")
            assert (await closed(reader)).startswith(b"HTTP/1.0 200 ")
        head = b"POST /v1/chat/completions HTTP/1.0\r\n" + served.host + b"Content-Type: application/json\r\n"
        async with served.connection() as (reader, writer):
            writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
            assert BAD_REQUEST.match(await closed(reader))
        assert served.bodies == []


async def test_bytes_of_malformed_requests_are_in_no_log_and_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving() as served, served.connection() as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nX-Secret: canary-1\x00canary-2\r\n" + served.host + b"\r\n")
        everything = await closed(reader)
    assert BAD_REQUEST.match(everything)
    assert b"canary" not in everything
    assert "canary" not in caplog.text


async def test_an_endless_head_is_cut_by_its_size() -> None:
    async with serving(Limits(head_bytes=20_000)) as served, served.connection() as (reader, writer):
        writer.write(b"GET /v1/models HTTP/1.1\r\n" + served.host)
        for number in range(40):
            writer.write(b"X-%d: %b\r\n" % (number, b"a" * 1000))
            await writer.drain()
        assert await closed(reader) == b""
        assert served.seen == []


async def test_a_keep_alive_connection_answers_many_requests() -> None:
    async with serving() as served, served.connection() as (reader, writer):
        for _ in range(3):
            writer.write(served.post(b'{"a":1}'))
            assert (await read_answer(reader)).status == 200
        writer.write(served.get() + served.get())
        assert [(await read_answer(reader)).status for _ in range(2)] == [200, 200]


async def test_a_chunked_body_is_taken() -> None:
    async with serving() as served, served.connection() as (reader, writer):
        head = b"POST /v1/chat/completions HTTP/1.1\r\n" + served.host + b"Content-Type: application/json\r\n"
        writer.write(head + b'Transfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\n3\r\n:1}\r\n0\r\n\r\n')
        assert (await read_answer(reader)).status == 200
        assert served.bodies == [b'{"a":1}']


# Errors of handlers


async def test_a_failing_handler_answers_internal_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    app = web.Application()

    async def fails(request: web.Request) -> web.Response:
        raise ValueError("canary of a prompt")

    async def fails_late(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        raise ValueError("canary of a prompt")

    app.router.add_get("/v1/models", fails)
    app.router.add_get("/v1/late", fails_late)
    async with serving(app=app) as served:
        answer = await served.ask(served.get())
        assert answer.status == 500
        assert b'"internal"' in answer.body
        async with served.connection() as (reader, writer):
            writer.write(served.get(b"/v1/late"))
            everything = await closed(reader)
        assert b"data: 1" in everything
        assert not everything.endswith(b"0\r\n\r\n")
    assert "ValueError" in caplog.text
    assert "canary" not in answer.body.decode() + caplog.text


async def test_a_client_that_leaves_cancels_its_handler() -> None:
    app = web.Application()
    began, left = asyncio.Event(), asyncio.Event()

    async def waits(request: web.Request) -> web.Response:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        raise AssertionError

    app.router.add_get("/v1/models", waits)
    async with serving(app=app) as served:
        async with served.connection() as (_, writer):
            writer.write(served.get())
            async with asyncio.timeout(5):
                await began.wait()
        async with asyncio.timeout(1):
            await left.wait()


# Its end


async def test_stopping_lets_a_short_answer_end_and_cuts_an_endless_one() -> None:
    app = web.Application()
    go = asyncio.Event()
    began = asyncio.Event()

    async def short(request: web.Request) -> web.Response:
        began.set()
        await go.wait()
        return web.Response(text="whole")

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await asyncio.Event().wait()
        return response

    app.router.add_get("/v1/models", short)
    app.router.add_get("/v1/events", endless)
    async with serving(Limits(stop_s=0.3), app=app) as served:
        async with served.connection() as (one, to_one), served.connection() as (two, to_two):
            to_one.write(served.get())
            to_two.write(served.get(b"/v1/events"))
            async with asyncio.timeout(5):
                await began.wait()
                await two.readuntil(b"first")
            stopping = asyncio.ensure_future(served.listener.stop())
            go.set()
            assert (await read_answer(one)).body == b"whole"
            await closed(two)
            async with asyncio.timeout(2):
                await stopping
        assert served.listener.connections == 0


async def test_a_stopped_listener_frees_its_port() -> None:
    async with serving() as served:
        port = served.port
    again = listener()
    await again.start(port)
    await again.stop()


async def test_thousands_of_requests_leave_no_connection_behind() -> None:
    async with serving() as served:

        async def client(served: Served) -> None:
            async with served.connection() as (reader, writer):
                for _ in range(50):
                    writer.write(served.post(b'{"a":1}'))
                    assert (await read_answer(reader)).status == 200

        await asyncio.gather(*(client(served) for _ in range(16)))
        async with asyncio.timeout(5):
            await served.listener.emptied()
        assert served.listener.connections == 0


async def test_an_address_whose_start_was_cancelled_is_closed_with_the_others() -> None:
    async with serving() as served:
        adding = asyncio.ensure_future(served.listener.add("127.0.0.2", 0))
        await asyncio.sleep(0)
        adding.cancel()
        await asyncio.gather(adding, return_exceptions=True)
        [(_, port)] = [place for place in served.listener.addresses if place[0] == "127.0.0.2"]
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.2", port)
