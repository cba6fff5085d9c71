"""From a body to one checked request: raw bytes kept, engine internals dropped, faults named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.engines.base import Kind
from router.errors import BadRequestError
from router.web.canonical import Checked, check, model_name, with_fields, with_model
from router.web.strict_json import decode

CHAT: dict[str, Any] = {"model": "smol", "messages": [{"role": "user", "content": "hi"}]}


def checked(body: dict[str, Any], kind: Kind = Kind.CHAT) -> Checked:
    raw = json.dumps(body).encode()
    return check(kind, decode(raw), raw)


def refused(body: dict[str, Any], kind: Kind = Kind.CHAT) -> BadRequestError:
    with pytest.raises(BadRequestError) as caught:
        checked(body, kind)
    assert caught.value.field is not None
    assert caught.value.field.partition("[")[0].partition(".")[0] in caught.value.message
    return caught.value


def test_a_body_in_which_nothing_changed_keeps_its_bytes() -> None:
    raw = b'{ "messages":[{"role":"user","content":"h\\u00e9"}],\n"model":"smol", "temperature":0.70 }'
    found = check(Kind.CHAT, decode(raw), raw)
    assert found.body is raw
    assert (found.kind, found.model, found.stream, found.dropped) == (Kind.CHAT, "smol", False, ())
    assert found.prompt_bytes == 3


@pytest.mark.parametrize(
    "name",
    [
        "n_discard",
        "n_keep",
        "id_slot",
        "slot_id",
        "cache_prompt",
        "grammar",
        "grammar_lazy",
        "lora",
        "json_schema",
        "samplers",
        "n_probs",
        "post_sampling_probs",
        "n_predict",
        "n_cache_reuse",
        "t_max_predict_ms",
        "ignore_eos",
        "chat_template",
        "model_path",
        "input_prefix",
        "return_tokens",
        "timings_per_token",
        "speculative.n_max",
        "store",
        "metadata",
        "x_unknown",
    ],
)
def test_fields_that_are_not_documented_never_reach_an_engine(name: str) -> None:
    found = checked({**CHAT, name: 1, "seed": 7})
    assert json.loads(found.body) == {**CHAT, "seed": 7}
    assert found.dropped == (name,)


def test_documented_fields_pass() -> None:
    body = {
        **CHAT,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "top_p": 1,
        "top_k": 40,
        "min_p": 0.05,
        "typical_p": 1.0,
        "n": 2,
        "max_tokens": 20,
        "presence_penalty": -2,
        "frequency_penalty": 2.0,
        "repeat_penalty": 1.1,
        "seed": -1,
        "stop": ["a", "b"],
        "logit_bias": {"15043": -100, "1": 2.5},
        "logprobs": True,
        "top_logprobs": 20,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "chat_template_kwargs": {"enable_thinking": False},
        "user": "me",
    }
    raw = json.dumps(body).encode()
    found = check(Kind.CHAT, decode(raw), raw)
    assert found.body is raw
    assert found.stream
    assert found.include_usage
    assert found.max_tokens == 20
    assert found.needs == {"tools"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("temperature", value) for value in (-0.1, 2.1, "1", True, [])],
        *[("top_p", value) for value in (-0.01, 1.01, "x")],
        *[("min_p", value) for value in (-1, 2)],
        *[("top_k", value) for value in (-2, 1.5, "1", 10**9)],
        *[("n", value) for value in (0, 9, 1.0, "1", True)],
        *[("max_tokens", value) for value in (0, -2, 1_000_001, 1.5, "10", True)],
        *[("max_completion_tokens", value) for value in (0, 1_000_001)],
        *[("presence_penalty", value) for value in (-2.1, 2.1, None.__class__.__name__)],
        *[("frequency_penalty", value) for value in (-3, 3)],
        *[("repeat_penalty", value) for value in (-1, 11)],
        *[("seed", value) for value in (1.5, "1", True)],
        *[("stop", value) for value in (1, [1], ["a"] * 33, "x" * 5000, {})],
        *[("stream", value) for value in ("true", 1, {})],
        *[("stream_options", value) for value in ([], {"include_usage": 1})],
        *[("logprobs", value) for value in (1, "true")],
        *[("top_logprobs", value) for value in (-1, 21, 1.5)],
        *[("logit_bias", value) for value in ([], {"a": 1}, {"1": 101}, {"1": "x"}, {"1": True})],
        *[("response_format", value) for value in ("json", {}, {"type": "xml"}, {"type": "json_schema"})],
        ("response_format", {"type": "json_schema", "json_schema": {"name": "x"}}),
        ("response_format", {"type": "json_object", "schema": []}),
        *[("tools", value) for value in ({}, [1], [{"type": "x"}], [{"type": "function", "function": {}}])],
        ("tools", [{"type": "function", "function": {"name": "a b"}}]),
        ("tools", [{"type": "function", "function": {"name": "f\r\nX: y"}}]),
        ("tools", [{"type": "function", "function": {"name": "f", "parameters": []}}]),
        ("tools", [{"type": "function", "function": {"name": "f", "description": 1}}]),
        *[("tool_choice", value) for value in ("some", 1, {"type": "function"}, [])],
        *[("chat_template_kwargs", value) for value in ([], {"a": {}}, {"a": []})],
        ("modalities", ["text", "audio"]),
        ("user", 1),
        ("reasoning_effort", {"a": 1}),
    ],
)
def test_a_field_out_of_range_is_refused_by_name(field: str, value: Any) -> None:
    error = refused({**CHAT, field: value})
    assert error.code == "bad_request"
    assert (error.field or "").startswith(field)


@pytest.mark.parametrize(
    "messages",
    [
        None,
        [],
        {},
        "hi",
        [1],
        [{}],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": 1}],
        [{"role": "user", "content": []}],
        [{"role": "root", "content": "x"}],
        [{"role": ["user"], "content": "x"}],
        [{"role": "user", "content": ["x"]}],
        [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "user", "content": [{"type": "text", "text": 1}]}],
        [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AA"}}]}],
        [{"role": "user", "content": [{"type": "file", "file": {"file_id": "x"}}]}],
        [{"role": "user", "content": "x", "name": 1}],
        [{"role": "assistant", "tool_calls": {}}],
        [{"role": "assistant", "tool_calls": [{"function": {"name": "a b"}}]}],
        [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 1}}]}],
        [{"role": "tool", "content": "x", "tool_call_id": 1}],
    ],
)
def test_malformed_messages_are_refused(messages: Any) -> None:
    body = {"model": "smol", "messages": messages}
    assert (refused(body).field or "").startswith("messages")


def test_messages_with_tools_images_and_sound_pass_and_say_what_they_need() -> None:
    image = "data:image/png;base64,iVBORw0KGgo="
    found = checked(
        {
            "model": "smol",
            "messages": [
                {"role": "system", "content": "äö"},
                {"role": "developer", "content": [{"type": "text", "text": "abc"}]},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": image, "detail": "low"}}]},
                {"role": "user", "content": [{"type": "image_url", "image_url": image}]},
                {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}]},
                {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
                {"role": "tool", "tool_call_id": "1", "content": "ok"},
            ],
        }
    )
    assert found.needs == {"vision", "audio"}
    assert found.prompt_bytes == 4 + 3 + 2 + 2


@pytest.mark.parametrize(
    "address",
    [
        "http://192.168.1.1/a.png",
        "https://example.org/a.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "data:text/html;base64,AAAA",
        "data:image/svg+xml;base64,AAAA",
        "data:image/png,raw",
        "",
    ],
)
def test_an_image_that_the_engine_would_have_to_fetch_is_refused(address: str) -> None:
    parts = [{"type": "image_url", "image_url": {"url": address}}]
    error = refused({"model": "smol", "messages": [{"role": "user", "content": parts}]})
    assert error.field == "messages[0].content[0].image_url"
    assert address == "" or address not in error.message


@pytest.mark.parametrize(
    "name", ["smol", "hf.co/org/Model-GGUF:Q4_K_M", "llama3.2:3b", "gpt-oss@studio", "a" * 200, "A+b", "0x", "a_b-c.d"]
)
def test_names_of_models_pass(name: str) -> None:
    assert model_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        None,
        "",
        1,
        [],
        "a\r\nX-Evil: 1",
        "a\n",
        "a\r",
        "a\x00",
        "a b",
        " a",
        "-a",
        "/etc/passwd",
        "../x",
        "a/../../etc/passwd",
        "a" * 201,
        "a\u202eb",
        "ä",
        "a;b",
        "a?b",
        "a%0d",
        "a\\b",
        "<script>",
    ],
)
def test_what_is_no_name_of_a_model_is_refused_and_not_repeated(name: Any) -> None:
    error = refused({**CHAT, "model": name})
    assert error.field == "model"
    assert "\r" not in error.message
    assert "\n" not in error.message
    if isinstance(name, str) and len(name) > 3:
        assert name not in error.message


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_minus_one_is_no_bound(field: str) -> None:
    found = checked({**CHAT, field: -1})
    assert found.max_tokens is None
    assert json.loads(found.body) == CHAT


def test_the_newer_name_of_the_bound_is_given_in_the_older_one_too() -> None:
    found = checked({**CHAT, "max_completion_tokens": 5})
    assert found.max_tokens == 5
    assert json.loads(found.body)["max_tokens"] == 5
    assert checked({**CHAT, "max_completion_tokens": 5, "max_tokens": 9}).max_tokens == 9


def test_null_is_as_good_as_absent() -> None:
    body = {**CHAT, "temperature": None, "stop": None, "tools": None, "max_tokens": None, "stream": None}
    found = checked(body)
    assert json.loads(found.body) == body
    assert (found.stream, found.max_tokens, found.needs) == (False, None, frozenset())


@pytest.mark.parametrize("prompt", ["x", ["x", "y"], [1, 2, 3], [[1, 2], [3]], ""])
def test_prompts_of_completions_pass(prompt: Any) -> None:
    assert checked({"model": "smol", "prompt": prompt, "suffix": "z", "echo": True}, Kind.COMPLETION).model == "smol"


@pytest.mark.parametrize("prompt", [None, [], 1, {}, [[]], [1, "x"], [[1], "x", {}], [-1], [1.5], [True]])
@pytest.mark.parametrize(("kind", "field"), [(Kind.COMPLETION, "prompt"), (Kind.EMBEDDING, "input")])
def test_prompts_of_no_known_form_are_refused(prompt: Any, kind: Kind, field: str) -> None:
    assert (refused({"model": "smol", field: prompt}, kind).field or "").startswith(field)


def test_embeddings_never_stream() -> None:
    found = checked({"model": "smol", "input": ["a", "b"], "encoding_format": "float", "stream": True}, Kind.EMBEDDING)
    assert not found.stream
    assert found.dropped == ("stream",)


def test_the_model_is_renamed_without_touching_the_rest() -> None:
    raw = b'{"model": "smol", "x": 0.10, "messages": [ {"role":"user"} ]}'
    assert with_model(raw, "smol", "smol") is raw
    renamed = with_model(raw, "smol", 'file "1".gguf')
    assert json.loads(renamed) == {**json.loads(raw), "model": 'file "1".gguf'}
    assert b'[ {"role":"user"} ]' in renamed
    assert b"0.10" in renamed


def test_fields_are_set_without_touching_the_rest() -> None:
    raw = b'{"model": "smol", "stream": false, "x": 1.50}'
    changed = with_fields(raw, stream=True, stream_options={"include_usage": True})
    assert json.loads(changed) == {
        "model": "smol",
        "stream": True,
        "x": 1.5,
        "stream_options": {"include_usage": True},
    }
    assert b"1.50" in changed
