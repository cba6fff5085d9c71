"""Requests of Anthropic's API in canonical form."""

from __future__ import annotations

from typing import Any

import pytest

from router.errors import BadRequestError
from router.web.anthropic_shapes import estimate, shows_thinking, to_canonical

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}
SEEN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
TOOL = {"name": "f", "input_schema": {"type": "object"}}


def canonical(*content: Any, **asked: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": one} for one in content or ("Hello",)]
    return to_canonical({"model": "m", "max_tokens": 9, "messages": messages} | asked)


def test_a_system_in_blocks_is_one_message_with_those_of_the_list() -> None:
    blocks = [
        {"type": "text", "text": "One.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Two."},
    ]

    made = canonical(
        system=blocks, messages=[{"role": "system", "content": "Three."}, {"role": "user", "content": "x"}]
    )

    assert made["messages"][0] == {"role": "system", "content": "One.\n\nTwo.\n\nThree."}


def test_results_of_tools_come_before_what_is_said_and_their_images_after_them() -> None:
    made = canonical(
        [
            {"type": "text", "text": "See."},
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "a"}, IMAGE]},
        ]
    )

    assert made["messages"] == [
        {"role": "tool", "tool_call_id": "t", "content": "a"},
        {"role": "user", "content": [SEEN]},
        {"role": "user", "content": "See."},
    ]


def test_a_result_may_be_text_or_nothing() -> None:
    made = canonical(
        [{"type": "tool_result", "tool_use_id": "t", "content": "a"}, {"type": "tool_result", "tool_use_id": "u"}]
    )

    assert [message["content"] for message in made["messages"]] == ["a", ""]


def test_a_document_of_text_is_read_and_others_are_refused() -> None:
    text = {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "abc"}}

    assert canonical([text])["messages"] == [{"role": "user", "content": "T\n\nabc"}]
    with pytest.raises(BadRequestError):
        canonical([{"type": "document", "source": {"type": "base64", "data": "AA"}}])


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
        ({"type": "any"}, "required"),
        ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_choice_of_tools_is_translated(choice: object, expected: object) -> None:
    assert canonical(tools=[TOOL], tool_choice=choice)["tool_choice"] == expected


def test_a_choice_without_tools_is_no_part_of_the_request() -> None:
    assert "tool_choice" not in canonical(tool_choice={"type": "auto"})


@pytest.mark.parametrize(
    ("thinking", "shown", "template"),
    [
        (None, False, None),
        ({"type": "disabled"}, False, {"enable_thinking": False}),
        ({"type": "enabled", "budget_tokens": 1024}, True, {"enable_thinking": True}),
        ({"type": "adaptive"}, True, {"enable_thinking": True}),
    ],
    ids=["absent", "disabled", "enabled", "adaptive"],
)
def test_thinking_is_asked_for_and_shown_as_the_client_wants(
    thinking: Any, shown: bool, template: dict[str, bool] | None
) -> None:
    asked = {"thinking": thinking} if thinking else {}

    assert canonical(**asked).get("chat_template_kwargs") == template
    assert shows_thinking(asked) is shown


def test_effort_format_user_and_stream_are_passed() -> None:
    schema = {"type": "object"}

    made = canonical(
        stream=True,
        metadata={"user_id": "u"},
        output_config={"effort": "low", "format": {"type": "json_schema", "schema": schema}},
    )

    assert (made["user"], made["reasoning_effort"], made["stream"]) == ("u", "low", True)
    assert made["stream_options"] == {"include_usage": True}
    assert made["response_format"]["json_schema"]["schema"] == schema


def test_only_a_user_shows_images() -> None:
    with pytest.raises(BadRequestError) as refused:
        canonical(messages=[{"role": "assistant", "content": [IMAGE]}])

    assert refused.value.field == "messages[0].content"


def test_an_estimate_grows_with_text_tools_and_images() -> None:
    plain, longer = canonical("Hello"), canonical("Hello " * 100)
    picture = canonical([IMAGE])

    assert estimate(plain, 5) < estimate(longer, 600)
    assert estimate(plain, 5) < estimate(canonical("Hello", tools=[TOOL]), 5)
    assert estimate(picture, 0) > 500
