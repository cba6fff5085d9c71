"""The seam to engines: what they may do wrong is a fault, and leaving early is seen at the other end at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from yarl import URL

from router.engines.http1 import Http1Transport
from router.engines.transport import HttpTransport, Transport
from router.errors import EngineFault
from tests.router.engines.fakes import serving, talking


@pytest.fixture(params=["general", "plain"])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    """Both ways to an engine make the same promises."""
    general = HttpTransport()
    made: Transport = general if request.param == "general" else Http1Transport(general)
    yield made
    await made.close()


OK = b"HTTP/1.1 200 OK\r\n"


def saying(*parts: bytes):  # type: ignore[no-untyped-def]
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return talk


async def whole(transport: Transport, address: str) -> bytes:
    async with transport.open("POST", URL(address), body=b"{}") as reply:
        return b"".join([chunk async for chunk in reply.chunks])


async def test_kept_connections_are_used_until_they_are_dropped(transport: Transport) -> None:
    async def handle(request: web.Request) -> web.Response:
        assert request.transport is not None
        return web.Response(text=str(request.transport.get_extra_info("peername")[1]))

    async with serving({"/x": handle}) as address:
        first = await whole(transport, f"{address}/x")
        assert await whole(transport, f"{address}/x") == first
        transport.drop_idle()
        assert await whole(transport, f"{address}/x") != first


async def test_an_answer_comes_with_status_type_and_headers(transport: Transport) -> None:
    async def handle(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        assert await request.read() == b'{"a": 1}'
        return web.Response(status=429, body=b"slow down", headers={"Retry-After": "7", "Content-Type": "text/plain"})

    async with (
        serving({"/x": handle}) as address,
        transport.open("POST", URL(f"{address}/x"), body=b'{"a": 1}') as reply,
    ):
        assert (reply.status, reply.content_type, reply.headers["retry-after"]) == (429, "text/plain", "7")
        assert b"".join([chunk async for chunk in reply.chunks]) == b"slow down"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((OK + b"Content-Length: 10\r\n\r\nabc",), "middle of its answer"),
        ((OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",), "middle of its answer"),
        ((OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",), "engine at"),
        ((b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",), "redirect"),
        ((OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",), "compress"),
        ((OK + b"X: " + b"a" * 1_000_000 + b"\r\n\r\n",), r"did not answer in HTTP|not HTTP|endless head"),
        ((b"hello there\r\n\r\n",), r"did not answer in HTTP|not HTTP|endless head"),
        ((b"",), "closed the connection"),
        ((OK + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabc",), r"did not answer in HTTP|not HTTP|endless head"),
    ],
    ids=[
        "short body",
        "no last chunk",
        "bad chunk",
        "redirect",
        "compressed",
        "long header",
        "no HTTP",
        "empty",
        "CL2",
    ],
)
async def test_what_an_engine_does_wrong_is_a_fault(transport: Transport, answer: tuple[bytes, ...], said: str) -> None:
    async with talking(saying(*answer)) as address:
        with pytest.raises(EngineFault, match=said):
            await whole(transport, address)


async def test_a_refused_connection_is_a_fault(transport: Transport) -> None:
    with pytest.raises(EngineFault, match="is it running"):
        await whole(transport, "http://127.0.0.1:1/")


async def test_leaving_before_the_end_closes_the_connection(transport: Transport) -> None:
    closed = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        assert await reader.read() == b"{}"
        closed.set()

    async with talking(talk) as address:
        async with transport.open("POST", URL(address), body=b"{}") as reply:
            async for chunk in reply.chunks:
                assert chunk == b"abc"
                break
        await asyncio.wait_for(closed.wait(), 1)


async def test_a_finished_connection_is_used_again(transport: Transport) -> None:
    ports: list[int] = []

    async def handle(request: web.Request) -> web.Response:
        assert request.transport is not None
        ports.append(request.transport.get_extra_info("peername")[1])
        return web.Response(body=b"ok")

    async with serving({"/": handle}) as address:
        for _ in range(3):
            assert await whole(transport, address) == b"ok"
    assert len(set(ports)) == 1


async def test_a_kept_connection_that_was_closed_meanwhile_is_replaced(transport: Transport) -> None:
    requests: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(requests)
        requests.append(1)
        await reader.readexactly(2)
        writer.write(OK + b"Content-Length: 2\r\n\r\nok")
        await reader.readuntil(b"\r\n\r\n")
        requests[number] += 1  # and closes without an answer

    async with talking(talk) as address:
        for _ in range(3):
            assert await whole(transport, address) == b"ok"
    assert requests == [2, 2, 1]


async def test_a_new_connection_closed_without_an_answer_is_not_tried_again(transport: Transport) -> None:
    requests: list[None] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(None)

    async with talking(talk) as address:
        with pytest.raises(EngineFault):
            await whole(transport, address)
    assert len(requests) == 1


async def test_a_cancelled_request_closes_its_connection(transport: Transport) -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        asked.set()
        assert await reader.read() == b""
        closed.set()

    async with talking(talk) as address:
        asking = asyncio.ensure_future(whole(transport, address))
        await asyncio.wait_for(asked.wait(), 1)
        asking.cancel()
        await asyncio.wait_for(closed.wait(), 1)
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_proxies_of_the_environment_are_not_used(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    async with serving({"/": {"fine": True}}) as address:
        assert await transport.json("GET", URL(address)) == (200, {"fine": True})


async def test_a_small_exchange_has_its_time(transport: Transport) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with talking(talk) as address:
        with pytest.raises(EngineFault, match=r"within 0\.05 s"):
            await transport.json("GET", URL(address), timeout_s=0.05)


async def test_an_answer_that_is_no_json_is_none(transport: Transport) -> None:
    for body in (b"<html>", b"[" * 100_000):
        async with talking(saying(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)) as address:
            assert await transport.json("GET", URL(address)) == (200, None)


async def test_an_answer_of_absurd_size_is_a_fault(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.engines.transport.MAX_JSON_BYTES", 1000)
    async with talking(saying(OK + b"\r\n" + b"a" * 5000)) as address:
        with pytest.raises(EngineFault, match="absurd"):
            await transport.json("GET", URL(address))
