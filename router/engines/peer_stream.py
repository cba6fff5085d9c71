"""What a peer sends for one run, checked event by event and given on in OpenAI's form; nothing is passed unread.

Events: ``: accepted`` first; ``: beat``; ``event: state|body|facts|error``; plain ``data:`` chunks; ``data: [DONE]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from router.chunks import COUNT_MAX, has_content, stream_error
from router.engines.base import Call, Reply
from router.errors import CODES
from router.health import Failure
from router.peer_client import PeerFault
from router.wire import ErrorInfo, Receipt, State
from router.wire_snapshot import one_line

EVENT_MAX_BYTES: Final = 8 * 2**20
BODY_MAX_BYTES: Final = 64 * 2**20
SENTENCE_MAX: Final = 300
STATES_MAX: Final = 10_000
SECONDS_MAX: Final = 864_000.0
WHY_MAX: Final = 40

_Number = TypeVar("_Number", int, float)

_NOT_JSON: Final = (msgspec.DecodeError, ValueError, RecursionError)
_DONE: Final = b"[DONE]"
_MEASURED: Final = ("prompt_tokens", "cached_tokens", "completion_tokens", "prefill_per_s", "tokens_per_s")
_FIELDS: Final = (b"data", b"event", b"id", b"retry", b"")
_FINAL: Final = frozenset({"bad_request", "payload_too_large", "unsupported_media_type", "poison", "deadline_exceeded"})
_SHED: Final = frozenset({"queue_full", "paused", "models_busy", "model_loading", "no_holder_available"})


class _Chunk(msgspec.Struct):
    """A JSON object of any kind: decoding it proves that it is one."""


_CHUNK: Final = msgspec.json.Decoder(_Chunk)
_STATE: Final = msgspec.json.Decoder(State)
_ERROR: Final = msgspec.json.Decoder(ErrorInfo)
_RECEIPT: Final = msgspec.json.Decoder(Receipt)


def _sane(told: State) -> State:
    """How the job stands there, in words and numbers that can be shown."""
    return replace(
        told,
        place=_true(told.place),
        eta_s=_true(told.eta_s),
        loading_pct=None if told.loading_pct is None else max(0, min(told.loading_pct, 100)),
        why=one_line(told.why, WHY_MAX),
    )


def _true(number: _Number | None) -> _Number | None:
    return number if number is not None and 0 <= number < COUNT_MAX else None


def _bounded(told: Receipt) -> Receipt:
    """What a peer measured, without what can't be true: a number has as many digits as its sender likes."""
    kept = {name: _true(getattr(told, name)) for name in _MEASURED}
    waits = {name: max(0.0, min(getattr(told, name), SECONDS_MAX)) for name in ("queued_s", "loading_s")}
    return replace(told, **kept, **waits)


class PeerStream:
    """The state of one answer. ``feed`` raises PeerFault.

    ``answered`` is called once: with the first content, the body, or the end of an empty answer.
    """

    def __init__(self, label: str, call: Call, reply: Reply, answered: Callable[[], None]) -> None:
        self.accepted = False
        self.content = False
        self.ended = False
        self.fault: PeerFault | None = None
        self.events = 0
        self._begun = False
        self._states = 0
        self._label = label
        self._call = call
        self._reply = reply
        self._answered = answered
        self._rest = bytearray()
        self._out: list[bytes] = []
        self._last = b""

    def take(self) -> bytes:
        """What is ready to be given on."""
        out, self._out = self._out, []
        return out[0] if len(out) == 1 else b"".join(out)

    def feed(self, data: bytes) -> None:
        """Bytes as they came. Raises PeerFault; after something for ``take``, the fault waits in ``fault`` instead."""
        try:
            self._feed(data)
        except PeerFault as fault:
            if not self._out:
                raise
            self.fault = fault

    def _feed(self, data: bytes) -> None:
        if b"\r" in data:
            data = data.replace(b"\r", b"")
        self._rest += data
        if b"\n\n" not in self._rest[-len(data) - 1 :]:
            if len(self._rest) > (EVENT_MAX_BYTES if self._call.stream else BODY_MAX_BYTES):
                raise self._odd("sent an endless line")
            return
        *events, rest = bytes(self._rest).split(b"\n\n")
        self._rest = bytearray(rest)
        for event in events:
            if self.ended:
                return
            if event:
                self.events += 1
                self._event(event)

    def _event(self, event: bytes) -> None:
        if not self.accepted:
            if event != b": accepted":
                raise self._odd("did not accept the request first")
            self.accepted = True
        elif event.startswith(b"data: {") and b"\n" not in event:
            self._chunk(event[6:])
        elif event[:1] != b":" or b"\n" in event:
            self._named(event)

    def _named(self, event: bytes) -> None:
        """Anything but a plain chunk or a comment."""
        name, lines = b"", []
        for line in event.split(b"\n"):
            field, _, value = line.partition(b":")
            if field not in _FIELDS:
                raise self._odd("sent something that is not understood")
            value = value[1:] if value.startswith(b" ") else value
            if field == b"event":
                name = value
            elif field == b"data":
                lines.append(value)
        payload = b"\n".join(lines)
        match name:
            case b"":
                if payload.strip() == _DONE:
                    self._done()
                elif payload:
                    self._chunk(payload)
            case b"state":
                self._state(self._decoded(_STATE, payload))
            case b"body":
                self._body(payload)
            case b"facts":
                self._reply.facts = _bounded(self._decoded(_RECEIPT, payload))
            case b"error":
                raise self._failed(self._decoded(_ERROR, payload))
            case _:
                pass  # a newer peer may tell more

    def _chunk(self, payload: bytes) -> None:
        if not self._call.stream or b"\n" in payload:
            raise self._odd("sent a chunk where none belongs")
        self._object(payload)
        event = b"data: " + payload + b"\n\n"
        if b'"error"' in payload and (found := stream_error(event)) is not None:
            raise PeerFault(f"{self._label}: {found[1].message}", Failure.BROKEN)
        self._begun = True
        if not self.content and has_content(event):
            self._has_answered()
        self._last = payload if b'"finish_reason"' in payload else self._last
        self._out.append(event)

    def _state(self, state: State) -> None:
        self._states += 1
        if self._states > STATES_MAX:
            raise self._odd("tells of the same job without end")
        if self._call.told is not None:
            self._call.told(_sane(state))

    def _body(self, payload: bytes) -> None:
        if self._call.stream or self._begun:
            raise self._odd("sent a body where none belongs")
        self._object(payload)
        self._begun = True
        self._has_answered()
        self._out.append(payload)

    def _has_answered(self) -> None:
        if not self.content:
            self.content = True
            self._answered()

    def _done(self) -> None:
        """An end is only believed of an answer that came to one."""
        if not self._begun or (self._reply.facts is None and not self._finished()):
            raise self._odd("ended an answer that is not complete")
        self.ended = True
        self._has_answered()
        if self._call.stream:
            self._out.append(b"data: [DONE]\n\n")

    def _finished(self) -> bool:
        if not self._call.stream:
            return True
        chunk = msgspec.json.decode(self._last) if self._last else {}
        choices = chunk.get("choices")
        return isinstance(choices, list) and any(isinstance(c, dict) and c.get("finish_reason") for c in choices)

    def _object(self, payload: bytes) -> None:
        """A JSON object that is given on as it is. msgspec does not look at the letters of what it skips."""
        self._decoded(_CHUNK, payload)
        if not payload.isascii():
            try:
                payload.decode()
            except UnicodeDecodeError:
                raise self._odd("sent something that is not understood") from None

    def _decoded(self, decoder: msgspec.json.Decoder[Any], payload: bytes) -> Any:
        try:
            return decoder.decode(payload)
        except _NOT_JSON:
            raise self._odd("sent something that is not understood") from None

    def _failed(self, error: ErrorInfo) -> PeerFault:
        """What the peer says went wrong there; only a code that is known is believed."""
        message = one_line(error.message, SENTENCE_MAX) or f"{self._label} reports an error."
        hint = one_line(error.hint, SENTENCE_MAX)
        if error.code == "model_not_found":
            return PeerFault(message, None, hint, code="model_not_found")
        if error.code in _FINAL:
            return PeerFault(message, None, hint, code=error.code, retryable=False)
        if error.code in _SHED:
            return PeerFault(f"{self._label}: {message}", Failure.SHED, hint)
        code = error.code if error.code in CODES and error.code not in ("cancelled", "interrupted") else "peer_failed"
        return PeerFault(f"{self._label}: {message}", Failure.BROKEN, hint, code=code)

    def _odd(self, what: str) -> PeerFault:
        return PeerFault(f"{self._label} {what}.", Failure.BROKEN)
