"""Connections to a peer: pinned, kept, given back whole; what is not read in time is not taken for silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.engines.base import Call, Kind
from router.engines.peer_stream import PeerStream
from router.engines.peer_transport import HANDSHAKES, PeerReply, PeerTransport
from router.health import Failure
from router.peer_client import PeerFault
from router.trust import fingerprint_of
from tests.fakes import BOUND_S, DONE, chunk
from tests.fakes_peer import ScriptedPeer, Talk

RUN = "/peer/v1/run"
BODY = b'{"stream": true}'
SHORT_S = 0.5


@pytest.fixture
async def studio(tmp_path: Path) -> AsyncIterator[ScriptedPeer]:
    async with ScriptedPeer(tmp_path / "studio") as scripted:
        yield scripted


@pytest.fixture
async def transport(studio: ScriptedPeer) -> AsyncIterator[PeerTransport]:
    made = PeerTransport("studio", fingerprint_of(studio.node_id), {"Authorization": "Quorum own secret"})
    yield made
    made.close()


async def whole(transport: PeerTransport, studio: ScriptedPeer) -> bytes:
    async with transport.post(("127.0.0.1", studio.port), RUN, BODY, 1.0) as source:
        return b"".join([data async for data in source.chunks])


async def test_a_finished_connection_is_used_again_until_closed(transport: PeerTransport, studio: ScriptedPeer) -> None:
    for _ in range(3):
        assert DONE in await whole(transport, studio)
    assert studio.connections == 1
    assert studio.asked[0].headers["authorization"] == "Quorum own secret"
    assert studio.asked[0].body == BODY
    transport.close()
    await whole(transport, studio)
    assert studio.connections == 2


async def test_many_at_once_are_all_answered(transport: PeerTransport, studio: ScriptedPeer) -> None:
    answers = await asyncio.gather(*(whole(transport, studio) for _ in range(5 * HANDSHAKES)))
    assert all(DONE in answer for answer in answers)
    assert len(studio.asked) == 5 * HANDSHAKES


async def test_whoever_waits_behind_a_peer_that_hangs_waits_for_one_timeout_and_is_not_timed_meanwhile(
    transport: PeerTransport,
) -> None:
    knocked = 0

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal knocked
        knocked += 1
        await reader.read()
        writer.close()

    async def ask(patience_s: float) -> PeerFault:
        with pytest.raises(PeerFault) as raised:
            async with asyncio.timeout(patience_s) as limit, transport.post(place, RUN, BODY, SHORT_S, limit):
                pass
        return raised.value

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        place = ("127.0.0.1", server.sockets[0].getsockname()[1])
        first = [ask(4 * SHORT_S) for _ in range(HANDSHAKES)]
        waiting = [ask(SHORT_S / 2) for _ in range(4 * HANDSHAKES)]
        faults = await asyncio.gather(*first, *waiting)
    assert {fault.failure for fault in faults} == {Failure.SILENT}
    assert knocked == HANDSHAKES


async def test_a_connection_that_is_closed_at_once_says_nothing_about_the_others(transport: PeerTransport) -> None:
    knocked = 0

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal knocked
        knocked += 1
        writer.close()

    async def ask() -> PeerFault:
        with pytest.raises(PeerFault) as raised:
            async with transport.post(place, RUN, BODY, BOUND_S):
                pass
        return raised.value

    async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
        place = ("127.0.0.1", server.sockets[0].getsockname()[1])
        faults = await asyncio.gather(*(ask() for _ in range(5 * HANDSHAKES)))
    assert {fault.failure for fault in faults} == {Failure.UNREACHABLE}
    assert knocked == 5 * HANDSHAKES


async def test_a_kept_connection_is_not_used_for_another_place(
    transport: PeerTransport, studio: ScriptedPeer, tmp_path: Path
) -> None:
    await whole(transport, studio)
    async with ScriptedPeer(tmp_path / "other") as other:
        with pytest.raises(PeerFault, match="Another computer") as raised:
            await whole(transport, other)
        assert (raised.value.failure, other.asked) == (Failure.SILENT, [])


async def test_an_answer_left_early_is_closed(transport: PeerTransport, studio: ScriptedPeer) -> None:
    left = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.begin()
        await talk.gone()
        left.set()

    studio.scripts[RUN] = script
    async with transport.post(("127.0.0.1", studio.port), RUN, BODY, 1.0):
        pass
    await asyncio.wait_for(left.wait(), BOUND_S)


async def test_a_client_that_does_not_read_is_no_silence_of_the_peer(
    transport: PeerTransport, studio: ScriptedPeer
) -> None:
    go_on = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.begin()
        await talk.say(chunk("a"))
        await go_on.wait()
        await talk.say(chunk(finish="stop"), DONE)
        await talk.end()

    studio.scripts[RUN] = script
    got: list[bytes] = []
    async with transport.post(("127.0.0.1", studio.port), RUN, BODY, 1.0) as source:
        reply = PeerReply("studio", "text/event-stream", source, (1.0, 1.0))
        reply.stream = PeerStream("studio", Call(Kind.CHAT, "m", BODY, True), reply, lambda: None)
        await reply.accepted()

        def took(data: bytes) -> bool:
            got.append(data)
            if b"[DONE]" in data:
                return True
            reply.pause()
            loop = asyncio.get_running_loop()
            loop.call_later(2.5, go_on.set)
            loop.call_later(2.5, reply.resume)
            return False

        async with asyncio.timeout(BOUND_S):
            await reply.each(took)
    assert b"".join(got) == chunk("a") + chunk(finish="stop") + DONE
