"""A job's answer: followed live, replayed from any event on, voided by another try."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.answer import Answer
from router.states import JobState
from router.wire import Ended, State
from tests.fakes import DONE, Listener, chunk, listening

END = Ended(state=JobState.DONE)


@dataclass
class _Gate:
    moves: list[str] = field(default_factory=list)

    def pause(self) -> None:
        self.moves.append("pause")

    def resume(self) -> None:
        self.moves.append("resume")


def test_only_a_reader_that_does_more_than_keep_it_has_heard_an_answer() -> None:
    answer = kept()
    answer.attach(Listener(keeps=True))
    answer.feed(chunk("a"), 1)
    assert not answer.heard
    answer.attach(Listener())
    assert answer.heard
    answer.restart(2)
    assert not answer.heard
    answer.feed(chunk("b"), 1)
    assert answer.heard


def events(number: int) -> list[bytes]:
    return [b"data: %d\n\n" % n for n in range(number)]


def kept(*chunks: bytes, try_no: int = 1) -> Answer:
    answer = Answer(keep=True, try_no=try_no, content_type="text/event-stream")
    for data in chunks:
        answer.feed(data, data.count(b"\n\n"))
    return answer


def after(answer: Answer, last: tuple[int, int] | None) -> Listener:
    reader = Listener()
    answer.attach(reader, last)
    return reader


def test_a_reader_gets_what_comes_with_its_numbers() -> None:
    answer = kept()
    reader = listening(answer)
    answer.feed(b"data: a\n\ndata: b\n\n", 2)
    answer.feed(b"data: c\n\n", 1)
    assert (reader.got, reader.seqs) == (b"data: a\n\ndata: b\n\ndata: c\n\n", [0, 2])


def test_a_late_reader_gets_all_that_was_said_and_then_follows() -> None:
    answer = kept(*events(3))
    reader = listening(answer)
    assert (reader.got, reader.seqs, reader.resets) == (b"".join(events(3)), [0], 0)
    answer.feed(b"data: 3\n\n", 1)
    assert (reader.got, reader.seqs) == (b"".join(events(4)), [0, 3])


@pytest.mark.parametrize("last", range(-1, 8))
def test_a_reader_that_comes_back_gets_exactly_what_it_missed(last: int) -> None:
    said = events(8)
    answer = kept(said[0] + said[1] + said[2], said[3], said[4] + said[5] + said[6] + said[7])
    reader = after(answer, (1, last) if last >= 0 else None)
    assert reader.got == b"".join(said[last + 1 :])
    assert reader.seqs == ([last + 1] if last < 7 else [])


def test_after_the_end_a_reader_gets_the_rest_and_the_end() -> None:
    answer = kept(*events(4))
    answer.finish(END)
    reader = after(answer, (1, 1))
    assert (reader.got, reader.ends) == (b"data: 2\n\ndata: 3\n\n", [END])
    assert answer.readers == []


def test_a_reader_of_an_earlier_try_is_told_to_forget_and_gets_the_whole_new_answer() -> None:
    answer = kept(*events(3), try_no=2)
    reader = after(answer, (1, 1))
    assert (reader.resets, reader.got) == (1, b"".join(events(3)))
    fresh = after(answer, None)
    assert fresh.resets == 0


def test_the_first_try_voids_nothing_and_another_one_what_was_said() -> None:
    answer = Answer(keep=True)
    reader = listening(answer)
    answer.restart(1)
    assert reader.resets == 0
    answer.feed(b"data: a\n\n", 1)
    answer.restart(3)
    assert (reader.resets, reader.got, answer.events, answer.chunks) == (1, b"", 0, [])
    answer.feed(b"data: b\n\n", 1)
    assert (reader.got, reader.seqs) == (b"data: b\n\n", [0])


def test_an_answer_that_is_not_kept_is_followed_but_not_remembered() -> None:
    answer = Answer(try_no=1)
    first = listening(answer)
    answer.feed(b"data: a\n\n", 1)
    late = listening(answer)
    answer.feed(b"data: b\n\n", 1)
    assert (first.got, late.got, answer.chunks) == (b"data: a\n\ndata: b\n\n", b"data: b\n\n", [])


def test_a_whole_body_is_one_event_whatever_it_contains() -> None:
    body = b'{"a": 1,\n\n"b": 2,\n\n"c": 3}\n\n'
    answer = Answer(keep=True, try_no=1, content_type="application/json")
    answer.feed(body, 1)
    assert after(answer, None).got == body
    assert after(answer, (1, 0)).got == b""


def test_a_reader_that_leaves_gets_nothing_more_and_may_leave_twice() -> None:
    answer = kept()
    gone, stays = listening(answer), listening(answer)
    answer.detach(gone)
    answer.detach(gone)
    answer.feed(b"data: a\n\n", 1)
    answer.tell(State(state=JobState.WORKING))
    answer.finish(END)
    assert (gone.got, gone.states, gone.ends) == (b"", [], [])
    assert (stays.got, len(stays.states), stays.ends) == (b"data: a\n\n", 1, [END])


def test_a_reader_that_leaves_in_the_middle_takes_nothing_from_the_others() -> None:
    class Leaver(Listener):
        def content(self, events: bytes, seq: int) -> None:
            super().content(events, seq)
            answer.detach(self)

    answer = kept()
    leaver, other = Leaver(), Listener()
    answer.attach(leaver)
    answer.attach(other)
    for data in events(3):
        answer.feed(data, 1)
    assert (leaver.got, other.got) == (b"data: 0\n\n", b"".join(events(3)))


def test_the_source_waits_while_any_reader_blocks_and_goes_on_when_the_last_lets_go() -> None:
    answer = kept()
    gate = answer.gate = _Gate()
    one, two = listening(answer), listening(answer)
    answer.block(one)
    answer.block(two)
    answer.unblock(one)
    answer.unblock(one)
    assert "resume" not in gate.moves
    answer.detach(two)
    assert gate.moves[-1] == "resume"
    assert gate.moves.count("resume") == 1
    answer.gate = None
    answer.block(one)
    answer.unblock(one)


SIZES = st.lists(st.integers(1, 5), max_size=10)


@given(SIZES, SIZES, st.integers(-1, 60), st.booleans())
def test_however_the_answer_was_cut_and_wherever_a_reader_comes_back_nothing_is_missing_or_double(
    before: list[int], later: list[int], last: int, ends: bool
) -> None:
    total = sum(before) + sum(later)
    said = [*events(total - 1), DONE] if total else []
    last = min(last, sum(before) - 1)
    answer = Answer(keep=True, try_no=3, content_type="text/event-stream")
    first = listening(answer)
    fed = 0

    def feed(sizes: list[int]) -> None:
        nonlocal fed
        for size in sizes:
            answer.feed(b"".join(said[fed : fed + size]), size)
            fed += size

    feed(before)
    had = b"".join(said[: last + 1])  # what the client keeps of its first connection
    reader = after(answer, (3, last) if last >= 0 else None)
    feed(later)
    if ends:
        answer.finish(END)
    assert had + reader.got == b"".join(said)
    assert first.got == b"".join(said)
    assert reader.resets == 0
    numbers = iter(reader.seqs)
    assert next(numbers, last + 1) == last + 1
    assert all(seq >= sum(before) for seq in numbers)
    assert len(reader.ends) == ends


@given(SIZES, st.tuples(st.integers(0, 5), st.integers(0, 99)))
def test_any_last_event_id_is_answered_without_a_fault(sizes: list[int], last: tuple[int, int]) -> None:
    said = events(sum(sizes))
    answer = kept(try_no=2)
    fed = 0
    for size in sizes:
        answer.feed(b"".join(said[fed : fed + size]), size)
        fed += size
    reader = after(answer, last)
    same = last[0] == 2
    assert reader.resets == (not same)
    assert reader.got == b"".join(said[last[1] + 1 :] if same else said)


def test_a_chunk_of_a_stream_counts_its_events() -> None:
    answer = Answer()
    said = chunk(role=True) + chunk("a") + DONE
    answer.feed(said, said.count(b"\n\n"))
    assert answer.events == 3
