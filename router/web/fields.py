"""Which fields a canonical request may have and what each must be; one table for each kind of request.

A test gets the field's name, its value (never None) and the ``Prompt`` it may add to, and raises BadRequestError.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeAlias

from router.engines.base import Kind
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


def _wrong(name: str, what: str, hint: str = "") -> NoReturn:
    raise BadRequestError(f"'{name}' must be {what}.", hint, field=name)


# Scalars.


def _number(low: float, high: float) -> Test:
    def test(name: str, value: Any, prompt: Prompt) -> None:
        if type(value) not in (int, float) or not low <= value <= high:
            _wrong(name, f"a number from {low:g} to {high:g}")

    return test


def _integer(low: int, high: int, *, also: int | None = None) -> Test:
    def test(name: str, value: Any, prompt: Prompt) -> None:
        if type(value) is not int or not (low <= value <= high or value == also):
            _wrong(name, f"a whole number from {low:,} to {high:,}")

    return test


def _flag(name: str, value: Any, prompt: Prompt) -> None:
    if type(value) is not bool:
        _wrong(name, "true or false")


def _text(most: int) -> Test:
    def test(name: str, value: Any, prompt: Prompt) -> None:
        if type(value) is not str or len(value) > most:
            _wrong(name, f"text of at most {most:,} characters")

    return test


def _texts(count: int, most: int) -> Test:
    def test(name: str, value: Any, prompt: Prompt) -> None:
        if type(value) is not list or len(value) > count:
            _wrong(name, f"a list of at most {count} texts")
        for item in value:
            if type(item) is not str or len(item) > most:
                _wrong(name, f"a list of texts of at most {most:,} characters each")

    return test


def _stop(name: str, value: Any, prompt: Prompt) -> None:
    _texts(32, 4096)(name, [value] if type(value) is str else value, prompt)


def _object(name: str, value: Any, prompt: Prompt) -> None:
    if type(value) is not dict:
        _wrong(name, "an object")


def _logit_bias(name: str, value: Any, prompt: Prompt) -> None:
    _object(name, value, prompt)
    if len(value) > 1024 or not all(
        key.isascii() and key.isdigit() and type(bias) in (int, float) and -100 <= bias <= 100
        for key, bias in value.items()
    ):
        _wrong(name, "an object of at most 1,024 token numbers with biases from -100 to 100")


def _template_values(name: str, value: Any, prompt: Prompt) -> None:
    _object(name, value, prompt)
    if len(value) > 16 or not all(type(item) in (str, bool, int, float) for item in value.values()):
        _wrong(name, "an object of at most 16 texts, numbers or switches")


def _stream_options(name: str, value: Any, prompt: Prompt) -> None:
    _object(name, value, prompt)
    if type(value.get("include_usage", False)) is not bool:
        _wrong(f"{name}.include_usage", "true or false")


def _modalities(name: str, value: Any, prompt: Prompt) -> None:
    if value != ["text"]:
        _wrong(name, "['text']", "Only text is answered here.")


def _response_format(name: str, value: Any, prompt: Prompt) -> None:
    _object(name, value, prompt)
    kind = value.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        _wrong(f"{name}.type", "text, json_object or json_schema")
    schema = value.get("json_schema")
    if kind == "json_schema" and (type(schema) is not dict or type(schema.get("schema")) is not dict):
        _wrong(f"{name}.json_schema.schema", "an object")
    if type(value.get("schema", {})) is not dict:
        _wrong(f"{name}.schema", "an object")


# Messages and tools.


def _messages(name: str, value: Any, prompt: Prompt) -> None:
    if type(value) is not list or not value:
        _wrong(name, "a list of at least one message")
    for place, message in enumerate(value):
        if type(message) is not dict:
            _wrong(f"{name}[{place}]", "an object")
        role = message.get("role")
        if type(role) is not str or role not in _ROLES:
            _wrong(f"{name}[{place}].role", "system, developer, user, assistant or tool")
        content = message.get("content")
        if type(content) is str:
            prompt.add(content)
        elif type(content) is list:
            _content_parts(f"{name}[{place}].content", content, prompt)
        elif content is not None or role != "assistant":
            _wrong(f"{name}[{place}].content", "text or a list of parts")
        if len(message) > 2:
            _message_extras(f"{name}[{place}]", message, prompt)
    prompt.given = True


def _message_extras(name: str, message: dict[str, Any], prompt: Prompt) -> None:
    for text in ("name", "tool_call_id", "reasoning_content", "refusal"):
        if message.get(text) is not None and type(message[text]) is not str:
            _wrong(f"{name}.{text}", "text")
    calls = message.get("tool_calls")
    if calls is None:
        return
    if type(calls) is not list:
        _wrong(f"{name}.tool_calls", "a list")
    for place, call in enumerate(calls):
        function = call.get("function") if type(call) is dict else None
        if type(function) is not dict or not _is_function(function.get("name")):
            _wrong(f"{name}.tool_calls[{place}].function.name", "the name of a function")
        arguments = function.get("arguments", "")
        if type(arguments) is str:
            prompt.add(arguments)
        elif type(arguments) is not dict:
            _wrong(f"{name}.tool_calls[{place}].function.arguments", "text")


def _content_parts(name: str, parts: list[Any], prompt: Prompt) -> None:
    for place, part in enumerate(parts):
        match part:
            case {"type": "text" | "input_text" | "output_text", "text": str(text)}:
                prompt.add(text)
            case {"type": "refusal", "refusal": str(text)}:
                prompt.add(text)
            case {"type": "image_url", "image_url": {"url": str(url)} | str(url)}:
                if _IMAGE.match(url) is None:
                    _wrong(
                        f"{name}[{place}].image_url",
                        "a data: address of a PNG, JPEG, GIF, WebP or BMP image in base64",
                        "Nothing is fetched from other addresses; send the image itself.",
                    )
                prompt.needs.add("vision")
            case {"type": "input_audio", "input_audio": {"data": str(), "format": "wav" | "mp3"}}:
                prompt.needs.add("audio")
            case _:
                _wrong(f"{name}[{place}]", "a part with text, image_url or input_audio")


def _is_function(value: object) -> bool:
    return isinstance(value, str) and _FUNCTION.fullmatch(value) is not None


def _tools(name: str, value: Any, prompt: Prompt) -> None:
    if type(value) is not list or len(value) > 512:
        _wrong(name, "a list of at most 512 tools")
    for place, tool in enumerate(value):
        function = tool.get("function") if type(tool) is dict and tool.get("type") == "function" else None
        if type(function) is not dict:
            _wrong(f"{name}[{place}]", "an object with type 'function' and a function")
        _one_function(f"{name}[{place}].function", function)
    if value:
        prompt.needs.add("tools")


def _functions(name: str, value: Any, prompt: Prompt) -> None:
    if type(value) is not list or len(value) > 512:
        _wrong(name, "a list of at most 512 functions")
    for place, function in enumerate(value):
        _one_function(f"{name}[{place}]", function)
    if value:
        prompt.needs.add("tools")


def _one_function(name: str, function: Any) -> None:
    if type(function) is not dict or not _is_function(function.get("name")):
        _wrong(f"{name}.name", "1 to 128 letters, digits and . _ : / -")
    if type(function.get("description") or "") is not str:
        _wrong(f"{name}.description", "text")
    if function.get("parameters") is not None and type(function["parameters"]) is not dict:
        _wrong(f"{name}.parameters", "an object")


def _tool_choice(name: str, value: Any, prompt: Prompt) -> None:
    match value:
        case "none" | "auto" | "required":
            return
        case {"type": "function", "function": {"name": str()}} | {"name": str()}:
            return
    _wrong(name, "none, auto, required, or an object that names a function")


# Prompts of the other two kinds.


def _is_tokens(value: object) -> bool:
    return isinstance(value, list) and all(type(token) is int and 0 <= token < 2**31 for token in value)


def _prompt(name: str, value: Any, prompt: Prompt) -> None:
    """Text, texts, token numbers, or lists of token numbers."""
    items = [value] if type(value) is str or (type(value) is list and value and type(value[0]) is int) else value
    if type(items) is not list or not items or len(items) > 4096:
        _wrong(name, "text, or a list of 1 to 4,096 texts")
    for item in items:
        if type(item) is str:
            prompt.add(item)
        elif item and _is_tokens(item):
            prompt.bytes += 4 * len(item)
        else:
            _wrong(name, "text, a list of texts, or token numbers")
    prompt.given = True


def _passes(name: str, value: Any, prompt: Prompt) -> None:
    """Checked elsewhere."""


_TOKENS: Final = _integer(1, 1_000_000, also=-1)  # -1 is how some clients say 'no bound'

_SAMPLING: Final[dict[str, Test]] = {
    "model": _passes,
    "stream": _flag,
    "stream_options": _stream_options,
    "max_tokens": _TOKENS,
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "top_k": _integer(-1, 1_000_000),
    "min_p": _number(0, 1),
    "typical_p": _number(0, 1),
    "top_n_sigma": _number(-1, 100),
    "n": _integer(1, 8),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "repeat_penalty": _number(0, 10),
    "repetition_penalty": _number(0, 10),
    "repeat_last_n": _integer(-1, 1_000_000),
    "mirostat": _integer(0, 2),
    "mirostat_tau": _number(0, 100),
    "mirostat_eta": _number(0, 1),
    "dry_multiplier": _number(0, 100),
    "dry_base": _number(0, 100),
    "dry_allowed_length": _integer(0, 1_000_000),
    "dry_penalty_last_n": _integer(-1, 1_000_000),
    "dry_sequence_breakers": _texts(64, 256),
    "xtc_probability": _number(0, 1),
    "xtc_threshold": _number(0, 1),
    "dynatemp_range": _number(0, 10),
    "dynatemp_exponent": _number(0, 10),
    "seed": _integer(-(2**63), 2**64 - 1),
    "stop": _stop,
    "logit_bias": _logit_bias,
    "user": _text(512),
}

TABLES: Final[dict[Kind, dict[str, Test]]] = {
    Kind.CHAT: {
        **_SAMPLING,
        "messages": _messages,
        "max_completion_tokens": _TOKENS,
        "logprobs": _flag,
        "top_logprobs": _integer(0, 20),
        "response_format": _response_format,
        "tools": _tools,
        "tool_choice": _tool_choice,
        "parallel_tool_calls": _flag,
        "functions": _functions,
        "function_call": _tool_choice,
        "reasoning_effort": _text(32),
        "reasoning_format": _text(32),
        "chat_template_kwargs": _template_values,
        "modalities": _modalities,
        "verbosity": _text(32),
    },
    Kind.COMPLETION: {
        **_SAMPLING,
        "prompt": _prompt,
        "suffix": _text(1_000_000),
        "echo": _flag,
        "best_of": _integer(1, 8),
        "logprobs": _integer(0, 20),
    },
    Kind.EMBEDDING: {
        "model": _passes,
        "input": _prompt,
        "encoding_format": _text(16),
        "dimensions": _integer(1, 65_536),
        "user": _text(512),
    },
}
