"""A canonical answer as the events of Anthropic's messages, and as one message."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from router.chunks import NOT_JSON, numbers, payloads
from router.jobs import Job
from router.web.answers import Shape, stream_error
from router.wire import Ended, Receipt, State

PING_S: Final = 5.0
_PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'
_REASONS: Final = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


class _Call:
    """A tool's call as its pieces come."""

    def __init__(self) -> None:
        self.call_id = ""
        self.name = ""
        self.arguments = ""


class AnthropicStream:
    """The dialect. Blocks come one after the other, as its clients expect: what another block says meanwhile waits."""

    content_type = "text/event-stream"

    def __init__(self, job: Job, *, thinking: bool, stops: list[str]) -> None:
        self._job = job
        self._thinking = thinking
        self._stops = stops
        self._opened = False
        self._index = -1
        self._open = ""  # the type of the block that is open
        self._calls: dict[int, _Call] = {}
        self._first: int | None = None  # the call whose arguments are told as they come
        self._after: list[str] = []
        self._facts: dict[str, Any] = {}
        self._reason = ""
        self._stop: str | None = None
        self._pinged = 0.0

    def content(self, events: bytes) -> bytes:
        """Each chunk as its events."""
        told = self._opening()
        for payload in payloads(events):
            try:
                chunk = msgspec.json.decode(payload)
            except NOT_JSON:
                continue
            if isinstance(chunk, dict):
                told += self._chunk(chunk)
        return told

    def waiting(self, state: State) -> bytes:
        """The message has begun; a ping."""
        return self._opening() + _PING

    def last(self, ended: Ended) -> bytes:
        """What waited, then how it ended; an error event when it broke off."""
        told = self._opening()
        if ended.error is not None:
            return told + stream_error(Shape.ANTHROPIC, ended.error)
        told += self._close()
        if self._after:
            told += self._begin("text", text="") + self._delta("text_delta", text="".join(self._after)) + self._close()
        for place, call in self._calls.items():
            if place != self._first and call.name:
                told += self._begin_call(place, call) + self._more(call) + self._close()
        reason = stop_reason(self._reason, called=bool(self._calls), stop=self._stop)
        delta = {"stop_reason": reason, "stop_sequence": self._stop}
        told += _event("message_delta", delta=delta, usage=usage(self._facts, ended.receipt))
        return told + _event("message_stop")

    # -- chunks

    def _chunk(self, chunk: dict[str, Any]) -> bytes:
        self._facts |= {name: chunk[name] for name in ("usage", "timings") if isinstance(chunk.get(name), dict)}
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return b""
        self._reason = choice.get("finish_reason") or self._reason
        self._stop = self._stop or matched(choice, self._stops)
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return b""
        told = b""
        if thought := words(delta, "reasoning_content") or words(delta, "reasoning"):
            told += self._thought(thought)
        if text := words(delta, "content") or words(delta, "refusal"):
            told += self._text(text)
        pieces = delta.get("tool_calls")
        for place, piece in enumerate(pieces if isinstance(pieces, list) else ()):
            if isinstance(piece, dict):
                told += self._piece(place, piece)
        return told

    def _thought(self, thought: str) -> bytes:
        """Shown to those who asked for it; others hear at times that something goes on."""
        if not self._thinking or self._first is not None:
            now = asyncio.get_running_loop().time()
            if now - self._pinged < PING_S:
                return b""
            self._pinged = now
            return _PING
        begin = b"" if self._open == "thinking" else self._begin("thinking", thinking="", signature="")
        return begin + self._delta("thinking_delta", thinking=thought)

    def _text(self, text: str) -> bytes:
        if self._first is not None:
            self._after.append(text)
            return b""
        begin = b"" if self._open == "text" else self._begin("text", text="")
        return begin + self._delta("text_delta", text=text)

    def _piece(self, place: int, piece: dict[str, Any]) -> bytes:
        index = piece.get("index")
        place = index if type(index) is int else place
        call = self._calls.setdefault(place, _Call())
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        call.call_id = call.call_id or words(piece, "id")
        call.name = call.name or words(function, "name")
        call.arguments += words(function, "arguments")
        if not call.name or self._first not in (None, place):
            return b""
        told = b"" if self._first == place else self._begin_call(place, call)
        self._first = place
        return told + self._more(call)

    # -- blocks

    def _opening(self) -> bytes:
        if self._opened:
            return b""
        self._opened = True
        message = message_of(self._job) | {"content": [], "usage": usage({}, None)}
        return _event("message_start", message=message)

    def _begin(self, kind: str, **fields: Any) -> bytes:
        closed = self._close()
        self._index += 1
        self._open = kind
        return closed + _event("content_block_start", index=self._index, content_block={"type": kind} | fields)

    def _begin_call(self, place: int, call: _Call) -> bytes:
        call_id = call.call_id or f"toolu_{self._job.id}_{place}"
        return self._begin("tool_use", id=call_id, name=call.name, input={})

    def _more(self, call: _Call) -> bytes:
        """The arguments that have not been told."""
        told, call.arguments = call.arguments, ""
        return self._delta("input_json_delta", partial_json=told) if told else b""

    def _delta(self, kind: str, **fields: Any) -> bytes:
        return _event("content_block_delta", index=self._index, delta={"type": kind} | fields)

    def _close(self) -> bytes:
        if not self._open:
            return b""
        self._open = ""
        return _event("content_block_stop", index=self._index)


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode({"type": kind} | fields))


def whole(body: bytes, job: Job, *, thinking: bool, stops: list[str]) -> dict[str, Any]:
    """A whole chat completion as a message."""
    answer = msgspec.json.decode(body)
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    said = choice.get("message")
    said = said if isinstance(said, dict) else {}
    blocks: list[dict[str, Any]] = []
    if thinking and (thought := words(said, "reasoning_content") or words(said, "reasoning")):
        blocks.append({"type": "thinking", "thinking": thought, "signature": ""})
    if text := words(said, "content") or words(said, "refusal"):
        blocks.append({"type": "text", "text": text})
    calls = said.get("tool_calls")
    found = [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    blocks += [_tool_use(call, f"toolu_{job.id}_{place}") for place, call in enumerate(found)]
    stop = matched(choice, stops)
    ending = {"stop_reason": stop_reason(choice.get("finish_reason") or "", called=bool(found), stop=stop)}
    return message_of(job) | ending | {"stop_sequence": stop, "content": blocks, "usage": usage(answer, job.receipt)}


def _tool_use(call: dict[str, Any], usual_id: str) -> dict[str, Any]:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    try:
        given = msgspec.json.decode(words(function, "arguments") or "{}")
    except NOT_JSON:
        given = {}
    return {
        "type": "tool_use",
        "id": words(call, "id") or usual_id,
        "name": words(function, "name"),
        "input": given if isinstance(given, dict) else {},
    }


def message_of(job: Job) -> dict[str, Any]:
    """A message that has only begun."""
    return {
        "id": f"msg_{job.id}",
        "type": "message",
        "role": "assistant",
        "model": job.model,
        "stop_reason": None,
        "stop_sequence": None,
    }


def stop_reason(finish: str, *, called: bool, stop: str | None) -> str:
    """Why it ended, in Anthropic's words; some engines say ``stop`` when they call a tool."""
    if called and finish != "length":
        return "tool_use"
    return "stop_sequence" if stop is not None else _REASONS.get(finish, "end_turn")


def matched(choice: dict[str, Any], stops: list[str]) -> str | None:
    """The stop sequence that ended the answer, where the engine tells (vLLM does)."""
    reason = choice.get("stop_reason")
    return reason if isinstance(reason, str) and reason in stops else None


def words(value: dict[str, Any], name: str) -> str:
    """The text ``name``, else nothing."""
    found = value.get(name)
    return found if isinstance(found, str) else ""


def usage(facts: dict[str, Any], receipt: Receipt | None) -> dict[str, int]:
    """Tokens; Anthropic counts those of the cache apart."""
    counts = numbers(facts)
    asked = counts.get("prompt_tokens", receipt.prompt_tokens if receipt else None) or 0
    made = counts.get("completion_tokens", receipt.completion_tokens if receipt else None) or 0
    cached = min(asked, counts.get("cached_tokens", 0))
    return {
        "input_tokens": asked - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": made,
    }
