"""One answer as Anthropic's events: each block whole, one after the other, and nothing lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.chunks import assemble
from router.errors import failure
from router.states import JobState
from router.web.anthropic_events import AnthropicStream, stop_reason, whole
from router.wire import Ended
from tests.fakes import DONE, chunk, event, make_job, stream

OVER = Ended(state=JobState.DONE, receipt=None, error=None)


def delta(finish: str | None = None, **said: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": said, "finish_reason": finish}]})


def call(index: int, arguments: str = "", **more: Any) -> dict[str, Any]:
    return {"index": index, "function": {"arguments": arguments} | more}


MIXED = b"".join(
    [
        chunk(role=True),
        delta(reasoning_content="I "),
        delta(reasoning_content="think."),
        delta(content="So "),
        delta(content="it is."),
        delta(tool_calls=[call(0, name="f"), call(1, name="g")]),
        delta(tool_calls=[call(1, '{"b":1}')]),
        delta(content="And more."),
        delta(tool_calls=[call(0, '{"a"'), call(0, ":1}")]),
        delta("tool_calls"),
        DONE,
    ]
)


def told(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(one.split(b"data: ", 1)[1]) for one in data.split(b"\n\n")[:-1]]


def dialect(*, thinking: bool = True, stops: list[str] | None = None) -> AnthropicStream:
    return AnthropicStream(make_job(), thinking=thinking, stops=stops or [])


def all_of(made: AnthropicStream, *pieces: bytes, end: Ended = OVER) -> list[dict[str, Any]]:
    return told(b"".join(made.content(piece) for piece in pieces) + made.last(end))


def blocks(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Type and content of each block, built as a client does it; fails where blocks overlap."""
    made: list[tuple[str, str]] = []
    is_open = False
    for one in events:
        match one["type"]:
            case "content_block_start":
                assert not is_open
                assert one["index"] == len(made)
                made.append((one["content_block"]["type"], ""))
                is_open = True
            case "content_block_delta":
                assert is_open
                assert one["index"] == len(made) - 1
                said = {name: value for name, value in one["delta"].items() if name != "type"}
                made[-1] = (made[-1][0], made[-1][1] + "".join(said.values()))
            case "content_block_stop":
                assert one["index"] == len(made) - 1
                is_open = False
    assert not is_open
    return made


def test_blocks_never_overlap_however_the_engine_mixes_them() -> None:
    events = all_of(dialect(), MIXED)

    assert blocks(events) == [
        ("thinking", "I think."),
        ("text", "So it is."),
        ("tool_use", '{"a":1}'),
        ("text", "And more."),
        ("tool_use", '{"b":1}'),
    ]
    assert events[0]["type"] == "message_start"
    assert [one["type"] for one in events][-2:] == ["message_delta", "message_stop"]


@given(cuts=st.sets(st.integers(0, 10)))
@settings(max_examples=50, deadline=None)
def test_however_the_stream_was_cut_its_blocks_are_the_same(cuts: set[int]) -> None:
    parts = [part + b"\n\n" for part in MIXED.split(b"\n\n")[:-1]]
    pieces, piece = [], b""
    for place, part in enumerate(parts):
        piece += part
        if place in cuts:
            pieces.append(piece)
            piece = b""

    assert all_of(dialect(), *pieces, piece) == all_of(dialect(), MIXED)


async def test_thinking_nobody_asked_for_is_no_block_but_a_sign_of_life() -> None:
    events = all_of(dialect(thinking=False), delta(reasoning_content="Hm."), delta(content="Yes."), DONE)

    assert blocks(events) == [("text", "Yes.")]
    assert [one["type"] for one in events][:2] == ["message_start", "ping"]


def test_a_broken_answer_ends_in_an_error_and_not_in_a_stop() -> None:
    end = Ended(state=JobState.FAILED, receipt=None, error=failure("interrupted", "It broke."))

    events = all_of(dialect(), chunk("Half"), end=end)

    assert events[-1]["type"] == "error"
    assert not {"message_delta", "message_stop"} & {one["type"] for one in events}


def test_a_stop_sequence_is_named_where_the_engine_tells_it() -> None:
    ending = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}]})

    said = all_of(dialect(stops=["END"]), chunk("Hi"), ending, DONE)[-2]["delta"]
    other = all_of(dialect(), chunk("Hi"), ending, DONE)[-2]["delta"]

    assert said == {"stop_reason": "stop_sequence", "stop_sequence": "END"}
    assert other == {"stop_reason": "end_turn", "stop_sequence": None}


@pytest.mark.parametrize(
    ("finish", "called", "expected"),
    [
        ("stop", False, "end_turn"),
        ("stop", True, "tool_use"),
        ("tool_calls", True, "tool_use"),
        ("length", True, "max_tokens"),
        ("content_filter", False, "refusal"),
        ("", False, "end_turn"),
    ],
)
def test_why_it_ended_is_said_in_the_words_of_the_api(finish: str, called: bool, expected: str) -> None:
    assert stop_reason(finish, called=called, stop=None) == expected


def test_a_whole_answer_has_the_blocks_of_its_stream() -> None:
    answer = json.dumps(assemble(MIXED)).encode()

    made = whole(answer, make_job(), thinking=True, stops=[])

    assert [block["type"] for block in made["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert [block["input"] for block in made["content"][2:]] == [{"a": 1}, {"b": 1}]
    assert [block["id"] for block in made["content"][2:]] == ["toolu_J00001_0", "toolu_J00001_1"]


@pytest.mark.parametrize(
    "payload",
    [
        b"data: {\n\n",
        b"data: []\n\n",
        event({"choices": "x"}),
        event({"choices": [5]}),
        event({"choices": [{"delta": 5}]}),
        event({"choices": [{"delta": {"content": 5, "tool_calls": "x"}}]}),
        event({"choices": [{"delta": {"tool_calls": [5, {"function": 5}, {"function": {"name": 5}}]}}]}),
        event({"usage": {"prompt_tokens": "x"}, "choices": []}),
    ],
    ids=range(8),
)
def test_whatever_an_engine_sends_the_events_are_whole(payload: bytes) -> None:
    events = all_of(dialect(), payload, stream("Hi"))

    assert ("text", "Hi") in blocks(events)
    assert events[-1]["type"] == "message_stop"


@pytest.mark.parametrize("body", [b"{}", b'{"choices":5}', b'{"choices":[{"message":5}]}',
                                  b'{"choices":[{"message":{"content":5,"tool_calls":[5,{"function":{"arguments":"["}}]}}]}'],
                         ids=range(4))  # fmt: skip
def test_whatever_an_engine_answers_the_message_is_whole(body: bytes) -> None:
    made = whole(body, make_job(), thinking=True, stops=[])

    assert made["role"] == "assistant"
    assert isinstance(made["content"], list)
