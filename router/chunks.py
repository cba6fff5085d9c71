"""What an engine's answer says, in OpenAI's form: content, errors, usage.

Engines and peers may send anything: whatever is not as expected is skipped.
"""

from __future__ import annotations

from typing import Any

import msgspec

from router.errors import failure
from router.wire import ErrorInfo

NOT_JSON = (msgspec.DecodeError, ValueError, RecursionError)
"""What decoding raises: bad UTF-8 and too deep nesting are not msgspec's own errors."""

COUNT_MAX = 2**53
PLACES_MAX = 128


class Facts(msgspec.Struct):
    usage: Any = None
    timings: Any = None
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
        except NOT_JSON:
            continue
        for choice in chunk.choices:
            delta = choice.delta
            if choice.text or (
                delta is not None
                and (delta.content or delta.reasoning_content or delta.reasoning or delta.tool_calls or delta.refusal)
            ):
                return True
    return False


def stream_error(events: bytes) -> tuple[bytes, ErrorInfo] | None:
    """The first error that an event reports (``data: {"error": ...}``) and the events before it.

    Text that merely says "error" is none.
    """
    before = b""
    for event in events.split(b"\n\n"):
        for payload in payloads(event):
            try:
                facts = _FACTS.decode(payload)
            except NOT_JSON:
                continue
            if facts.error is not None:
                return before, failure("engine_failed", sentence(facts.error) or "The engine reports an error.")
        before += event + b"\n\n"
    return None


def last_facts(events: bytes) -> dict[str, Any]:
    """Usage and timings of the last chunks."""
    found: dict[str, Any] = {}
    if b'"usage"' not in events and b'"timings"' not in events:
        return found
    for payload in payloads(events):
        try:
            facts = _FACTS.decode(payload)
        except NOT_JSON:
            continue
        if facts.usage:
            found["usage"] = facts.usage
        if facts.timings:
            found["timings"] = facts.timings
    return found


def numbers(facts: dict[str, Any]) -> dict[str, Any]:
    """Token counts and rates out of ``usage`` (OpenAI) and ``timings`` (llama.cpp); only what can be true."""
    usage, timings = _dict(facts.get("usage")), _dict(facts.get("timings"))
    details = usage.get("prompt_tokens_details")
    asked, cached = _count(timings.get("prompt_n")), _count(timings.get("cache_n"))
    prompt = None if asked is None else asked + (cached or 0)
    counts = {
        "prompt_tokens": (_count(usage.get("prompt_tokens")), prompt),
        "cached_tokens": (_count(_dict(details).get("cached_tokens")), cached),
        "completion_tokens": (_count(usage.get("completion_tokens")), _count(timings.get("predicted_n"))),
        "prefill_per_s": (_rate(timings.get("prompt_per_second")),),
        "tokens_per_s": (_rate(timings.get("predicted_per_second")),),
    }
    first = {name: next((value for value in said if value is not None), None) for name, said in counts.items()}
    return {name: value for name, value in first.items() if value is not None}


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < COUNT_MAX else None


def _rate(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value < COUNT_MAX else None


def error_sentence(body: bytes) -> str:
    try:
        decoded = msgspec.json.decode(body)
    except NOT_JSON:
        return ""
    return sentence(decoded.get("error", decoded)) if isinstance(decoded, dict) else ""


def sentence(error: object) -> str:
    """An engine's error as one line of at most 300 characters."""
    said = error.get("message") if isinstance(error, dict) else error
    if not isinstance(said, str):
        return ""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in said).split())[:300]


_PER_CHUNK = frozenset({"choices", "object"})


def assemble(events: bytes) -> dict[str, Any]:
    """The whole answer that a stream of chunks adds up to, as the engine would have given it without streaming."""
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for payload in payloads(events):
        try:
            chunk = _dict(msgspec.json.decode(payload))
        except NOT_JSON:
            continue
        whole |= {
            name: value for name, value in chunk.items() if name not in ("choices", "object") and value is not None
        }
        for choice in _dicts(chunk.get("choices")):
            index = choice.get("index") or 0
            if isinstance(index, int) and 0 <= index < PLACES_MAX:
                _add_choice(choices.setdefault(index, {}), choice)
    text = any("text" in choice for choice in choices.values())
    whole["object"] = "text_completion" if text else "chat.completion"
    whole["choices"] = [choice | {"index": index} for index, choice in sorted(choices.items())]
    return whole


def _add_choice(made: dict[str, Any], choice: dict[str, Any]) -> None:
    made["finish_reason"] = choice.get("finish_reason") or made.get("finish_reason")
    if isinstance(logprobs := choice.get("logprobs"), dict):
        kept = made.setdefault("logprobs", {"content": []})
        kept["content"] += _dicts(logprobs.get("content"))
    if isinstance(choice.get("text"), str):
        made["text"] = made.get("text", "") + choice["text"]
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return
    message = made.setdefault("message", {"role": "assistant", "content": None})
    for name, value in delta.items():
        if name == "tool_calls":
            _add_calls(message.setdefault("tool_calls", []), value)
        elif isinstance(value, str) and name != "role":
            message[name] = (message.get(name) or "") + value


def _add_calls(calls: list[dict[str, Any]], pieces: object) -> None:
    for piece in _dicts(pieces):
        index = piece.get("index")
        place = index if isinstance(index, int) and 0 <= index < PLACES_MAX else len(calls)
        while len(calls) <= place < PLACES_MAX:
            calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        if place >= PLACES_MAX:
            continue
        call, function = calls[place], _dict(piece.get("function"))
        if isinstance(piece.get("id"), str):
            call["id"] = piece["id"] or call["id"]
        for name in ("name", "arguments"):
            if isinstance(function.get(name), str):
                call["function"][name] += function[name]
