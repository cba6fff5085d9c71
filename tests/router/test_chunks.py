"""What an engine's answer says: content, errors, counts, a stream made whole; and that garbage says nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.chunks import (
    PLACES_MAX,
    assemble,
    error_sentence,
    has_content,
    last_facts,
    numbers,
    payloads,
    sentence,
    stream_error,
)
from tests.fakes import DONE, chunk, event, short, stream

GARBAGE = [
    b"",
    b": comment\n\n",
    b"event: x\n\n",
    b"data: \n\n",
    b"data: {broken\n\n",
    b'data: "\xff"\n\n',
    b"data: " + b"[" * 100_000 + b"\n\n",
    b"data: 7\n\n",
    b"data: null\n\n",
    b'data: {"choices": 7}\n\n',
    b'data: {"choices": [7]}\n\n',
    b'data: {"choices": [{"delta": "x"}]}\n\n',
    b'data: {"choices": {"delta": {"content": "x"}}}\n\n',
    b'data: {"usage": 7, "timings": "x"}\n\n',
]


def test_payloads_are_the_data_without_the_end_mark() -> None:
    events = b'event: x\nid: 1\ndata: {"a":1}\n\n: ping\n\ndata:{"b":2}\n\n' + DONE
    assert payloads(events) == [b'{"a":1}', b'{"b":2}']


@pytest.mark.parametrize("events", [chunk(role=True), chunk(), chunk(finish="stop"), DONE, *GARBAGE], ids=short)
def test_a_role_an_end_and_garbage_are_no_content(events: bytes) -> None:
    assert not has_content(events)


@pytest.mark.parametrize(
    "choice",
    [
        {"delta": {"content": "x"}},
        {"delta": {"content": " "}},
        {"delta": {"reasoning_content": "x"}},
        {"delta": {"reasoning": "x"}},
        {"delta": {"refusal": "x"}},
        {"delta": {"tool_calls": [{}]}},
        {"text": "x"},
    ],
)
def test_text_reasoning_tool_calls_and_completions_are_content(choice: dict[str, Any]) -> None:
    said = event({"choices": [choice]})
    assert has_content(said)
    assert has_content(chunk(role=True) + b"data: {broken\n\n" + said + DONE)


@pytest.mark.parametrize("events", [stream('"error"', '{"error": 1}'), event({"error": None}), *GARBAGE], ids=short)
def test_words_about_errors_and_garbage_are_no_error(events: bytes) -> None:
    assert stream_error(events) is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ({"message": "out of\nmemory"}, "out of memory"),
        ("no", "no"),
        ({"code": 7}, "The engine reports an error."),
        ([], "The engine reports an error."),
    ],
)
def test_an_error_is_found_with_the_events_before_it(error: object, said: str) -> None:
    before = chunk("half") + b": ping\n\n"
    found = stream_error(before + event({"error": error}) + chunk("never"))
    assert found is not None
    assert (found[0], found[1].code, found[1].message) == (before, "engine_failed", said)


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b'"\xff"', b"[" * 100_000, b"[1]", b"7", b"{}", b'{"error": 7}'], ids=short
)
def test_a_body_without_a_sentence_says_nothing(body: bytes) -> None:
    assert error_sentence(body) == ""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "Too long."}}', "Too long."),
        (b'{"error": "Too long."}', "Too long."),
        (b'{"message": "Too long."}', "Too long."),
    ],
)
def test_the_sentence_of_an_error_is_found_in_every_shape(body: bytes, said: str) -> None:
    assert error_sentence(body) == said


def test_a_sentence_is_one_short_printable_line() -> None:
    assert sentence("a\x1b[31m\r\n\tb" + "\u202e" + "x" * 1000) == ("a [31m b " + "x" * 1000)[:300]


# -- numbers


def test_counts_come_from_usage_else_from_timings() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}
    timings = {"prompt_n": 3, "cache_n": 6, "predicted_n": 7, "prompt_per_second": 100.5, "predicted_per_second": 20}
    assert numbers({"usage": usage, "timings": timings}) == {
        "prompt_tokens": 9,
        "cached_tokens": 5,
        "completion_tokens": 4,
        "prefill_per_s": 100.5,
        "tokens_per_s": 20.0,
    }
    assert numbers({"timings": timings}) == {
        "prompt_tokens": 9,
        "cached_tokens": 6,
        "completion_tokens": 7,
        "prefill_per_s": 100.5,
        "tokens_per_s": 20.0,
    }
    assert numbers({"usage": {"prompt_tokens": 0}, "timings": {"prompt_n": 4}}) == {"prompt_tokens": 0}
    assert numbers({}) == {}


@pytest.mark.parametrize("lie", [None, "12", True, -1, 2**53, 10**300, 1.5, [1], {"n": 1}])
def test_what_cannot_be_a_count_is_none(lie: object) -> None:
    facts = {"usage": {"prompt_tokens": lie, "completion_tokens": lie, "prompt_tokens_details": lie}}
    assert numbers(facts) == {}
    assert numbers({"usage": lie, "timings": lie}) == {}


def test_the_last_facts_of_a_stream_win_whatever_lies_between() -> None:
    events = (
        event({"usage": {"completion_tokens": 1}})
        + b"data: {broken\n\n"
        + event({"usage": None, "timings": {"predicted_n": 2}})
        + event({"usage": {"completion_tokens": 2}})
        + DONE
    )
    assert last_facts(events) == {"usage": {"completion_tokens": 2}, "timings": {"predicted_n": 2}}
    assert last_facts(stream("no numbers")) == {}


# -- a stream made whole


def test_a_stream_adds_up_to_the_answer_without_streaming() -> None:
    whole = assemble(stream("Hel", "lo", usage={"completion_tokens": 2}))
    assert whole["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
    ]
    assert (whole["object"], whole["id"], whole["usage"]) == ("chat.completion", "c1", {"completion_tokens": 2})


def test_completions_choices_reasoning_and_logprobs_add_up() -> None:
    text = event({"choices": [{"index": 0, "text": "a"}]}) + event({"choices": [{"index": 0, "text": "b"}]})
    assert assemble(text)["choices"][0]["text"] == "ab"
    assert assemble(text)["object"] == "text_completion"
    two = event({"choices": [{"index": 1, "delta": {"content": "y"}}, {"index": 0, "delta": {"reasoning": "x"}}]})
    logprobs = event({"choices": [{"index": 0, "delta": {}, "logprobs": {"content": [{"token": "y"}]}}]})
    first, second = assemble(two + logprobs)["choices"]
    assert (first["message"]["reasoning"], first["message"]["content"]) == ("x", None)
    assert first["logprobs"] == {"content": [{"token": "y"}]}
    assert second["message"]["content"] == "y"


def test_tool_calls_in_pieces_add_up() -> None:
    pieces = [
        {"index": 0, "id": "a", "function": {"name": "add", "arguments": ""}},
        {"index": 1, "id": "b", "function": {"name": "sub", "arguments": "{}"}},
        {"index": 0, "function": {"arguments": '{"x":'}},
        {"index": 0, "function": {"arguments": "1}"}},
    ]
    whole = assemble(b"".join(event({"choices": [{"delta": {"tool_calls": [piece]}}]}) for piece in pieces))
    assert whole["choices"][0]["message"]["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "sub", "arguments": "{}"}},
    ]


def test_a_liar_does_not_fill_the_memory_with_places() -> None:
    calls = [{"index": number * 1000, "function": {"name": "x"}} for number in range(500)]
    choices = [{"index": number, "delta": {"tool_calls": calls}} for number in (0, 10**9, -1, 10**30)]
    whole = assemble(event({"choices": choices}))
    assert [choice["index"] for choice in whole["choices"]] == [0]
    assert len(whole["choices"][0]["message"]["tool_calls"]) <= PLACES_MAX


NAMES = ["choices", "index", "delta", "content", "text", "tool_calls", "function", "name", "id", "logprobs", "usage",
         "timings", "error", "message", "prompt_tokens", "finish_reason", "arguments"]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(JSON, max_size=4))
def test_whatever_json_an_engine_sends_nothing_breaks(said: list[Any]) -> None:
    events = b"".join(map(event, said)) + b"".join(GARBAGE) + DONE
    has_content(events)
    stream_error(events)
    assert all(isinstance(value, int | float) and value >= 0 for value in numbers(last_facts(events)).values())
    whole = assemble(events)
    json.dumps(whole)
    assert isinstance(whole["choices"], list)
    for value in said:
        assert len(error_sentence(json.dumps(value).encode())) <= 300
