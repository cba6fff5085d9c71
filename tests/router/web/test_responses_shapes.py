"""Requests of ``responses`` in canonical form; the object that repeats them."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import Response

from router.errors import BadRequestError
from router.web.responses_shapes import input_items, kept, messages_of, response_of, to_canonical

IMAGE = "data:image/png;base64,AA"
TOOLS = [{"type": "function", "name": name, "parameters": {"type": "object"}} for name in ("a", "b")]


def canonical(**asked: Any) -> dict[str, Any]:
    remembered = kept({"model": "m", "input": "x"} | asked)
    return to_canonical({"model": "m"} | asked, remembered["input"], [])


def test_text_is_one_message_of_the_user() -> None:
    assert canonical(input="Hello")["messages"] == [{"role": "user", "content": "Hello"}]


def test_developers_speak_as_the_system_and_images_stay_images() -> None:
    items = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [
            {"type": "input_text", "text": "What is it?"},
            {"type": "input_image", "image_url": IMAGE, "detail": "low"},
        ]},
    ]  # fmt: skip

    assert canonical(input=items)["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": IMAGE}},
        ]},
    ]  # fmt: skip


def test_instructions_and_first_words_of_developers_are_one_system_message() -> None:
    made = canonical(instructions="One.", input=[{"role": "developer", "content": "Two."}])

    assert made["messages"] == [{"role": "system", "content": "One.\n\nTwo."}]


def test_reasoning_is_left_out_and_results_of_functions_may_be_lists() -> None:
    items = [
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [
            {"type": "input_text", "text": "done"}, {"type": "input_image", "image_url": IMAGE},
        ]},
    ]  # fmt: skip

    call, result, image = messages_of(items)

    assert call["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert result == {"role": "tool", "tool_call_id": "c", "content": "done"}
    assert image["role"] == "user"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("required", "required"),
        ({"type": "function", "name": "a"}, {"type": "function", "function": {"name": "a"}}),
    ],
    ids=["word", "function"],
)
def test_a_choice_of_tools_is_translated(choice: object, expected: object) -> None:
    made = canonical(tools=TOOLS, tool_choice=choice)

    assert made["tool_choice"] == expected
    assert [tool["function"]["name"] for tool in made["tools"]] == ["a", "b"]


def test_only_allowed_tools_are_offered() -> None:
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "b"}]}

    made = canonical(tools=TOOLS, tool_choice=allowed)

    assert [tool["function"]["name"] for tool in made["tools"]] == ["b"]
    assert made["tool_choice"] == "auto"


def test_a_choice_without_tools_is_no_part_of_the_request() -> None:
    assert "tool_choice" not in canonical(tool_choice="auto")


def test_effort_none_asks_for_no_thinking_and_others_are_passed() -> None:
    assert canonical(reasoning={"effort": "none"})["chat_template_kwargs"] == {"enable_thinking": False}
    assert canonical(reasoning={"effort": "high"})["reasoning_effort"] == "high"


def test_a_stream_asks_for_its_usage_and_logprobs_come_when_they_are_wanted() -> None:
    made = canonical(stream=True, include=["message.output_text.logprobs"], top_logprobs=2)

    assert (made["stream"], made["stream_options"]) == (True, {"include_usage": True})
    assert (made["logprobs"], made["top_logprobs"]) == (True, 2)


def test_what_only_an_engine_should_say_is_not_remembered_nor_passed() -> None:
    asked = {"model": "m", "input": "x", "n_discard": 5, "service_tier": "flex"}

    assert set(kept(asked)) == {"model", "input", "store"}
    assert set(to_canonical(asked, kept(asked)["input"], [])) == {"model", "messages"}


@pytest.mark.parametrize(
    "wrong",
    [{"background": 1}, {"store": "no"}, {"instructions": 5}, {"previous_response_id": 5}, {"include": 5}],
    ids=str,
)
def test_fields_of_the_wrong_type_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError) as refused:
        kept({"model": "m", "input": "x"} | wrong)

    assert refused.value.field in wrong


def test_items_are_listed_with_ids_and_parts() -> None:
    message, call = input_items("J", [{"role": "user", "content": "Hi"}, {"type": "function_call", "id": "fc_x"}])

    assert message["id"] == "msg_J_in0"
    assert message["content"] == [{"type": "input_text", "text": "Hi"}]
    assert call["id"] == "fc_x"


def test_the_object_has_every_field_the_official_type_asks_for() -> None:
    made = Response.model_validate(response_of("J", {"model": "m", "store": True}, 5.5), strict=False)

    assert (made.id, made.created_at, made.status) == ("resp_J", 5, "in_progress")
