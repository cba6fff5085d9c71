"""Between the canonical (OpenAI) chat form and Ollama's own: what its ``/v1`` does not carry goes this way. No I/O."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from router.chunks import NOT_JSON
from router.engines.base import Call, Kind
from router.errors import EngineFault

# canonical field: Ollama's option
_OPTIONS: Final = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "seed": "seed",
    "stop": "stop",
    "max_tokens": "num_predict",
    "max_completion_tokens": "num_predict",
    "repeat_penalty": "repeat_penalty",
    "repeat_last_n": "repeat_last_n",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "num_ctx": "num_ctx",
}
# What Ollama's own chat does not have: such a request stays with /v1, whatever else it asks.
_ONLY_V1: Final = ("logprobs", "top_logprobs", "logit_bias")
_NATIVE: Final = ("top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n", "num_ctx", "think")
_NATIVE_HINT: Final = re.compile("|".join(f'"{name}"' for name in (*_NATIVE, "chat_template_kwargs")).encode())
_IMAGE: Final = re.compile(r"^data:image/[a-z+]+;base64,")


def native_body(call: Call) -> dict[str, Any] | None:
    """The request in Ollama's own form, or None when ``/v1`` carries all of it (or can carry more of it)."""
    if call.kind is not Kind.CHAT or (call.keep_alive_s is None and not _NATIVE_HINT.search(call.body)):
        return None
    try:
        return _translated(call, msgspec.json.decode(call.body))
    except (*NOT_JSON, AttributeError, TypeError):
        return None  # not as the canonical form is: Ollama's own check says what is wrong with it


def _translated(call: Call, asked: dict[str, Any]) -> dict[str, Any] | None:
    if any(asked.get(name) for name in _ONLY_V1) or asked.get("n") not in (None, 1):
        return None
    think = _think(asked)
    if call.keep_alive_s is None and think is None and not any(asked.get(name) is not None for name in _NATIVE):
        return None
    messages = [_message(message) for message in asked.get("messages", ())]
    if None in messages:
        return None
    body: dict[str, Any] = {"model": call.model, "messages": messages, "stream": call.stream}
    body["options"] = {theirs: asked[ours] for ours, theirs in _OPTIONS.items() if asked.get(ours) is not None}
    if call.keep_alive_s is not None:
        body["keep_alive"] = duration(call.keep_alive_s)
    if asked.get("tools"):
        body["tools"] = asked["tools"]
    if (think := _effort(asked) if think is None else think) is not None:
        body["think"] = think
    form = asked.get("response_format")
    if isinstance(form, dict) and form.get("type") == "json_object":
        body["format"] = "json"
    elif isinstance(form, dict) and form.get("type") == "json_schema":
        body["format"] = (form.get("json_schema") or {}).get("schema") or "json"
    return body


def duration(seconds: float) -> int | float:
    """Seconds as Ollama takes them: a number, negative for ever."""
    return int(seconds) if seconds == int(seconds) else seconds


def wants_usage(call: Call) -> bool:
    """Whether the stream ends with a chunk of counts."""
    options = msgspec.json.decode(call.body).get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _think(asked: Mapping[str, Any]) -> bool | str | None:
    if isinstance(think := asked.get("think"), bool | str):
        return think
    template = asked.get("chat_template_kwargs")
    enabled = template.get("enable_thinking") if isinstance(template, dict) else None
    return enabled if isinstance(enabled, bool) else None


def _effort(asked: Mapping[str, Any]) -> bool | str | None:
    effort = asked.get("reasoning_effort")
    if effort == "none":
        return False
    return effort if effort in ("low", "medium", "high") else None


def _message(message: dict[str, Any]) -> dict[str, Any] | None:
    """One message; None when it holds what Ollama's form can't say."""
    made: dict[str, Any] = {"role": message.get("role")}
    content = message.get("content")
    if isinstance(content, list):
        texts = [part.get("text") or "" for part in content if part.get("type") == "text"]
        addresses = [(part.get("image_url") or {}).get("url") or "" for part in content if part.get("type") != "text"]
        if not all(_IMAGE.match(address) for address in addresses):
            return None
        made["content"] = "\n".join(texts)
        made |= {"images": [_IMAGE.sub("", address) for address in addresses]} if addresses else {}
    else:
        made["content"] = content or ""
    if thinking := message.get("reasoning_content") or message.get("reasoning"):
        made["thinking"] = thinking
    if calls := message.get("tool_calls"):
        made["tool_calls"] = [_call_in(call.get("function") or {}) for call in calls]
    if message.get("role") == "tool" and (name := message.get("name") or message.get("tool_call_id")):
        made["tool_name"] = name
    return made


def _call_in(function: dict[str, Any]) -> dict[str, Any]:
    try:
        arguments = msgspec.json.decode(function.get("arguments") or "{}")
    except NOT_JSON:
        arguments = {}
    return {"function": {"name": function.get("name"), "arguments": arguments}}


class Translator:
    """Ollama's answer lines to canonical chunks, or to one canonical answer."""

    def __init__(self, call: Call, *, usage: bool) -> None:
        self._model = call.model
        self._usage = usage
        self._id = f"chatcmpl-{call.request_id or 'ollama'}"
        self._created = int(time.time())
        self._calls = 0
        self.done = False

    def events(self, line: bytes) -> bytes:
        """The events of one line of a streamed answer. Raises EngineFault on what is no such line."""
        answer = _decoded(line)
        if "error" in answer:
            self.done = True
            return _event({"error": {"message": str(answer["error"])[:1000], "code": "engine_failed"}})
        delta = self._said(answer, indexed=True)
        events = self._chunk(delta, None) if delta else b""
        if not answer.get("done"):
            return events
        self.done = True
        events += self._chunk({}, self._reason(answer), timings=_timings(answer))
        if self._usage:
            events += _event({**self._head("chat.completion.chunk"), "choices": [], "usage": _counts(answer)})
        return events + b"data: [DONE]\n\n"

    def whole(self, body: bytes) -> bytes:
        """One canonical answer. Raises EngineFault on what is no answer."""
        answer = _decoded(body)
        message = {"role": "assistant", "content": ""} | self._said(answer, indexed=False)
        choice = {"index": 0, "message": message, "finish_reason": self._reason(answer)}
        head = self._head("chat.completion")
        return msgspec.json.encode({**head, "choices": [choice], "usage": _counts(answer), "timings": _timings(answer)})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def _chunk(self, delta: dict[str, Any], reason: str | None, timings: dict[str, float] | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        extra = {"timings": timings} if timings else {}
        return _event({**self._head("chat.completion.chunk"), "choices": [choice], **extra})

    def _said(self, answer: Mapping[str, Any], *, indexed: bool) -> dict[str, Any]:
        """What of a message is content, under the canonical names."""
        message = answer.get("message")
        if not isinstance(message, dict):
            return {}
        made: dict[str, Any] = {}
        for theirs, ours in (("content", "content"), ("thinking", "reasoning_content")):
            if isinstance(text := message.get(theirs), str) and text:
                made[ours] = text
        listed = message.get("tool_calls")
        calls = [call for call in listed if isinstance(call, dict)] if isinstance(listed, list) else []
        if calls:
            made["tool_calls"] = [self._tool_call(call, indexed=indexed) for call in calls]
        return made

    def _tool_call(self, call: dict[str, Any], *, indexed: bool) -> dict[str, Any]:
        told = call.get("function")
        function = told if isinstance(told, dict) else {}
        arguments = msgspec.json.encode(function.get("arguments") or {}).decode()
        made: dict[str, Any] = {"index": self._calls} if indexed else {}
        made |= {"id": str(call.get("id") or f"call_{self._calls}"), "type": "function"}
        made["function"] = {"name": str(function.get("name") or ""), "arguments": arguments}
        self._calls += 1
        return made

    def _reason(self, answer: Mapping[str, Any]) -> str:
        if self._calls:
            return "tool_calls"
        return "length" if answer.get("done_reason") == "length" else "stop"


def _decoded(line: bytes) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(line)
    except NOT_JSON:
        answer = None
    if not isinstance(answer, dict):
        raise EngineFault("Ollama sent a line that is not JSON.")
    return answer


def _event(payload: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(payload) + b"\n\n"


def _counts(answer: Mapping[str, Any]) -> dict[str, int]:
    prompt, completion = _count(answer, "prompt_eval_count"), _count(answer, "eval_count")
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _timings(answer: Mapping[str, Any]) -> dict[str, float]:
    """Rates and counts under llama.cpp's names."""
    made: dict[str, float] = {}
    for ours, count, length in (
        ("prompt", "prompt_eval_count", "prompt_eval_duration"),
        ("predicted", "eval_count", "eval_duration"),
    ):
        number, ns = _count(answer, count), _count(answer, length)
        if number and ns:
            made |= {f"{ours}_n": number, f"{ours}_ms": ns / 1e6, f"{ours}_per_second": number / (ns / 1e9)}
    return made


def _count(answer: Mapping[str, Any], name: str) -> int:
    value = answer.get(name)
    return value if isinstance(value, int) and value >= 0 else 0
