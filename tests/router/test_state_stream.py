"""The state stream's bytes, however they are cut, and what its silence and its end mean."""

from __future__ import annotations

import asyncio
import itertools

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.peer_client import PeerFault
from router.state_stream import Event, SilentFault, SleptFault, StateStream
from router.wire_snapshot import SNAPSHOT_MAX_BYTES
from tests.fakes import BOUND_S

TOLD = b': beat\n\nevent: snapshot\ndata: {"a":\ndata: 1}\n\nevent: goodbye\r\ndata: {}\r\n\r\n:\n\ndata: x\n\n'
MEANT: list[Event] = [
    (b"", b""),
    (b"snapshot", b'{"a":\n1}'),
    (b"goodbye", b"{}"),
    (b"", b""),
    (b"message", b"x"),
]


class Pieces:
    """Gives one piece after the other, raises what is to be raised, then is silent."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = list(pieces)
        self.asked = asyncio.Event()

    async def readany(self) -> bytes:
        self.asked.set()
        if not self._pieces:
            await asyncio.Event().wait()
        piece = self._pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece


@given(st.lists(st.integers(0, len(TOLD)), max_size=8))
def test_however_it_is_cut_the_events_are_the_same(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(TOLD)]
    pieces = [piece for start, end in itertools.pairwise(bounds) if (piece := TOLD[start:end])]
    stream = StateStream(Pieces(*pieces))

    async def all_of_them() -> list[Event]:
        return [event for _ in pieces for event in await stream.read(BOUND_S)]

    assert asyncio.run(all_of_them()) == MEANT


async def test_a_line_without_end_is_a_fault_before_it_fills_the_memory() -> None:
    stream = StateStream(Pieces(*[b"data: " + b"x" * (SNAPSHOT_MAX_BYTES // 2 - 6)] * 3))
    assert await stream.read(BOUND_S) == []
    assert await stream.read(BOUND_S) == []
    with pytest.raises(PeerFault, match="endless"):
        await stream.read(BOUND_S)


@pytest.mark.parametrize("end", [b"", aiohttp.ClientPayloadError(), ConnectionResetError(), ValueError()])
async def test_a_stream_that_ends_without_a_goodbye_broke(end: bytes | Exception) -> None:
    with pytest.raises(PeerFault, match="broke") as raised:
        await StateStream(Pieces(end)).read(BOUND_S)
    assert not isinstance(raised.value, SilentFault)


async def test_silence_is_a_fault_of_its_own_kind() -> None:
    with pytest.raises(SilentFault) as raised:
        await StateStream(Pieces()).read(0.01)
    assert not isinstance(raised.value, SleptFault)


async def test_after_sleep_what_is_read_now_and_what_comes_next_are_void_at_once() -> None:
    source = Pieces()
    stream = StateStream(source)
    reading = asyncio.ensure_future(stream.read(3600))
    async with asyncio.timeout(BOUND_S):
        await source.asked.wait()
        stream.make_void()
        with pytest.raises(SleptFault):
            await reading
        with pytest.raises(SleptFault):
            await stream.read(3600)
