"""What is learnt from what was said: its size in bytes, what the model must be able to do."""

from __future__ import annotations

import pytest

from router.errors import BadRequestError
from router.web.prompt import Prompt, functions, messages, prompt_text, tool_choice, tools


def test_text_is_counted_in_bytes_and_images_are_not() -> None:
    prompt = Prompt()
    image = {"type": "image_url", "image_url": {"url": "data:image/webp;base64," + "A" * 10_000}}
    messages("messages", [{"role": "user", "content": [{"type": "text", "text": "漢字 ok"}, image]}], prompt)
    assert prompt.bytes == len("漢字 ok".encode())
    assert prompt.needs == {"vision"}
    assert prompt.given


def test_token_numbers_count_as_four_bytes_each() -> None:
    prompt = Prompt()
    prompt_text("prompt", [[1, 2], [3]], prompt)
    assert prompt.bytes == 12


def test_tools_and_their_older_form_need_a_model_that_calls() -> None:
    for test, value in ((tools, [{"type": "function", "function": {"name": "f"}}]), (functions, [{"name": "f"}])):
        prompt = Prompt()
        test("x", value, prompt)
        assert prompt.needs == {"tools"}
        test("x", [], empty := Prompt())
        assert not empty.needs


def test_a_choice_names_a_word_or_a_function() -> None:
    for value in ("none", "auto", "required", {"type": "function", "function": {"name": "f"}}, {"name": "f"}):
        tool_choice("tool_choice", value, Prompt())
    with pytest.raises(BadRequestError, match="tool_choice"):
        tool_choice("tool_choice", "maybe", Prompt())


def test_the_place_of_a_fault_is_named() -> None:
    good = {"role": "user", "content": "x"}
    with pytest.raises(BadRequestError) as caught:
        messages("messages", [good, good, {"role": "user", "content": 5}], Prompt())
    assert caught.value.field == "messages[2].content"
