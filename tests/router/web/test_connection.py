"""Slow and greedy clients: each limit that aiohttp lacks, shortened, on real sockets."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import cast

import pytest
from aiohttp import web

from router.web.connection import Connection, Limits, Population
from tests.router.web.web_kit import closed, read_answer, serving

QUICK = Limits(head_s=0.25, body_stall_s=0.25, body_s=5.0, idle_s=0.5, look_s=0.05)


async def closes_within(reader: asyncio.StreamReader, seconds: float) -> bytes:
    async with asyncio.timeout(seconds):
        return await closed(reader)


@pytest.mark.parametrize("data", [b"", b"G", b"GET /v1/models HTTP/1.1\r\nHos", b"GET /v1/models HTTP/1.1\r\nA: b\r\n"])
async def test_a_head_that_does_not_end_is_closed(data: bytes) -> None:
    async with serving(QUICK) as served, served.connection() as (reader, writer):
        writer.write(data)
        assert await closes_within(reader, 1.0) == b""
        assert served.seen == []


async def test_a_dripping_head_is_closed_all_the_same() -> None:
    async with serving(QUICK) as served, served.connection() as (reader, writer):

        async def drip() -> None:
            for byte in b"GET /v1/models HTTP/1.1\r\nX-Long: " + b"a" * 1000:
                writer.write(bytes([byte]))
                await asyncio.wait({asyncio.ensure_future(asyncio.Event().wait())}, timeout=0.02)

        dripping = asyncio.ensure_future(drip())
        assert await closes_within(reader, 1.0) == b""
        dripping.cancel()


@pytest.mark.parametrize("second", [b"G", b"GET /v1/models HTTP/1.1\r\nHost: loc"])
@pytest.mark.parametrize("together", [False, True])
async def test_the_head_of_a_later_request_has_the_same_limit(second: bytes, together: bool) -> None:
    patient = Limits(head_s=0.25, idle_s=30, look_s=0.05)
    async with serving(patient) as served, served.connection() as (reader, writer):
        if together:
            writer.write(served.get() + second)
        else:
            writer.write(served.get())
        assert (await read_answer(reader)).status == 200
        if not together:
            writer.write(second)
        assert await closes_within(reader, 1.0) == b""
        assert served.seen == ["/v1/models"]


async def test_an_idle_connection_is_kept_longer_than_a_head_and_then_closed() -> None:
    loop = asyncio.get_running_loop()
    async with serving(QUICK) as served, served.connection() as (reader, writer):
        writer.write(served.get())
        assert (await read_answer(reader)).status == 200
        began = loop.time()
        assert await closes_within(reader, 2.0) == b""
        assert loop.time() - began > QUICK.head_s + 0.1


@pytest.mark.parametrize("encoding", [b"Content-Length: 9\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n9\r\n{"])
async def test_a_body_that_stalls_is_closed(encoding: bytes) -> None:
    async with serving(QUICK) as served, served.connection() as (reader, writer):
        head = b"POST /v1/chat/completions HTTP/1.1\r\n" + served.host + b"Content-Type: application/json\r\n"
        writer.write(head + encoding)
        assert await closes_within(reader, 1.0) == b""
        assert served.bodies == []


async def test_a_body_that_drips_for_ever_is_closed() -> None:
    quick = Limits(body_stall_s=5, body_s=0.4, look_s=0.05)
    async with serving(quick) as served, served.connection() as (reader, writer):
        head = b"POST /v1/chat/completions HTTP/1.1\r\n" + served.host + b"Content-Type: application/json\r\n"
        writer.write(head + b"Content-Length: 9000\r\n\r\n")

        async def drip() -> None:
            while True:
                writer.write(b" ")
                await asyncio.wait({asyncio.ensure_future(asyncio.Event().wait())}, timeout=0.02)

        dripping = asyncio.ensure_future(drip())
        await closes_within(reader, 1.5)
        dripping.cancel()


async def test_a_long_answer_is_not_a_slow_client() -> None:
    app = web.Application()
    go = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        await request.read()
        await go.wait()
        return web.Response(text="at last")

    app.router.add_post("/v1/chat/completions", slow)
    async with serving(QUICK, app=app) as served, served.connection() as (reader, writer):
        writer.write(served.post(b"{}"))
        asyncio.get_running_loop().call_later(0.9, go.set)
        assert (await read_answer(reader)).body == b"at last"


async def test_a_client_that_never_reads_is_cut() -> None:
    app = web.Application()
    ended = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65_536)
        finally:
            ended.set()

    app.router.add_get("/v1/models", endless)
    async with serving(Limits(unread_s=0.3, look_s=0.05), app=app) as served, served.connection() as (_, writer):
        writer.write(served.get())
        async with asyncio.timeout(3):
            await ended.wait()


async def test_connections_beyond_the_bound_are_refused_and_room_comes_back() -> None:
    async with serving(Limits(connections=4)) as served:
        async with AsyncExitStack() as stack:
            held = [await stack.enter_async_context(served.connection()) for _ in range(4)]
            for reader, writer in held:
                writer.write(served.get())
                assert (await read_answer(reader)).status == 200
            async with served.connection() as (reader, writer):
                writer.write(served.get())
                assert await closes_within(reader, 1.0) == b""
        async with asyncio.timeout(5):
            await served.listener.emptied()
        assert (await served.ask(served.get())).status == 200


async def test_only_addresses_of_the_network_have_a_bound_of_their_own() -> None:
    population = Population(Limits(connections=1000, per_address=64))
    connections = [cast(Connection, object()) for _ in range(400)]
    far = [population.admit(one, "192.0.2.7", local=False) for one in connections[:100]]
    assert far.count(True) == 64
    assert population.admit(connections[100], "192.0.2.8", local=False)
    assert all(population.admit(one, "127.0.0.1", local=True) for one in connections[101:300])
    population.leave(connections[0], "192.0.2.7")
    assert population.admit(connections[301], "192.0.2.7", local=False)
    assert not population.admit(connections[302], "192.0.2.7", local=False)
