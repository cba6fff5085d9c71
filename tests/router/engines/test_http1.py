"""The streaming path to engines: what it passes on, what it refuses, and which connections it uses again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from router.engines.http1 import Http1Transport
from router.engines.transport import HttpTransport
from router.errors import EngineFault
from tests.fakes import HANG, RESET, Drip, Flood, ScriptedEngine, Wait, chunk, happens, head, stream, whole

SAID = stream("one", "two")


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine("m") as scripted:
        yield scripted


@pytest.fixture
async def fast() -> AsyncIterator[Http1Transport]:
    made = Http1Transport(HttpTransport())
    yield made
    await made.close()


async def ask(
    fast: Http1Transport, engine: ScriptedEngine, took: Callable[[bytes], bool] = lambda data: False
) -> bytes:
    """One exchange, pushed; what was pushed."""
    parts: list[bytes] = []

    def took_all(data: bytes) -> bool:
        parts.append(data)
        return took(data)

    async with fast.open("POST", URL(f"{engine.url}/v1/chat/completions"), body=b'{"a":1}') as reply:
        await reply.each(took_all)
    return b"".join(parts)


def chunked(*pieces: bytes) -> bytes:
    """A body in chunks, with its end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def chunked_head() -> bytes:
    return head(Transfer_Encoding="chunked")


async def test_a_chunked_stream_arrives_whole(fast: Http1Transport, engine: ScriptedEngine) -> None:
    engine.play(chunked_head(), chunked(SAID[:40], SAID[40:]))
    assert await ask(fast, engine) == SAID


async def test_one_connection_serves_request_after_request(fast: Http1Transport) -> None:
    peers: set[object] = set()

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(await request.read())
        await response.write_eof()
        return response

    app = web.Application()
    app.router.add_post("/", answer)
    async with TestServer(app) as server:
        for body in (b"one", b"two", b"three"):
            parts: list[bytes] = []
            async with fast.open("POST", server.make_url("/"), body=body) as reply:
                await reply.each(lambda data, parts=parts: bool(parts.append(data)))
            assert b"".join(parts) == body
    assert len(peers) == 1


@pytest.mark.parametrize("cut", range(1, 60, 7))
async def test_where_the_network_cuts_makes_no_difference(
    fast: Http1Transport, engine: ScriptedEngine, cut: int
) -> None:
    wire = chunked_head() + chunked(SAID)
    engine.play(wire[:cut], wire[cut : cut + 90], wire[cut + 90 :])
    assert await ask(fast, engine) == SAID


async def test_a_body_that_ends_with_the_connection_is_whole(fast: Http1Transport, engine: ScriptedEngine) -> None:
    go = asyncio.Event()
    engine.play(head(), SAID, Wait(go))
    asking = asyncio.ensure_future(ask(fast, engine, lambda data: go.set() or False))
    assert await asyncio.wait_for(asking, 5) == SAID


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        ((RESET,), "closed the connection"),
        ((b"SSH-2.0-OpenSSH_9\r\n",), "not HTTP"),
        ((b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 200_000,), "endless head"),
        ((head(302, Location="http://elsewhere/"),), "redirects"),
        ((head(200, Content_Encoding="gzip"), b"x"), "compresses"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",), "not HTTP"),
    ],
    ids=["reset", "garbage", "endless head", "redirect", "compressed", "two lengths"],
)
async def test_an_odd_answer_is_a_fault_that_says_so(
    fast: Http1Transport, engine: ScriptedEngine, steps: tuple[bytes, ...], sentence: str
) -> None:
    engine.play(*steps)
    with pytest.raises(EngineFault, match=sentence):
        await asyncio.wait_for(ask(fast, engine), 5)


async def test_a_body_shorter_than_promised_is_a_fault(fast: Http1Transport, engine: ScriptedEngine) -> None:
    engine.play(head(200, Content_Length="100"), b"short", RESET)
    with pytest.raises(EngineFault, match="in the middle of its answer"):
        await asyncio.wait_for(ask(fast, engine), 5)


async def test_bytes_after_the_answer_end_the_connection(fast: Http1Transport, engine: ScriptedEngine) -> None:
    engine.play(whole(b"{}") + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    engine.play(whole(b'{"good":1}'))
    first = await _outcome(fast, engine)
    assert b"evil" not in first
    assert await ask(fast, engine) == b'{"good":1}'


async def _outcome(fast: Http1Transport, engine: ScriptedEngine) -> bytes:
    try:
        return await ask(fast, engine)
    except EngineFault as fault:
        return fault.message.encode()


async def test_nobody_listening_and_nobody_answering_are_faults(fast: Http1Transport) -> None:
    with pytest.raises(EngineFault, match="is it running"):
        async with fast.open("POST", URL("http://127.0.0.1:9/"), body=b""):
            pass


async def test_leaving_early_closes_the_connection_at_once(fast: Http1Transport, engine: ScriptedEngine) -> None:
    engine.play(head(), chunk("a"), HANG)
    async with fast.open("POST", URL(f"{engine.url}/v1/chat/completions"), body=b"{}") as reply:
        await reply.each(lambda data: True)
    await happens((await engine.request()).gone, 1.0)


async def test_cancelling_while_nothing_has_come_closes_the_connection(
    fast: Http1Transport, engine: ScriptedEngine
) -> None:
    engine.play(HANG)
    asking = asyncio.ensure_future(ask(fast, engine))
    asked = await engine.request()
    asking.cancel()
    await happens(asked.gone, 1.0)


async def test_a_kept_connection_that_the_engine_closed_is_replaced_unseen(
    fast: Http1Transport, engine: ScriptedEngine
) -> None:
    engine.play(whole(b'{"first":1}'))
    engine.play(whole(b'{"second":2}'))
    assert await ask(fast, engine) == b'{"first":1}'
    assert await ask(fast, engine) == b'{"second":2}'


async def test_a_paused_reply_reads_no_more_than_a_little(fast: Http1Transport, engine: ScriptedEngine) -> None:
    engine.play(head(), Flood(b"data: x\n\n" * 1000))
    seen = 0
    paused = asyncio.Event()
    async with fast.open("POST", URL(f"{engine.url}/v1/chat/completions"), body=b"{}") as reply:

        def took(data: bytes) -> bool:
            nonlocal seen
            seen += len(data)
            if seen > 100_000:
                reply.pause()
                paused.set()
            return False

        reading = asyncio.ensure_future(reply.each(took))
        await happens(paused, 5.0)
        before = seen
        await asyncio.wait((reading,), timeout=0.2)
        assert seen - before < 2_000_000
        reply.resume()
        reading.cancel()


async def test_an_answer_can_be_pulled_too(fast: Http1Transport, engine: ScriptedEngine) -> None:
    engine.play(chunked_head(), Drip(b"2\r\nab\r\n", 0.01, 3), b"0\r\n\r\n")
    async with fast.open("POST", URL(f"{engine.url}/v1/chat/completions"), body=b"{}") as reply:
        assert b"".join([part async for part in reply.chunks]) == b"ababab"


async def test_a_fault_of_the_taker_is_the_callers(fast: Http1Transport, engine: ScriptedEngine) -> None:
    def broken(data: bytes) -> bool:
        raise LookupError("ours")

    engine.play(head(), SAID, HANG)
    with pytest.raises(LookupError):
        await asyncio.wait_for(ask(fast, engine, broken), 5)


async def test_a_key_with_a_line_break_is_never_sent(fast: Http1Transport, engine: ScriptedEngine) -> None:
    with pytest.raises(EngineFault, match="can't be sent"):
        async with fast.open("POST", URL(engine.url), headers={"Authorization": "Bearer a\r\nX: y"}, body=b""):
            pass
    assert not engine.asked
