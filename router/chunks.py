"""What an engine's answer says, in OpenAI's form: content, errors, usage.

Engines and peers may send anything: whatever is not as expected is skipped.
"""

from __future__ import annotations

from typing import Any

import msgspec

from router.errors import failure
from router.wire import ErrorInfo


class Facts(msgspec.Struct):
    usage: dict[str, Any] | None = None
    timings: dict[str, Any] | None = None
    error: Any = None


class _Delta(msgspec.Struct):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: Any = None
    refusal: Any = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: Any = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []


_FACTS = msgspec.json.Decoder(Facts)
_CHUNK = msgspec.json.Decoder(_Chunk)


def payloads(events: bytes) -> list[bytes]:
    """The ``data:`` payloads of whole events, without the final marker."""
    lines = [line for line in events.split(b"\n") if line.startswith(b"data:")]
    return [payload for line in lines if (payload := line[5:].strip()) != b"[DONE]"]


def has_content(events: bytes) -> bool:
    """Whether any event carries text, reasoning or a tool call (a role alone is not content)."""
    for payload in payloads(events):
        try:
            chunk = _CHUNK.decode(payload)
        except msgspec.DecodeError:
            continue
        for choice in chunk.choices:
            delta = choice.delta
            if choice.text or (
                delta is not None
                and (delta.content or delta.reasoning_content or delta.reasoning or delta.tool_calls or delta.refusal)
            ):
                return True
    return False


def stream_error(events: bytes) -> ErrorInfo | None:
    """The error an event reports: ``data: {"error": ...}``; text that merely says "error" is none."""
    for payload in payloads(events):
        try:
            facts = _FACTS.decode(payload)
        except msgspec.DecodeError:
            continue
        if facts.error is not None:
            return failure("engine_failed", sentence(facts.error) or "The engine reports an error.")
    return None


def last_facts(events: bytes) -> dict[str, Any]:
    """Usage and timings of the last chunks."""
    found: dict[str, Any] = {}
    if b'"usage"' not in events and b'"timings"' not in events:
        return found
    for payload in payloads(events):
        try:
            facts = _FACTS.decode(payload)
        except msgspec.DecodeError:
            continue
        if facts.usage:
            found["usage"] = facts.usage
        if facts.timings:
            found["timings"] = facts.timings
    return found


def numbers(facts: dict[str, Any]) -> dict[str, Any]:
    """Token counts and rates out of ``usage`` (OpenAI) and ``timings`` (llama.cpp); only what is a number."""
    usage = facts.get("usage") or {}
    timings = facts.get("timings") or {}
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    asked = timings.get("prompt_n"), timings.get("cache_n")
    prompt = sum(n for n in asked if isinstance(n, int)) if isinstance(asked[0], int) else None
    found = {
        "prompt_tokens": usage.get("prompt_tokens", prompt),
        "cached_tokens": cached if cached is not None else timings.get("cache_n"),
        "completion_tokens": usage.get("completion_tokens", timings.get("predicted_n")),
        "prefill_per_s": timings.get("prompt_per_second"),
        "tokens_per_s": timings.get("predicted_per_second"),
    }
    return {
        name: value for name, value in found.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }


def error_sentence(body: bytes) -> str:
    try:
        decoded = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return ""
    return sentence(decoded.get("error", decoded)) if isinstance(decoded, dict) else ""


def sentence(error: object) -> str:
    """An engine's error as one line of at most 300 characters."""
    said = error.get("message") if isinstance(error, dict) else error
    if not isinstance(said, str):
        return ""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in said).split())[:300]
