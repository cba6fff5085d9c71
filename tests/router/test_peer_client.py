"""Calls to a peer: pinned, bounded in time, one request a call; every way to fail says how."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from router.health import Failure
from router.peer_client import REFUSAL_MAX_BYTES, PeerClient, PeerFault
from router.peer_tls import client_session
from tests.fakes_peer import ScriptedPeer, Talk, frozen

HELLO = "/peer/v1/hello"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    made = client_session()
    yield made
    await made.close()


@pytest.fixture
async def studio(tmp_path: Path) -> AsyncIterator[ScriptedPeer]:
    async with ScriptedPeer(tmp_path / "studio") as scripted:
        scripted.scripts[HELLO] = hello
        yield scripted


async def hello(talk: Talk) -> None:
    await talk.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    talk.keep = True


async def failing(client: PeerClient, **more: object) -> PeerFault:
    with pytest.raises(PeerFault) as raised:
        await client.ask("POST", HELLO, timeout_s=0.5, **more)  # type: ignore[arg-type] # place
    return raised.value


async def test_small_exchanges_share_a_connection(session: aiohttp.ClientSession, studio: ScriptedPeer) -> None:
    async def script(talk: Talk) -> None:
        await talk.raw(b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{"a":1}')
        talk.keep = True

    studio.scripts[HELLO] = script
    client = PeerClient(session, "own", studio.peer)
    for _ in range(3):
        assert await client.ask("POST", HELLO, body={"b": 2}) == (200, {"a": 1})
    assert studio.connections == 1
    assert studio.asked[0].json == {"b": 2}


async def test_each_way_to_fail_is_told_apart(
    session: aiohttp.ClientSession, studio: ScriptedPeer, tmp_path: Path
) -> None:
    client = PeerClient(session, "own", studio.peer)
    async with frozen() as port:
        assert (await failing(client, place=("127.0.0.1", port))).failure is Failure.SILENT
    async with ScriptedPeer(tmp_path / "other") as other:
        fault = await failing(client, place=("127.0.0.1", other.port))
        assert (fault.failure, other.asked) == (Failure.SILENT, [])
        assert "pair it again" in fault.hint

    async def resets(talk: Talk) -> None:
        talk.reset()

    studio.scripts[HELLO] = resets
    assert (await failing(client)).failure is Failure.BROKEN
    assert len(studio.asked) == 1, "a request is not sent twice"
    await studio.stop()
    assert (await failing(client)).failure is Failure.UNREACHABLE
    nowhere = PeerClient(session, "own", replace(studio.peer, addresses=()))
    assert (await failing(nowhere)).failure is Failure.UNREACHABLE


async def test_an_answer_that_never_ends_is_cut_in_time_and_size(
    session: aiohttp.ClientSession, studio: ScriptedPeer
) -> None:
    async def drips(talk: Talk) -> None:
        await talk.begin()
        await talk.gone()

    async def pours(talk: Talk) -> None:
        await talk.begin()
        while True:
            await talk.say(b"a" * REFUSAL_MAX_BYTES)

    client = PeerClient(session, "own", studio.peer)
    studio.scripts[HELLO] = drips
    assert (await failing(client)).failure is Failure.SILENT
    studio.scripts[HELLO] = pours
    async with asyncio.timeout(5):
        assert await client.ask("GET", HELLO) == (200, None)


async def test_the_secret_is_in_no_sentence_and_no_representation(
    session: aiohttp.ClientSession, studio: ScriptedPeer
) -> None:
    peer = studio.peer
    client = PeerClient(session, "own", peer)
    await studio.stop()
    fault = await failing(client)
    assert peer.secret_out not in repr((peer, client, fault, fault.__cause__))
