"""The parts of a canonical request that hold what was said: messages, tools, prompts; what each must be.

A test gets the field's name, its value (never None) and the ``Prompt`` it may add to, and raises BadRequestError.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeAlias

from router.errors import BadRequestError


@dataclass(slots=True)
class Prompt:
    """What the tests learn on their way: size of the text, needs of the model."""

    bytes: int = 0
    needs: set[str] = field(default_factory=set)
    given: bool = False

    def add(self, text: str) -> None:
        """Count ``text``."""
        self.bytes += len(text) if text.isascii() else len(text.encode())


Test: TypeAlias = Callable[[str, Any, Prompt], None]

_ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_IMAGE: Final = re.compile(r"data:image/(?:png|jpe?g|gif|webp|bmp);base64,", re.IGNORECASE)
_FUNCTION: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")


def wrong(name: str, what: str, hint: str = "") -> NoReturn:
    """Raise the BadRequestError that names the field; never repeats its value."""
    raise BadRequestError(f"'{name}' must be {what}.", hint, field=name)


def messages(name: str, value: Any, prompt: Prompt) -> None:
    """A list of at least one message, each with a role and what it says: text, or parts of text, image and sound."""
    if type(value) is not list or not value:
        wrong(name, "a list of at least one message")
    for place, message in enumerate(value):
        if type(message) is not dict:
            wrong(f"{name}[{place}]", "an object")
        role = message.get("role")
        if type(role) is not str or role not in _ROLES:
            wrong(f"{name}[{place}].role", "system, developer, user, assistant or tool")
        content = message.get("content")
        if type(content) is str:
            prompt.add(content)
        elif type(content) is list:
            _content_parts(f"{name}[{place}].content", content, prompt)
        elif content is not None or role != "assistant":
            wrong(f"{name}[{place}].content", "text or a list of parts")
        if len(message) > 2 or content is None:
            _message_extras(f"{name}[{place}]", message, prompt)
    prompt.given = True


def _message_extras(name: str, message: dict[str, Any], prompt: Prompt) -> None:
    for text in ("name", "tool_call_id", "reasoning_content", "refusal"):
        if message.get(text) is not None and type(message[text]) is not str:
            wrong(f"{name}.{text}", "text")
    calls = message.get("tool_calls")
    if calls is None:
        return
    if type(calls) is not list:
        wrong(f"{name}.tool_calls", "a list")
    for place, call in enumerate(calls):
        function = call.get("function") if type(call) is dict else None
        if type(function) is not dict or not _is_function(function.get("name")):
            wrong(f"{name}.tool_calls[{place}].function.name", "the name of a function")
        arguments = function.get("arguments", "")
        if type(arguments) is str:
            prompt.add(arguments)
        elif type(arguments) is not dict:
            wrong(f"{name}.tool_calls[{place}].function.arguments", "text")


def _content_parts(name: str, parts: list[Any], prompt: Prompt) -> None:
    if not parts:
        wrong(name, "text or a list of at least one part")
    for place, part in enumerate(parts):
        match part:
            case {"type": "text" | "input_text" | "output_text", "text": str(text)}:
                prompt.add(text)
            case {"type": "refusal", "refusal": str(text)}:
                prompt.add(text)
            case {"type": "image_url", "image_url": {"url": str(url)} | str(url)}:
                if _IMAGE.match(url) is None:
                    wrong(
                        f"{name}[{place}].image_url",
                        "a data: address of a PNG, JPEG, GIF, WebP or BMP image in base64",
                        "Nothing is fetched from other addresses; send the image itself.",
                    )
                prompt.needs.add("vision")
            case {"type": "input_audio", "input_audio": {"data": str(), "format": "wav" | "mp3"}}:
                prompt.needs.add("audio")
            case _:
                wrong(f"{name}[{place}]", "a part with text, image_url or input_audio")


def _is_function(value: object) -> bool:
    return isinstance(value, str) and _FUNCTION.fullmatch(value) is not None


def tools(name: str, value: Any, prompt: Prompt) -> None:
    """A list of functions the model may call."""
    if type(value) is not list or len(value) > 512:
        wrong(name, "a list of at most 512 tools")
    for place, tool in enumerate(value):
        function = tool.get("function") if type(tool) is dict and tool.get("type") == "function" else None
        if type(function) is not dict:
            wrong(f"{name}[{place}]", "an object with type 'function' and a function")
        _one_function(f"{name}[{place}].function", function)
    if value:
        prompt.needs.add("tools")


def functions(name: str, value: Any, prompt: Prompt) -> None:
    """The older form of ``tools``."""
    if type(value) is not list or len(value) > 512:
        wrong(name, "a list of at most 512 functions")
    for place, function in enumerate(value):
        _one_function(f"{name}[{place}]", function)
    if value:
        prompt.needs.add("tools")


def _one_function(name: str, function: Any) -> None:
    if type(function) is not dict or not _is_function(function.get("name")):
        wrong(f"{name}.name", "1 to 128 letters, digits and . _ : / -")
    if type(function.get("description") or "") is not str:
        wrong(f"{name}.description", "text")
    if function.get("parameters") is not None and type(function["parameters"]) is not dict:
        wrong(f"{name}.parameters", "an object")


def tool_choice(name: str, value: Any, prompt: Prompt) -> None:
    """A word, or an object that names one function."""
    match value:
        case "none" | "auto" | "required":
            return
        case {"type": "function", "function": {"name": str()}} | {"name": str()}:
            return
    wrong(name, "none, auto, required, or an object that names a function")


def _is_tokens(value: object) -> bool:
    return isinstance(value, list) and all(type(token) is int and 0 <= token < 2**31 for token in value)


def prompt_text(name: str, value: Any, prompt: Prompt) -> None:
    """Text, texts, token numbers, or lists of token numbers."""
    items = [value] if type(value) is str or (type(value) is list and value and type(value[0]) is int) else value
    if type(items) is not list or not items or len(items) > 4096:
        wrong(name, "text, or a list of 1 to 4,096 texts")
    for item in items:
        if type(item) is str:
            prompt.add(item)
        elif item and _is_tokens(item):
            prompt.bytes += 4 * len(item)
        else:
            wrong(name, "text, a list of texts, or token numbers")
    prompt.given = True
