"""Ollama's shapes and the canonical ones: what a request becomes, what an answer becomes, and what garbage becomes."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.engines.base import Kind
from router.errors import BadRequestError, EngineFault, failure
from router.states import JobState
from router.web.canonical import check
from router.web.ollama_shapes import OllamaStream, keep_alive_s, stamp, tag, to_canonical, whole
from router.wire import Ended, ModelInfo, State
from tests.fakes import DONE, chunk, event, make_job, short, stream

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n....").decode()
RFC3339 = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")


def lines(data: bytes) -> list[dict[str, Any]]:
    assert data == b"" or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def spoken(*events: bytes, chat: bool = True) -> list[dict[str, Any]]:
    said = OllamaStream(make_job(), chat=chat)
    return lines(b"".join(said.content(part) for part in events))


# -- requests


def test_a_chat_becomes_a_chat_completion() -> None:
    asked = {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "options": {
            "temperature": 0.5,
            "top_k": 40,
            "num_predict": 64,
            "stop": ["\n"],
            "seed": 7,
            "num_ctx": 4096,
            "mirostat": None,
        },
        "format": "json",
    }
    made = to_canonical(asked, chat=True)
    assert made == {
        "model": "m",
        "stream": True,
        "messages": asked["messages"],
        "temperature": 0.5,
        "top_k": 40,
        "max_tokens": 64,
        "stop": ["\n"],
        "seed": 7,
        "response_format": {"type": "json_object"},
    }
    checked = check(Kind.CHAT, made, json.dumps(made).encode())
    assert (checked.model, checked.stream, checked.max_tokens) == ("m", True, 64)


@pytest.mark.parametrize(
    ("stream_field", "streams"), [({}, True), ({"stream": True}, True), ({"stream": False}, False)]
)
def test_an_answer_streams_unless_it_was_asked_not_to(stream_field: dict[str, bool], streams: bool) -> None:
    assert to_canonical({"model": "m", "messages": []} | stream_field, chat=True)["stream"] is streams


def test_a_prompt_becomes_messages() -> None:
    made = to_canonical({"model": "m", "prompt": "Why?", "system": "You are a child.", "images": [PNG]}, chat=False)
    assert made["messages"] == [
        {"role": "system", "content": "You are a child."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Why?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("field", "canonical"),
    [
        (
            {"format": {"type": "object"}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "format", "schema": {"type": "object"}},
                }
            },
        ),
        ({"think": True}, {"chat_template_kwargs": {"enable_thinking": True}}),
        ({"think": "high"}, {"reasoning_effort": "high"}),
        ({"options": {"num_predict": -1}}, {}),
        ({"format": ""}, {}),
        (
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
        ),
    ],
)
def test_what_ollama_calls_otherwise_is_translated(field: dict[str, Any], canonical: dict[str, Any]) -> None:
    made = to_canonical({"model": "m", "messages": []} | field, chat=True)
    assert made == {"model": "m", "stream": True, "messages": []} | canonical


def test_a_tool_call_and_its_result_keep_their_bond() -> None:
    messages = [
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]},
        {"role": "tool", "content": "2", "tool_name": "f"},
    ]
    call, result = to_canonical({"model": "m", "messages": messages}, chat=True)["messages"]
    assert call["tool_calls"] == [
        {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    ]
    assert (result["role"], result["content"], result["tool_call_id"]) == ("tool", "2", "f")


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"messages": "hi"}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": ["hi"]}, "messages"),
        ({"messages": [], "options": [1]}, "options"),
        ({"messages": [{"role": "user", "images": "x"}]}, "messages.images"),
        ({"messages": [{"role": "user", "images": ["no base64!"]}]}, "messages.images"),
        ({"messages": [{"role": "user", "images": [base64.b64encode(b"MZ program").decode()]}]}, "messages.images"),
        ({"messages": [{"role": "user", "images": [7]}]}, "messages.images"),
        ({"messages": [{"role": "assistant", "tool_calls": 7}]}, "tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": ["f"]}]}, "messages.tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": "f"}]}]}, "messages.tool_calls"),
    ],
)
def test_a_wrong_chat_is_refused_and_the_field_named(asked: dict[str, Any], field: str) -> None:
    with pytest.raises(BadRequestError) as raised:
        to_canonical({"model": "m"} | asked, chat=True)
    assert raised.value.field == field


@pytest.mark.parametrize("asked", [{"prompt": 7}, {"prompt": "x", "system": [1]}])
def test_a_prompt_that_is_no_text_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError):
        to_canonical({"model": "m"} | asked, chat=False)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (None, None),
        (0, 0.0),
        (300, 300.0),
        (1.5, 1.5),
        (-1, -1.0),
        ("300", 300.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("500ms", 0.5),
        ("-1", -1.0),
        ("-1m", -60.0),
        (" 24h ", 86_400.0),
    ],
)
def test_keep_alive_is_seconds_or_a_duration(said: object, seconds: float | None) -> None:
    assert keep_alive_s(said) == seconds


@pytest.mark.parametrize(
    "said", ["", "soon", "5 minutes", "1d", "5m!", "1h-5m", "٣m", "9" * 400, 10**400, True, [], {}]
)
def test_any_other_keep_alive_is_refused(said: object) -> None:
    with pytest.raises(BadRequestError) as raised:
        keep_alive_s(said)
    assert raised.value.field == "keep_alive"


# -- streams


def test_a_stream_becomes_one_line_an_event_and_a_last_line_with_the_counts() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2}
    got = spoken(stream("Hel", "lo", usage=usage))
    assert [line["message"]["content"] for line in got] == ["Hel", "lo", ""]
    assert [line["done"] for line in got] == [False, False, True]
    assert all(line["model"] == "m" and RFC3339.match(line["created_at"]) for line in got)
    last = got[-1]
    assert (last["done_reason"], last["prompt_eval_count"], last["eval_count"]) == ("stop", 5, 2)
    assert all(isinstance(last[name], int) and last[name] >= 0 for name in last if name.endswith("_duration"))


def test_generate_has_its_text_in_response() -> None:
    got = spoken(stream("Hi"), chat=False)
    assert [line["response"] for line in got] == ["Hi", ""]
    assert all("message" not in line for line in got)


def test_reasoning_is_thinking() -> None:
    thought = event({"choices": [{"delta": {"reasoning_content": "hm"}}]})
    got = spoken(thought + chunk("so") + DONE)
    assert (got[0]["message"]["thinking"], got[0]["message"]["content"], got[1]["message"]["content"]) == (
        "hm",
        "",
        "so",
    )


def test_tool_calls_that_come_in_pieces_are_told_whole() -> None:
    pieces = [
        {"index": 0, "id": "a", "function": {"name": "add", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"x": '}},
        {"index": 1, "id": "b", "function": {"name": "sub", "arguments": "not JSON"}},
        {"index": 0, "function": {"arguments": "1}"}},
    ]
    got = spoken(*(event({"choices": [{"delta": {"tool_calls": [piece]}}]}) for piece in pieces), DONE)
    assert len(got) == 1
    assert got[0]["message"]["tool_calls"] == [
        {"function": {"name": "add", "arguments": {"x": 1}}},
        {"function": {"name": "sub", "arguments": {}}},
    ]


def test_an_answer_cut_by_its_length_says_so() -> None:
    assert spoken(chunk("a") + chunk(finish="length") + DONE)[-1]["done_reason"] == "length"


def test_timings_become_nanoseconds() -> None:
    timings = {"prompt_ms": 12.5, "predicted_ms": 100, "predicted_n": 9, "prompt_n": 4}
    last = spoken(chunk("a") + event({"choices": [], "timings": timings}) + DONE)[-1]
    assert (last["prompt_eval_duration"], last["eval_duration"], last["eval_count"]) == (12_500_000, 100_000_000, 9)


def test_waiting_is_a_line_that_adds_nothing_and_does_not_end() -> None:
    said = OllamaStream(make_job(), chat=True)
    (line,) = lines(said.waiting(State(state=JobState.QUEUED, place=2)))
    assert (line["message"], line["done"]) == ({"role": "assistant", "content": ""}, False)


def test_an_answer_that_breaks_off_ends_in_an_error_line_and_a_whole_one_in_nothing_more() -> None:
    said = OllamaStream(make_job(), chat=True)
    said.content(chunk("half"))
    broken = Ended(state=JobState.FAILED, error=failure("interrupted", "It broke off."))
    (line,) = lines(said.last(broken))
    assert (line["error"], line["code"]) == ("It broke off.", "interrupted")
    assert said.last(Ended(state=JobState.DONE)) == b""


def test_the_last_line_comes_once() -> None:
    said = OllamaStream(make_job(), chat=True)
    assert len(lines(said.content(DONE))) == 1
    assert said.content(DONE) == b""


# -- whole answers


def test_a_completion_becomes_one_object() -> None:
    message = {"content": "Hi", "reasoning": "hm", "tool_calls": [{"function": {"name": "f", "arguments": '{"a":1}'}}]}
    body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"completion_tokens": 3}})
    got = whole(body.encode(), make_job(), chat=True)
    assert got["message"] == {
        "role": "assistant",
        "content": "Hi",
        "thinking": "hm",
        "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}],
    }
    assert (got["done"], got["done_reason"], got["eval_count"]) == (True, "stop", 3)
    assert whole(body.encode(), make_job(), chat=False)["response"] == "Hi"


@pytest.mark.parametrize("body", [b"", b"nonsense", b'{"choices": ["\xff"]}', b'{"a":' + b"[" * 100_000], ids=short)
def test_a_body_that_is_not_json_is_the_engines_fault(body: bytes) -> None:
    with pytest.raises(EngineFault):
        whole(body, make_job(), chat=True)


# -- models


def test_a_model_is_listed_as_ollama_lists_it() -> None:
    model = ModelInfo(
        name="llama3.2:1b",
        node="n",
        node_name="studio",
        local=True,
        engine="e",
        digest="abc",
        size_bytes=7,
        family="llama",
        parameters="1B",
        quantisation="Q4_K_M",
        modified_at=0.0,
    )
    assert tag(model) == {
        "name": "llama3.2:1b",
        "model": "llama3.2:1b",
        "modified_at": "1970-01-01T00:00:00Z",
        "size": 7,
        "digest": "abc",
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "1B",
            "quantization_level": "Q4_K_M",
        },
    }
    assert RFC3339.match(stamp(1_700_000_000.25))


# -- anything at all

NAMES = [
    "model", "messages", "prompt", "system", "role", "content", "images", "tool_calls", "function", "name", "arguments",
    "options", "num_predict", "format", "think", "stream", "tools", "choices", "delta", "message", "usage", "timings",
    "prompt_ms", "predicted_n", "index", "finish_reason", "reasoning",
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=15,
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES), JSON, max_size=6)


@settings(max_examples=300, deadline=None)
@given(OBJECTS, st.booleans())
def test_any_request_becomes_canonical_or_is_refused(asked: dict[str, Any], chat: bool) -> None:
    try:
        made = to_canonical(asked, chat=chat)
    except BadRequestError:
        return
    json.dumps(made)
    assert isinstance(made["messages"], list)


@settings(max_examples=300, deadline=None)
@given(st.lists(JSON, max_size=4), st.booleans())
def test_any_events_become_lines(payloads: list[Any], chat: bool) -> None:
    got = spoken(*(event(payload) for payload in payloads), b"data: {broken\n\n", b": comment\n\n", DONE, chat=chat)
    assert [line["done"] for line in got] == [False] * (len(got) - 1) + [True]


@settings(max_examples=300, deadline=None)
@given(JSON, st.booleans())
def test_any_body_becomes_an_answer(body: Any, chat: bool) -> None:
    got = whole(json.dumps(body).encode(), make_job(), chat=chat)
    assert got["done"] is True
    json.dumps(got)
