"""Between Ollama's shapes and the canonical (OpenAI) ones: requests one way, answers the other. No I/O."""

from __future__ import annotations

import base64
import binascii
import datetime
import re
import time
from typing import Any

import msgspec

from router.chunks import numbers, payloads
from router.errors import BadRequestError
from router.jobs import Job
from router.web.answers import Shape, stream_error
from router.wire import Ended, ModelInfo, State

_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "stop": "stop",
    "num_predict": "max_tokens",
    "repeat_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
_DURATION = re.compile(r"^(-?\d+(?:\.\d+)?)(ms|s|m|h)?$")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def to_canonical(asked: dict[str, Any], *, chat: bool) -> dict[str, Any]:
    """An ``/api/chat`` or ``/api/generate`` request as a chat-completions request. Raises BadRequestError."""
    body: dict[str, Any] = {"model": asked.get("model"), "stream": asked.get("stream", True) is not False}
    body["messages"] = [_message(m) for m in _list(asked, "messages")] if chat else _generate_messages(asked)
    options = asked.get("options") or {}
    if not isinstance(options, dict):
        raise BadRequestError("'options' must be an object.", field="options")
    body |= {ours: options[theirs] for theirs, ours in _OPTIONS.items() if options.get(theirs) is not None}
    if isinstance(body.get("max_tokens"), int) and body["max_tokens"] < 0:
        del body["max_tokens"]
    if asked.get("tools"):
        body["tools"] = asked["tools"]
    if (form := asked.get("format")) == "json":
        body["response_format"] = {"type": "json_object"}
    elif isinstance(form, dict):
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "format", "schema": form}}
    if isinstance(think := asked.get("think"), bool):
        body["chat_template_kwargs"] = {"enable_thinking": think}
    elif isinstance(think, str):
        body["reasoning_effort"] = think
    return body


def keep_alive_s(value: object) -> float | None:
    """Ollama's ``keep_alive`` (seconds, or "5m", "-1", "1h30m" is not one) as seconds; None when absent."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and (match := _DURATION.match(value.strip())):
        return float(match[1]) * _SECONDS[match[2]]
    raise BadRequestError("'keep_alive' must be seconds or a duration such as '5m'.", field="keep_alive")


def _list(asked: dict[str, Any], field: str) -> list[Any]:
    value = asked.get(field, [])
    if not isinstance(value, list):
        raise BadRequestError(f"'{field}' must be a list.", field=field)
    return value


def _generate_messages(asked: dict[str, Any]) -> list[dict[str, Any]]:
    system, prompt = asked.get("system") or "", asked.get("prompt") or ""
    if not isinstance(system, str) or not isinstance(prompt, str):
        raise BadRequestError("'prompt' and 'system' must be text.", field="prompt")
    user = _message({"role": "user", "content": prompt, "images": asked.get("images")})
    return [{"role": "system", "content": system}, user] if system else [user]


def _message(message: object) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise BadRequestError("'messages' must be a list of objects.", field="messages")
    made: dict[str, Any] = {"role": message.get("role"), "content": message.get("content") or ""}
    if images := message.get("images"):
        if not isinstance(images, list):
            raise BadRequestError("'images' must be a list.", field="messages.images")
        made["content"] = [{"type": "text", "text": made["content"]}, *(_image(image) for image in images)]
    if calls := message.get("tool_calls"):
        made["tool_calls"] = [_call_in(index, call) for index, call in enumerate(calls)]
    if message.get("role") == "tool":
        made["tool_call_id"] = str(message.get("tool_call_id") or message.get("tool_name") or "call_0")
    return made


def _image(image: object) -> dict[str, Any]:
    try:
        data = base64.b64decode(image if isinstance(image, str) else "", validate=True)
    except (ValueError, binascii.Error):
        data = b""
    kinds = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp", b"GIF8": "gif"}
    kind = next((name for magic, name in kinds.items() if data.startswith(magic)), None)
    if kind is None:
        raise BadRequestError("An image must be base64 of a PNG, JPEG, WebP or GIF.", field="messages.images")
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{image}"}}


def _call_in(index: int, call: object) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise BadRequestError("'tool_calls' must be a list of functions.", field="messages.tool_calls")
    arguments = msgspec.json.encode(function.get("arguments") or {}).decode()
    return {
        "id": f"call_{index}",
        "type": "function",
        "function": {"name": function.get("name"), "arguments": arguments},
    }


class OllamaStream:
    """A stream's dialect: canonical events to lines of JSON. ``chat`` or ``generate`` differ in where the text is."""

    content_type = "application/x-ndjson"

    def __init__(self, job: Job, *, chat: bool) -> None:
        self._job = job
        self._chat = chat
        self._tools: dict[int, dict[str, Any]] = {}
        self._reason = "stop"
        self._facts: dict[str, Any] = {}
        self._ended = False

    def content(self, events: bytes) -> bytes:
        """One line an event with text; the last line comes with ``[DONE]``."""
        lines = b"".join(self._line(payload) for payload in payloads(events))
        if events.endswith(b"data: [DONE]\n\n") and not self._ended:
            self._ended = True
            lines += self._last_line()
        return lines

    def waiting(self, state: State) -> bytes:
        """A line without text, which clients add to nothing."""
        return self._make("", {}, done=False)

    def last(self, ended: Ended) -> bytes:
        """An error line when the answer broke off."""
        if ended.error is None:
            return b""
        return stream_error(Shape.OLLAMA, ended.error)

    def _line(self, payload: bytes) -> bytes:
        try:
            chunk = msgspec.json.decode(payload)
        except msgspec.DecodeError:
            return b""
        if not isinstance(chunk, dict):
            return b""
        self._facts |= {name: chunk[name] for name in ("usage", "timings") if isinstance(chunk.get(name), dict)}
        choices = chunk.get("choices") or [{}]
        choice = choices[0] if isinstance(choices[0], dict) else {}
        self._reason = choice.get("finish_reason") or self._reason
        delta = choice.get("delta") or {}
        for call in delta.get("tool_calls") or ():
            self._collect(call)
        text, thinking = delta.get("content") or "", delta.get("reasoning_content") or delta.get("reasoning") or ""
        if not text and not thinking:
            return b""
        return self._make(text, {"thinking": thinking} if thinking else {}, done=False)

    def _collect(self, call: dict[str, Any]) -> None:
        """Tool calls come in pieces; Ollama's clients expect them whole."""
        function = call.get("function") or {}
        made = self._tools.setdefault(call.get("index") or 0, {"name": "", "arguments": ""})
        made["name"] += function.get("name") or ""
        made["arguments"] += function.get("arguments") or ""

    def _last_line(self) -> bytes:
        extra: dict[str, Any] = {"tool_calls": [call_out(call) for call in self._tools.values()]} if self._tools else {}
        return self._make("", extra, done=True)

    def _make(self, text: str, extra: dict[str, Any], *, done: bool) -> bytes:
        line: dict[str, Any] = {"model": self._job.model, "created_at": now()}
        if self._chat:
            line["message"] = {"role": "assistant", "content": text} | extra
        else:
            line |= {"response": text} | extra
        line["done"] = done
        if done:
            line |= ending(self._reason, self._facts, self._job)
        return msgspec.json.encode(line) + b"\n"


def whole(body: bytes, job: Job, *, chat: bool) -> dict[str, Any]:
    """A chat completion as Ollama's one-object answer."""
    answer = msgspec.json.decode(body)
    choice = (answer.get("choices") or [{}])[0]
    message = choice.get("message") or {}
    text = message.get("content") or ""
    thinking = message.get("reasoning_content") or message.get("reasoning")
    extra: dict[str, Any] = {"thinking": thinking} if thinking else {}
    if calls := message.get("tool_calls"):
        extra["tool_calls"] = [call_out(call.get("function") or {}) for call in calls]
    made: dict[str, Any] = {"model": job.model, "created_at": now()}
    made |= {"message": {"role": "assistant", "content": text} | extra} if chat else {"response": text} | extra
    return made | {"done": True} | ending(choice.get("finish_reason") or "stop", answer, job)


def call_out(function: dict[str, Any]) -> dict[str, Any]:
    """A function call whose arguments are an object, as Ollama has them."""
    try:
        arguments = msgspec.json.decode(function.get("arguments") or "{}")
    except msgspec.DecodeError:
        arguments = {}
    return {"function": {"name": function.get("name") or "", "arguments": arguments}}


def ending(reason: str, facts: dict[str, Any], job: Job) -> dict[str, Any]:
    """The counts and durations (nanoseconds) of a last line."""
    counts = numbers(facts)
    timings = facts.get("timings") or {}
    total_s = max(0.0, time.time() - job.created_at)
    return {
        "done_reason": "length" if reason == "length" else "stop",
        "total_duration": int(total_s * 1e9),
        "load_duration": int(job.loading_s * 1e9),
        "prompt_eval_count": counts.get("prompt_tokens", 0),
        "prompt_eval_duration": int(float(timings.get("prompt_ms") or 0) * 1e6),
        "eval_count": counts.get("completion_tokens", 0),
        "eval_duration": int(float(timings.get("predicted_ms") or 0) * 1e6),
    }


def tag(model: ModelInfo) -> dict[str, Any]:
    """A model as ``/api/tags`` and ``/api/ps`` list it."""
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": stamp(model.modified_at or 0.0),
        "size": model.size_bytes or 0,
        "digest": model.digest or "",
        "details": details(model),
    }


def details(model: ModelInfo) -> dict[str, Any]:
    """Ollama's ``details`` of a model."""
    return {
        "parent_model": "",
        "format": "gguf",
        "family": model.family,
        "families": [model.family] if model.family else [],
        "parameter_size": model.parameters,
        "quantization_level": model.quantisation,
    }


def stamp(at: float) -> str:
    """Unix seconds as RFC 3339."""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat().replace("+00:00", "Z")


def now() -> str:
    """This moment as RFC 3339."""
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
