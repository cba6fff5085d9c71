"""The streaming path: bytes are pushed as they come, held back while the client can't keep up."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from yarl import URL

from router.aio import Tasks
from router.engines.http1 import PULL_BYTES, Http1Transport
from router.errors import EngineFault
from tests.router.engines.fakes import serving, talking

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


async def pushed(transport: Http1Transport, address: str, until: bytes = b"[DONE]") -> list[bytes]:
    got: list[bytes] = []

    def took(data: bytes) -> bool:
        got.append(data)
        return until in data

    async with transport.open("POST", URL(address), body=b"{}") as reply:
        assert reply.content_type == "text/event-stream"
        await reply.each(took)
    return got


async def test_each_piece_is_pushed_as_it_comes(transport: Http1Transport) -> None:
    went_on = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"one"))
        await went_on.wait()
        writer.write(chunk(b"two[DONE]") + b"0\r\n\r\n")
        await reader.read()

    got: list[bytes] = []

    def took(data: bytes) -> bool:
        got.append(data)
        went_on.set()
        return b"[DONE]" in data

    async with talking(talk) as address, transport.open("POST", URL(address), body=b"{}") as reply:
        await asyncio.wait_for(reply.each(took), 2)
    assert got == [b"one", b"two[DONE]"]


async def test_a_stream_that_breaks_is_a_fault_after_what_came(transport: Http1Transport) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"one"))
        await writer.drain()

    async with talking(talk) as address:
        with pytest.raises(EngineFault, match="middle of its answer"):
            await pushed(transport, address)


async def test_what_the_taker_raises_comes_out(transport: Http1Transport) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"one"))
        await reader.read()

    def took(data: bytes) -> bool:
        raise LookupError(data)

    async with talking(talk) as address, transport.open("POST", URL(address), body=b"{}") as reply:
        with pytest.raises(LookupError):
            await reply.each(took)


class Tireless:
    """A sender that never stops by itself; ``moved`` is set with each piece that went out."""

    def __init__(self) -> None:
        self.sent = 0
        self.moved = asyncio.Event()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        while True:
            writer.write(chunk(b"x" * 65_536))
            await writer.drain()
            self.sent += 65_536
            self.moved.set()

    async def stalls(self) -> bool:
        """Whether it is held back before it has sent more than what the sockets' buffers hold."""
        while self.sent < PULL_BYTES + 16 * 2**20:
            self.moved.clear()
            try:
                await asyncio.wait_for(self.moved.wait(), 0.3)
            except TimeoutError:
                return True
        return False


async def test_a_reader_that_cannot_keep_up_holds_the_engine_back(transport: Http1Transport) -> None:
    sender = Tireless()
    async with talking(sender.talk) as address, transport.open("POST", URL(address), body=b"{}"):
        assert await sender.stalls()


async def test_a_paused_push_holds_the_engine_back_until_it_is_resumed(transport: Http1Transport, tasks: Tasks) -> None:
    sender = Tireless()
    async with talking(sender.talk) as address, transport.open("POST", URL(address), body=b"{}") as reply:

        def took(data: bytes) -> bool:
            reply.pause()
            return False

        tasks.spawn("read", reply.each(took))
        assert await sender.stalls()
        sent = sender.sent
        while sender.sent == sent:
            sender.moved.clear()
            reply.resume()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(sender.moved.wait(), 0.05)
        await tasks.close()


async def test_an_engine_that_says_more_than_it_was_asked_loses_its_connection(transport: Http1Transport) -> None:
    answers = [0]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers[0] += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await reader.read()

    async with talking(talk) as address:
        for _ in range(2):
            async with transport.open("GET", URL(address)) as reply:
                body = b"".join([part async for part in reply.chunks])
                assert body in (b"ok", b"okevil")  # its own answer at most, never the next one's


async def test_a_key_with_a_line_end_is_refused(transport: Http1Transport) -> None:
    async with serving({"/": {}}) as address:
        with pytest.raises(EngineFault, match="can't be sent"):
            async with transport.open("GET", URL(address), headers={"Authorization": "Bearer a\r\nX: y"}):
                pass
