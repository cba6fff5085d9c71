"""Items become messages that any chat template takes."""

from __future__ import annotations

from typing import Any

from router.web.turns import Turns, flat, with_system, without_system

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}


def test_text_and_calls_of_one_turn_are_one_message() -> None:
    turns = Turns()
    turns.say("user", "Weather?")
    turns.say("assistant", "I look.")
    turns.call("c1", "weather", "{}")
    turns.call("c2", "time", "{}")

    asked, answered = turns.done()

    assert asked == {"role": "user", "content": "Weather?"}
    assert answered["content"] == "I look."
    assert [call["id"] for call in answered["tool_calls"]] == ["c1", "c2"]


def test_a_call_without_text_has_a_message_of_its_own() -> None:
    turns = Turns()
    turns.say("user", "Weather?")
    turns.call("c1", "weather", "{}")

    assert turns.done()[1]["content"] is None


def test_images_of_results_follow_all_results_of_the_turn() -> None:
    turns = Turns()
    turns.result("c1", "a picture", [IMAGE])
    turns.result("c2", "no picture", [])
    turns.say("user", "What is it?")

    assert [message["role"] for message in turns.done()] == ["tool", "tool", "user", "user"]


def test_images_of_the_last_results_are_not_lost() -> None:
    turns = Turns()
    turns.result("c1", "a picture", [IMAGE])

    assert turns.done()[-1] == {"role": "user", "content": [IMAGE]}


def test_parts_that_are_text_alone_are_one_text() -> None:
    parts: list[dict[str, Any]] = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]

    assert flat(parts) == "a\nb"
    assert flat([*parts, IMAGE]) == [*parts, IMAGE]


def test_all_that_a_system_says_first_is_one_message_and_comes_apart_again() -> None:
    said = [{"role": "system", "content": "Developer."}, {"role": "user", "content": "Hi"}]

    joined = with_system("Be brief.", said)

    assert joined == [{"role": "system", "content": "Be brief.\n\nDeveloper."}, said[1]]
    assert without_system("Be brief.", joined) == said
    assert without_system("Be brief.", with_system("Be brief.", said[1:])) == said[1:]
    assert with_system("", said[1:]) == said[1:] == without_system("", said[1:])
