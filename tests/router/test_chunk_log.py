"""Pieces of a kept answer reach the store in order, in few writes."""

from __future__ import annotations

import asyncio

from router.answer import Answer
from router.chunk_log import FLUSH_BYTES, ChunkLog
from router.errors import failure
from router.states import JobState
from router.wire import Ended
from tests.fakes import chunk


class Rows:
    """The one method of JobRows that is needed here."""

    def __init__(self) -> None:
        self.kept: list[tuple[int, int, bytes]] = []
        self.wrote = asyncio.Event()

    def append_chunks(self, job_id: str, try_no: int, first_seq: int, data: bytes) -> None:
        self.kept.append((try_no, first_seq, data))
        self.wrote.set()


def log() -> tuple[ChunkLog, Rows, Answer]:
    rows, answer = Rows(), Answer(keep=True)
    made = ChunkLog(rows, "J", answer)  # type: ignore[arg-type]
    answer.attach(made)
    return made, rows, answer


async def test_small_pieces_are_written_together_within_a_quarter_second() -> None:
    _, rows, answer = log()
    answer.restart(1)
    for word in "abc":
        answer.feed(chunk(word), 1)
    assert not rows.kept
    await asyncio.wait_for(rows.wrote.wait(), 2.0)
    assert rows.kept == [(1, 0, chunk("a") + chunk("b") + chunk("c"))]


async def test_a_large_piece_is_written_at_once() -> None:
    _, rows, answer = log()
    answer.restart(1)
    answer.feed(chunk("x" * FLUSH_BYTES), 1)
    answer.feed(chunk("y"), 1)
    assert [seq for _, seq, _ in rows.kept] == [0]


async def test_another_try_starts_at_zero_and_forgets_what_was_not_written() -> None:
    _, rows, answer = log()
    answer.restart(1)
    answer.feed(chunk("void"), 1)
    answer.restart(2)
    answer.feed(chunk("new"), 1)
    await asyncio.wait_for(rows.wrote.wait(), 2.0)
    assert rows.kept == [(2, 0, chunk("new"))]


async def test_what_a_broken_answer_said_is_kept() -> None:
    _, rows, answer = log()
    answer.restart(1)
    answer.feed(chunk("half"), 1)
    answer.finish(Ended(state=JobState.FAILED, error=failure("interrupted", "broke off")))
    assert rows.kept == [(1, 0, chunk("half"))]


async def test_a_done_answer_is_stored_whole_by_others() -> None:
    _, rows, answer = log()
    answer.restart(1)
    answer.feed(chunk("all"), 1)
    answer.finish(Ended(state=JobState.DONE))
    assert not rows.kept
