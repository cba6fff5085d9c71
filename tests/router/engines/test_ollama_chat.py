"""The translation between the canonical chat form and Ollama's."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.engines.base import Call, Kind
from router.engines.ollama_chat import Translator, native_body
from router.errors import EngineFault


def call(stream: bool = True, keep_alive_s: float | None = 60.0, **fields: Any) -> Call:
    return Call(Kind.CHAT, "m", json.dumps({"messages": [], **fields}).encode(), stream, keep_alive_s, "job")


def test_images_tools_and_results_are_carried() -> None:
    function = {"name": "look", "arguments": '{"x": 1}'}
    parts = [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
    ]
    messages = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "c", "name": "look", "content": "seen"},
    ]
    body = native_body(call(messages=messages, tools=[{"type": "function"}]))
    assert body is not None
    assert body["messages"] == [
        {"role": "user", "content": "see", "images": ["QUJD"]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "look", "arguments": {"x": 1}}}],
        },
        {"role": "tool", "content": "seen", "tool_name": "look"},
    ]
    assert body["tools"] == [{"type": "function"}]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"type": "json_object"}, "json"),
        ({"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}, {"type": "object"}),
        ({"type": "text"}, None),
    ],
)
def test_response_formats_are_carried(form: dict[str, Any], expected: Any) -> None:
    body = native_body(call(response_format=form))
    assert body is not None
    assert body.get("format") == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"logprobs": True},
        {"n": 2},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/a.png"}}]}]},
        {"messages": [3]},
        {"messages": 3},
    ],
)
def test_what_the_native_form_cannot_say_stays_with_v1(fields: dict[str, Any]) -> None:
    assert native_body(call(**fields)) is None


def test_a_word_in_a_prompt_is_no_option() -> None:
    messages = [{"role": "user", "content": 'what is "top_k" in "options"?'}]
    assert native_body(call(keep_alive_s=None, messages=messages)) is None


def test_tool_calls_come_out_as_openai_has_them() -> None:
    line = {"message": {"tool_calls": [{"function": {"name": "look", "arguments": {"x": 1}}}]}, "done": True}
    translator = Translator(call(), usage=False)
    first, last, done = translator.events(json.dumps(line).encode()).split(b"\n\n")[:3]
    tool = json.loads(first[6:])["choices"][0]["delta"]["tool_calls"][0]
    assert tool["function"] == {"name": "look", "arguments": '{"x":1}'}
    assert json.loads(last[6:])["choices"][0]["finish_reason"] == "tool_calls"
    assert done == b"data: [DONE]"


def test_an_error_line_is_an_error_event() -> None:
    translator = Translator(call(), usage=False)
    event = translator.events(b'{"error": "out of memory"}')
    assert json.loads(event[6:])["error"]["message"] == "out of memory"
    assert translator.done


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
_CALL = st.fixed_dictionaries({}, optional={"function": _JUNK, "id": _JUNK})
_SAID = st.fixed_dictionaries(
    {}, optional={"content": _JUNK, "thinking": _JUNK, "tool_calls": _JUNK | st.lists(_JUNK | _CALL, max_size=2)}
)
_LINE = st.fixed_dictionaries(
    {},
    optional={"message": _JUNK | _SAID, "done": _JUNK, "done_reason": _JUNK, "eval_count": _JUNK, "error": _JUNK},
)


@settings(max_examples=400)
@given(st.binary(max_size=200) | (_JUNK | _LINE).map(lambda value: json.dumps(value).encode()))
def test_no_line_does_more_than_a_fault(line: bytes) -> None:
    for act in (Translator(call(), usage=True).events, Translator(call(), usage=True).whole):
        with suppress(EngineFault):
            assert isinstance(act(line), bytes)
