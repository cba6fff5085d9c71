"""A canonical answer as the events of OpenAI's ``responses``, and the Response object they add up to.

The same answer gives the same events with the same numbers, however its chunks were cut and whenever it is told again:
that is what a client resumes by (``starting_after``).
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from router.answer import Answer
from router.chunks import NOT_JSON, assemble, numbers, payloads
from router.wire import Ended, ErrorInfo, Receipt

RESTART: Final = 1_000_000
"""Numbers between the streams of one response: an answer that begins again after a restart has higher ones."""

_CODES: Final = {"bad_request": "invalid_prompt", "queue_full": "rate_limit_exceeded"}
_PART: Final = {"text": "output_text", "refusal": "refusal", "reasoning": "reasoning_text"}

Event: TypeAlias = tuple[int, bytes]
"""A sequence number and the event as it is sent."""


class Translator:
    """State of one stream. ``response`` is the object as far as it has come; its events begin with ``opening``."""

    def __init__(self, response: dict[str, Any], job_id: str, restarts: int = 0) -> None:
        self.response = response
        self._job_id = job_id
        self._number = restarts * RESTART
        self._opened = False
        self._output: list[dict[str, Any]] = response["output"]
        self._places: dict[str, int] = {}
        self._open: dict[str, Any] | None = None  # the message or reasoning that grows; calls stay open to the end
        self._said: list[str] = []  # of its last part
        self._calls: dict[int, _Call] = {}
        self._facts: dict[str, Any] = {}
        self._reason = ""

    # -- what comes in

    def opening(self) -> list[Event]:
        """The events before all content; empty when they were told."""
        if self._opened:
            return []
        self._opened = True
        told = [self._with_response("response.created")]
        if self.response["background"]:
            told.append(self._with_response("response.queued"))
        return [*told, self._with_response("response.in_progress")]

    def events(self, events: bytes) -> list[Event]:
        """Chunks of a canonical stream."""
        told = self.opening()
        for payload in payloads(events):
            try:
                chunk = msgspec.json.decode(payload)
            except NOT_JSON:
                continue
            if isinstance(chunk, dict):
                told += self._chunk(chunk)
        return told

    def whole(self, body: bytes) -> list[Event]:
        """A whole canonical answer, as if it had come in one chunk."""
        try:
            answer = msgspec.json.decode(body)
        except NOT_JSON:
            return self.opening()
        return self.completion(answer) if isinstance(answer, dict) else self.opening()

    def completion(self, answer: dict[str, Any]) -> list[Event]:
        """The same, decoded."""
        choices = [c | {"delta": c.get("message")} for c in answer.get("choices") or () if isinstance(c, dict)]
        return self.opening() + self._chunk(answer | {"choices": choices[:1]})

    def answer(self, answer: Answer) -> None:
        """All that was said so far, for its object alone."""
        said = b"".join(data for _, data in answer.chunks)
        if answer.content_type == "application/json":
            self.whole(said)
        else:
            self.completion(assemble(said))
        self._settle()

    def end(self, ended: Ended, completed_at: float | None) -> list[Event]:
        """The job has ended: what is open is closed, and the last event tells how it ended."""
        told = self.opening()
        cut = self._end_state(ended)
        for item in [*([self._open] if self._open else []), *(c.item for c in self._calls.values() if c.item)]:
            told += self._close(item, "incomplete" if cut else "completed")
        self.response["usage"] = _usage(self._facts, ended.receipt)
        if completed_at is not None and not cut:
            self.response["completed_at"] = int(completed_at)
        status = self.response["status"]
        told.append(self._with_response(f"response.{'incomplete' if status == 'cancelled' else status}"))
        return told

    def _end_state(self, ended: Ended) -> bool:
        """Set status and cause; whether the answer is not whole."""
        if ended.error is not None:
            cancelled = ended.error.code == "cancelled"
            self.response["status"] = "cancelled" if cancelled else "failed"
            self.response["error"] = None if cancelled else error_of(ended.error)
        elif self._reason in ("length", "content_filter"):
            cause = "max_output_tokens" if self._reason == "length" else "content_filter"
            self.response |= {"status": "incomplete", "incomplete_details": {"reason": cause}}
        else:
            self.response["status"] = "completed"
        return bool(self.response["status"] != "completed")

    # -- chunks

    def _chunk(self, chunk: dict[str, Any]) -> list[Event]:
        self._facts |= {name: chunk[name] for name in ("usage", "timings") if isinstance(chunk.get(name), dict)}
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return []
        self._reason = choice.get("finish_reason") or self._reason
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return []
        told: list[Event] = []
        if thought := _words(delta, "reasoning_content") or _words(delta, "reasoning"):
            told += self._say("reasoning", thought, [])
        if text := _words(delta, "content"):
            told += self._say("text", text, _logprobs(choice))
        if refusal := _words(delta, "refusal"):
            told += self._say("refusal", refusal, [])
        pieces = delta.get("tool_calls")
        for place, piece in enumerate(pieces if isinstance(pieces, list) else ()):
            if isinstance(piece, dict):
                told += self._call(place, piece)
        return told

    def _say(self, kind: str, delta: str, logprobs: list[Any]) -> list[Event]:
        """More of a text; another kind than before begins a new part, and reasoning an item of its own."""
        told: list[Event] = []
        wanted = "reasoning" if kind == "reasoning" else "message"
        if self._open is not None and self._open["type"] != wanted:
            told += self._close(self._open, "completed")
        if self._open is None:
            told += self._begin(wanted)
        item = self._open
        assert item is not None  # noqa: S101 - _begin set it; this tells the type checker
        if not item["content"] or item["content"][-1]["type"] != _PART[kind]:
            if item["content"]:
                told += self._close_part(item)
            told += self._begin_part(item, kind)
        self._said.append(delta)
        extra: dict[str, Any] = {}
        if kind == "text":
            item["content"][-1]["logprobs"] += logprobs
            extra["logprobs"] = logprobs
        told.append(self._in_part(f"response.{_PART[kind]}.delta", item, delta=delta, **extra))
        return told

    def _call(self, place: int, piece: dict[str, Any]) -> list[Event]:
        """More of a function call; it begins once its name is known."""
        index = piece.get("index")
        call = self._calls.setdefault(index if type(index) is int else place, _Call())
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        call.call_id = call.call_id or _words(piece, "id")
        call.name = call.name or _words(function, "name")
        call.waiting += _words(function, "arguments")
        if not call.name:
            return []
        told = self._close(self._open, "completed") if self._open is not None else []
        if call.item is None:
            told += self._begin("function_call", call_id=call.call_id, name=call.name)
            call.item = self._output[-1]
        if call.waiting:
            delta, call.waiting = call.waiting, ""
            call.item["arguments"] += delta
            told.append(self._of_item("response.function_call_arguments.delta", call.item, delta=delta))
        return told

    # -- items

    def _begin(self, kind: str, *, call_id: str = "", name: str = "") -> list[Event]:
        place = len(self._output)
        item: dict[str, Any] = {"id": "", "type": kind, "status": "in_progress"}
        if kind == "function_call":
            item |= {"call_id": call_id or f"call_{self._job_id}_{place}", "name": name, "arguments": ""}
        else:
            item["role" if kind == "message" else "summary"] = "assistant" if kind == "message" else []
            item["content"] = []
            self._open = item
        prefix = {"message": "msg", "reasoning": "rs", "function_call": "fc"}[kind]
        item["id"] = f"{prefix}_{self._job_id}_{place}"
        self._output.append(item)
        self._places[item["id"]] = place
        return [self._event("response.output_item.added", output_index=place, item=item)]

    def _close(self, item: dict[str, Any], status: str) -> list[Event]:
        item["status"] = status
        if item is self._open:
            told = self._close_part(item)
            self._open = None
        else:
            told = [self._of_item("response.function_call_arguments.done", item, arguments=item["arguments"])]
        return [*told, self._event("response.output_item.done", output_index=self._places[item["id"]], item=item)]

    def _begin_part(self, item: dict[str, Any], kind: str) -> list[Event]:
        empty: dict[str, Any] = {"type": _PART[kind]}
        empty["refusal" if kind == "refusal" else "text"] = ""
        if kind == "text":
            empty |= {"annotations": [], "logprobs": []}
        item["content"].append(empty)
        return [self._in_part("response.content_part.added", item, part=empty)]

    def _settle(self) -> None:
        """What was said becomes the text of its part."""
        if self._open is not None and self._said:
            part = self._open["content"][-1]
            part["refusal" if part["type"] == "refusal" else "text"] += "".join(self._said)
            self._said.clear()

    def _close_part(self, item: dict[str, Any]) -> list[Event]:
        self._settle()
        part = item["content"][-1]
        said = {name: part[name] for name in ("text", "refusal", "logprobs") if name in part}
        return [
            self._in_part(f"response.{part['type']}.done", item, **said),
            self._in_part("response.content_part.done", item, part=part),
        ]

    # -- events

    def _in_part(self, kind: str, item: dict[str, Any], **fields: Any) -> Event:
        return self._of_item(kind, item, content_index=len(item["content"]) - 1, **fields)

    def _of_item(self, kind: str, item: dict[str, Any], **fields: Any) -> Event:
        return self._event(kind, item_id=item["id"], output_index=self._places[item["id"]], **fields)

    def _with_response(self, kind: str) -> Event:
        """``queued`` is what it was when it was told, whatever it is by now."""
        status = {"response.created": self._first, "response.queued": "queued"}.get(kind, self.response["status"])
        return self._event(kind, response=self.response | {"status": status})

    @property
    def _first(self) -> str:
        return "queued" if self.response["background"] else "in_progress"

    def _event(self, kind: str, **fields: Any) -> Event:
        number = self._number
        self._number += 1
        data = msgspec.json.encode({"type": kind, "sequence_number": number} | fields)
        return number, b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


class _Call:
    """A function call as its pieces come."""

    def __init__(self) -> None:
        self.call_id = ""
        self.name = ""
        self.waiting = ""
        self.item: dict[str, Any] | None = None


def _words(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) else ""


def _logprobs(choice: dict[str, Any]) -> list[Any]:
    found = choice.get("logprobs")
    content = found.get("content") if isinstance(found, dict) else None
    return [{"top_logprobs": []} | one for one in content if isinstance(one, dict)] if isinstance(content, list) else []


def error_of(error: ErrorInfo) -> dict[str, Any]:
    """The ``error`` of a Response: one of OpenAI's codes, our own as its type."""
    return {"code": _CODES.get(error.code, "server_error"), "message": error.message, "type": error.code}


def _usage(facts: dict[str, Any], receipt: Receipt | None) -> dict[str, Any] | None:
    """Tokens as the engine counted them; None when it did not tell."""
    counts = numbers(facts)
    asked = counts.get("prompt_tokens", receipt.prompt_tokens if receipt else None)
    made = counts.get("completion_tokens", receipt.completion_tokens if receipt else None)
    if asked is None or made is None:
        return None
    usage = facts.get("usage")
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    thought = details.get("reasoning_tokens") if isinstance(details, dict) else None
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": counts.get("cached_tokens", 0), "cache_write_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": thought if type(thought) is int else 0},
        "total_tokens": asked + made,
    }
