"""The tests' own network: namespaces with real nodes whose cables can be cut."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tests.cluster.net import PORT, inside, network
from tests.fakes import head, stream

pytestmark = pytest.mark.cluster


async def test_each_computer_has_its_own_node_and_engine(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        one, two = await net.computer("one", "m"), await net.computer("two", "other")
        await asyncio.gather(one.start("--no-discovery"), two.start("--no-discovery"))
        await one.offers("m", "one")
        await two.offers("other", "two")
        one.engine.play(head(), stream("hello"))
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        async with one.http.post("/v1/chat/completions", json=body) as reply:
            assert b"hello" in await reply.read()
        assert (await two.json("status"))["node"]["name"] == "two"
        await one.kill()
        assert (await two.look("status"))["node"]["name"] == "two"


async def test_a_cut_cable_lets_nothing_through(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        one, two = await net.computer("one"), await net.computer("two")
        with inside(two.namespace, lambda: socket.create_server((two.address, PORT))):
            await _dial(one.namespace, two.address)
            two.cut()
            with pytest.raises(TimeoutError):
                await _dial(one.namespace, two.address, 0.3)
            two.mend()
            await _dial(one.namespace, two.address)


def _calling() -> socket.socket:
    made = socket.socket()
    made.setblocking(False)
    return made


async def _dial(namespace: str, host: str, within_s: float = 10.0) -> None:
    raw = inside(namespace, _calling)
    try:
        async with asyncio.timeout(within_s):
            await asyncio.get_running_loop().sock_connect(raw, (host, PORT))
    finally:
        raw.close()
