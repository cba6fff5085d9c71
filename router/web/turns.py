"""Canonical messages out of items that come one by one, as OpenAI's responses and Anthropic's messages have them."""

from __future__ import annotations

from typing import Any


class Turns:
    """A conversation as it grows. Calls of one turn become one message; images of results follow the results."""

    def __init__(self) -> None:
        self._made: list[dict[str, Any]] = []
        self._late: list[dict[str, Any]] = []

    def say(self, role: str, content: str | list[dict[str, Any]]) -> None:
        """One message. Parts that are text alone become one text: engines without parts understand that, too."""
        self._flush()
        self._made.append({"role": role, "content": flat(content)})

    def call(self, call_id: str, name: str, arguments: str) -> None:
        """The assistant called a function; its text of the same turn came just before."""
        self._flush()
        if not self._made or self._made[-1]["role"] != "assistant":
            self._made.append({"role": "assistant", "content": None})
        calls = self._made[-1].setdefault("tool_calls", [])
        calls.append({"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}})

    def result(self, call_id: str, text: str, images: list[dict[str, Any]]) -> None:
        """What the function gave back. Engines take text from tools; images wait for the next message of a person."""
        self._made.append({"role": "tool", "tool_call_id": call_id, "content": text})
        self._late += images

    def _flush(self) -> None:
        if self._late:
            self._made.append({"role": "user", "content": self._late})
            self._late = []

    def done(self) -> list[dict[str, Any]]:
        """All messages."""
        self._flush()
        return self._made


def flat(content: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """``content`` as one text where it is nothing but texts."""
    if isinstance(content, str) or any(part["type"] != "text" for part in content):
        return content
    return "\n".join(part["text"] for part in content)


def with_system(system: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``messages`` after ``system``. All that a system says first becomes one message: many templates allow no more."""
    first = [system] if system else []
    rest = list(messages)
    while rest and rest[0]["role"] == "system":
        first.append(rest.pop(0)["content"])
    return [{"role": "system", "content": "\n\n".join(first)}, *rest] if first else rest


def without_system(system: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``messages`` as they were before ``with_system`` put ``system`` there."""
    if not system or not messages or messages[0]["role"] != "system":
        return messages
    left = messages[0]["content"].removeprefix(system).removeprefix("\n\n")
    return [{"role": "system", "content": left}, *messages[1:]] if left else messages[1:]
