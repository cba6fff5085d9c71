"""Between Ollama's shapes and the canonical (OpenAI) ones: requests one way, answers the other. No I/O."""

from __future__ import annotations

import base64
import binascii
import datetime
import re
import time
from typing import Any

import msgspec

from router.chunks import NOT_JSON, numbers, payloads
from router.errors import BadRequestError, EngineFault
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
_DURATION = re.compile(r"-?(\d+(\.\d+)?(ms|s|m|h))+|-?\d+(\.\d+)?", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_MS_MAX = 1e12


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
    """Ollama's ``keep_alive`` (seconds, or "5m", "1h30m", "-1") as seconds; None when absent."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MS_MAX:
        return float(value)
    if isinstance(value, str) and len(value) <= 32 and _DURATION.fullmatch(said := value.strip()):
        total_s = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(said))
        return -total_s if said.startswith("-") else total_s
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
    if message.get("tool_calls"):
        made["tool_calls"] = [_call_in(index, call) for index, call in enumerate(_list(message, "tool_calls"))]
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
            chunk = _dict(msgspec.json.decode(payload))
        except NOT_JSON:
            return b""
        self._facts |= {name: chunk[name] for name in ("usage", "timings") if isinstance(chunk.get(name), dict)}
        choice = _first_choice(chunk)
        self._reason = _text(choice.get("finish_reason")) or self._reason
        delta = _dict(choice.get("delta"))
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            self._collect(_dict(call))
        text, thinking = _text(delta.get("content")), _thinking(delta)
        if not text and not thinking:
            return b""
        return self._make(text, {"thinking": thinking} if thinking else {}, done=False)

    def _collect(self, call: dict[str, Any]) -> None:
        """Tool calls come in pieces; Ollama's clients expect them whole."""
        function, index = _dict(call.get("function")), call.get("index")
        made = self._tools.setdefault(index if isinstance(index, int) else 0, {"name": "", "arguments": ""})
        made["name"] += _text(function.get("name"))
        made["arguments"] += _text(function.get("arguments"))

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
    """A chat completion as Ollama's one-object answer. Raises EngineFault where it is none."""
    try:
        answer = _dict(msgspec.json.decode(body))
    except NOT_JSON:
        raise EngineFault("The engine's answer is not JSON.") from None
    choice = _first_choice(answer)
    message = _dict(choice.get("message"))
    text, thinking, calls = _text(message.get("content")), _thinking(message), message.get("tool_calls")
    extra: dict[str, Any] = {"thinking": thinking} if thinking else {}
    if calls and isinstance(calls, list):
        extra["tool_calls"] = [call_out(_dict(_dict(call).get("function"))) for call in calls]
    made: dict[str, Any] = {"model": job.model, "created_at": now()}
    made |= {"message": {"role": "assistant", "content": text} | extra} if chat else {"response": text} | extra
    return made | {"done": True} | ending(_text(choice.get("finish_reason")), answer, job)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _thinking(said: dict[str, Any]) -> str:
    return _text(said.get("reasoning_content")) or _text(said.get("reasoning"))


def _first_choice(answer: dict[str, Any]) -> dict[str, Any]:
    choices = answer.get("choices")
    return _dict(choices[0]) if isinstance(choices, list) and choices else {}


def _nanoseconds(ms: object) -> int:
    if not isinstance(ms, int | float) or isinstance(ms, bool):
        return 0
    return int(ms * 1e6) if 0 <= ms < _MS_MAX else 0


def call_out(function: dict[str, Any]) -> dict[str, Any]:
    """A function call whose arguments are an object, as Ollama has them."""
    try:
        arguments = _dict(msgspec.json.decode(_text(function.get("arguments")) or "{}"))
    except NOT_JSON:
        arguments = {}
    return {"function": {"name": _text(function.get("name")), "arguments": arguments}}


def ending(reason: str, facts: dict[str, Any], job: Job) -> dict[str, Any]:
    """The counts and durations (nanoseconds) of a last line."""
    counts = numbers(facts)
    timings = _dict(facts.get("timings"))
    total_s = max(0.0, time.time() - job.created_at)
    return {
        "done_reason": "length" if reason == "length" else "stop",
        "total_duration": int(total_s * 1e9),
        "load_duration": int(job.loading_s * 1e9),
        "prompt_eval_count": counts.get("prompt_tokens", 0),
        "prompt_eval_duration": _nanoseconds(timings.get("prompt_ms")),
        "eval_count": counts.get("completion_tokens", 0),
        "eval_duration": _nanoseconds(timings.get("predicted_ms")),
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
