"""The reader of a peer's answer: whatever bytes come, it gives on whole OpenAI events or a fault."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.engines.base import Call, Kind, Reply
from router.engines.peer_stream import SECONDS_MAX, STATES_MAX, WHY_MAX, PeerStream
from router.peer_client import PeerFault
from router.states import JobState
from router.wire import State
from tests.fakes import DONE, chunk, pieces
from tests.fakes_peer import RECEIPT, told

GOOD = [b": accepted\n\n", chunk(role=True), chunk("Hel"), b": beat\n\n", chunk("lo"), chunk(finish="stop")]


def reading(*, streamed: bool = True) -> tuple[PeerStream, list[int]]:
    answered: list[int] = []
    reply = Reply(200, "text/event-stream", pieces())
    call = Call(Kind.CHAT, "m", b"{}", streamed)
    return PeerStream("studio", call, reply, lambda: answered.append(1)), answered


@given(st.lists(st.integers(1, 400), max_size=20))
def test_an_answer_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    said = b"".join([*GOOD, told("facts", RECEIPT), DONE])
    stream, answered = reading()
    got, at = b"", 0
    for size in [*cuts, len(said)]:
        if at < len(said):
            stream.feed(said[at : at + size])
            at += size
            got += stream.take()
    assert got == b"".join(event for event in [*GOOD[1:], DONE] if not event.startswith(b":"))
    assert (stream.ended, stream.fault, answered) == (True, None, [1])


@given(st.lists(st.sampled_from([*GOOD, told("facts", RECEIPT), DONE]) | st.binary(max_size=60), max_size=12))
def test_garbage_is_a_fault_or_nothing_and_never_passed_on(said: list[bytes]) -> None:
    stream, _ = reading()
    got = b""
    try:
        for piece in said:
            stream.feed(piece)
            got += stream.take()
            if stream.fault is not None:
                break
    except PeerFault:
        got += stream.take()
    for event in filter(None, got.split(b"\n\n")):
        assert event.startswith(b"data: ")
        payload = event.removeprefix(b"data: ")
        assert payload == b"[DONE]" or isinstance(json.loads(payload), dict)
    assert got.count(b"[DONE]") <= 1


def test_news_of_one_job_are_bounded() -> None:
    stream, _ = reading()
    stream.feed(b": accepted\n\n")
    news = told("state", State(state=JobState.QUEUED, place=1))
    stream.feed(news * STATES_MAX)
    with pytest.raises(PeerFault, match="without end"):
        stream.feed(news)


@pytest.mark.parametrize("number", [10**400, 2**63, -1])
def test_numbers_that_can_not_be_true_are_none(number: int) -> None:
    stream, _ = reading()
    wrong = {"prompt_tokens": number, "cached_tokens": number, "completion_tokens": number, "tokens_per_s": 1e308}
    facts = msgspec.to_builtins(RECEIPT) | wrong | {"queued_s": 1e308, "loading_s": -1.0}
    stream.feed(b"".join([*GOOD, b"event: facts\ndata: %b\n\n" % json.dumps(facts).encode(), DONE]))
    told = stream._reply.facts
    assert told is not None
    assert (told.prompt_tokens, told.cached_tokens, told.completion_tokens, told.tokens_per_s) == (None,) * 4
    assert (told.queued_s, told.loading_s) == (SECONDS_MAX, 0.0)
    assert (stream.ended, told.node) == (True, RECEIPT.node)


def test_news_are_told_in_words_and_numbers_that_can_be_shown() -> None:
    heard: list[State] = []
    call = Call(Kind.CHAT, "m", b"{}", True, told=heard.append)
    stream = PeerStream("studio", call, Reply(200, "text/event-stream", pieces()), lambda: None)
    odd = {"state": "loading", "place": 10**400, "eta_s": -1.0, "loading_pct": 999, "why": "x\n\ndata: {}" * 99}
    stream.feed(b": accepted\n\nevent: state\ndata: %b\n\n" % json.dumps(odd).encode())
    (state,) = heard
    assert (state.place, state.eta_s, state.loading_pct, len(state.why)) == (None, None, 100, WHY_MAX)
    assert "\n" not in state.why


def test_what_comes_after_the_end_is_not_read() -> None:
    stream, _ = reading()
    stream.feed(b"".join([*GOOD, DONE, chunk("more"), DONE]))
    assert stream.take().count(b"[DONE]") == 1
    stream.feed(chunk("more"))
    assert (stream.take(), stream.ended) == (b"", True)


def test_a_role_alone_is_no_answer_yet_and_an_empty_answer_is_one() -> None:
    stream, answered = reading()
    stream.feed(b"".join(GOOD[:2]))
    assert (stream.content, answered) == (False, [])
    stream.feed(chunk(finish="stop") + told("facts", RECEIPT) + DONE)
    assert (stream.ended, answered) == (True, [1])


def test_a_whole_body_ends_only_with_the_end() -> None:
    stream, answered = reading(streamed=False)
    stream.feed(b": accepted\n\n" + told("body", {"a": 1}))
    assert (stream.take(), stream.ended) == (b'{"a":1}', False)
    stream.feed(DONE)
    assert (stream.take(), stream.ended, answered) == (b"", True, [1])
