"""Which fields a canonical request may have and what each must be; one table for each kind of request."""

from __future__ import annotations

from typing import Any, Final

from router.engines.base import Kind
from router.web.prompt import Prompt, Test, functions, messages, prompt_text, tool_choice, tools, wrong


def _number(low: float, high: float) -> Test:
    def test(name: str, value: Any, prompt: Prompt) -> None:
        if type(value) not in (int, float) or not low <= value <= high:
            wrong(name, f"a number from {low:g} to {high:g}")

    return test


def _integer(low: int, high: int, *, also: int | None = None) -> Test:
    def test(name: str, value: Any, prompt: Prompt) -> None:
        if type(value) is not int or not (low <= value <= high or value == also):
            wrong(name, f"a whole number from {low:,} to {high:,}")

    return test


def _flag(name: str, value: Any, prompt: Prompt) -> None:
    if type(value) is not bool:
        wrong(name, "true or false")


def _text(most: int) -> Test:
    def test(name: str, value: Any, prompt: Prompt) -> None:
        if type(value) is not str or len(value) > most:
            wrong(name, f"text of at most {most:,} characters")

    return test


def _texts(count: int, most: int) -> Test:
    def test(name: str, value: Any, prompt: Prompt) -> None:
        if type(value) is not list or len(value) > count:
            wrong(name, f"a list of at most {count} texts")
        for item in value:
            if type(item) is not str or len(item) > most:
                wrong(name, f"a list of texts of at most {most:,} characters each")

    return test


def _stop(name: str, value: Any, prompt: Prompt) -> None:
    _texts(32, 4096)(name, [value] if type(value) is str else value, prompt)


def _object(name: str, value: Any, prompt: Prompt) -> None:
    if type(value) is not dict:
        wrong(name, "an object")


def _logit_bias(name: str, value: Any, prompt: Prompt) -> None:
    _object(name, value, prompt)
    if len(value) > 1024 or not all(
        key.isascii() and key.isdigit() and type(bias) in (int, float) and -100 <= bias <= 100
        for key, bias in value.items()
    ):
        wrong(name, "an object of at most 1,024 token numbers with biases from -100 to 100")


def _template_values(name: str, value: Any, prompt: Prompt) -> None:
    _object(name, value, prompt)
    if len(value) > 16 or not all(type(item) in (str, bool, int, float) for item in value.values()):
        wrong(name, "an object of at most 16 texts, numbers or switches")


def _stream_options(name: str, value: Any, prompt: Prompt) -> None:
    _object(name, value, prompt)
    if type(value.get("include_usage", False)) is not bool:
        wrong(f"{name}.include_usage", "true or false")


def _modalities(name: str, value: Any, prompt: Prompt) -> None:
    if value != ["text"]:
        wrong(name, "['text']", "Only text is answered here.")


def _response_format(name: str, value: Any, prompt: Prompt) -> None:
    _object(name, value, prompt)
    kind = value.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        wrong(f"{name}.type", "text, json_object or json_schema")
    schema = value.get("json_schema")
    if kind == "json_schema" and (type(schema) is not dict or type(schema.get("schema")) is not dict):
        wrong(f"{name}.json_schema.schema", "an object")
    if type(value.get("schema", {})) is not dict:
        wrong(f"{name}.schema", "an object")


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
        "messages": messages,
        "max_completion_tokens": _TOKENS,
        "logprobs": _flag,
        "top_logprobs": _integer(0, 20),
        "response_format": _response_format,
        "tools": tools,
        "tool_choice": tool_choice,
        "parallel_tool_calls": _flag,
        "functions": functions,
        "function_call": tool_choice,
        "reasoning_effort": _text(32),
        "reasoning_format": _text(32),
        "chat_template_kwargs": _template_values,
        "modalities": _modalities,
        "verbosity": _text(32),
    },
    Kind.COMPLETION: {
        **_SAMPLING,
        "prompt": prompt_text,
        "suffix": _text(1_000_000),
        "echo": _flag,
        "best_of": _integer(1, 8),
        "logprobs": _integer(0, 20),
    },
    Kind.EMBEDDING: {
        "model": _passes,
        "input": prompt_text,
        "encoding_format": _text(16),
        "dimensions": _integer(1, 65_536),
        "user": _text(512),
    },
}
