"""A paired computer as one more engine: its models are held there, its answers are checked event by event."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import msgspec

from router.engines.base import Call, EngineModel, EngineSnapshot, Kind, Reply
from router.engines.peer_stream import PeerStream
from router.engines.peer_transport import PeerReply, PeerTransport
from router.errors import CODES, EngineFault
from router.health import Failure, Health
from router.peer_client import CONNECT_S, REFUSAL_MAX_BYTES, PeerClient, PeerFault, decoded
from router.prediction import Speed
from router.wire_snapshot import PeerModel, PeerSnapshot, one_line

RUN: Final = "/peer/v1/run"
ACCEPT_S: Final = 2.0
QUIET_FIRST_S: Final = 3.0
QUIET_S: Final = 8.0
REFUSAL_S: Final = 0.5
ID_LETTERS: Final = 12
SENTENCE_MAX: Final = 300

_UNKNOWN: Final = EngineSnapshot(ready=False, detail="It has not been reached yet.")
_FINAL: Final = frozenset({400, 413, 415, 422})


class PeerEngine:
    """One paired computer. ``update`` gets each new look at it: what ``show`` is given, and what calls find wrong."""

    kind = "peer"
    local = False

    def __init__(self, client: PeerClient, health: Health, update: Callable[[str, EngineSnapshot], None]) -> None:
        self.client = client
        self.node = client.peer.node_id
        self.id = f"peer-{self.node[:ID_LETTERS]}"
        self.label = client.peer.name
        self._health = health
        self._update = update
        self._look = _UNKNOWN
        self._transport = PeerTransport(self.label, client.peer.certificate_sha256, client.headers)

    @property
    def url(self) -> str:
        host, port = self.client.place
        return f"https://{host}:{port}" if host else ""

    @property
    def width(self) -> int:
        return max(1, self._look.width)

    async def start(self) -> None:
        """Nothing to do: the link tells what is there."""

    async def stop(self) -> None:
        """Close the connections that are kept; what runs goes on."""
        self.drop_connections()

    def drop_connections(self) -> None:
        """The kept connections are void: this machine slept, or the peer is let go."""
        self._transport.close()
        self.client.drop_idle()

    async def poll(self) -> EngineSnapshot:
        """What is known now; the peer tells of changes by itself."""
        return self._look

    def show(self, look: EngineSnapshot) -> None:
        """A newer look at the peer."""
        self._look = look
        self._update(self.id, look)

    async def load(
        self,
        model: str,
        *,
        keep_alive_s: float | None = None,
        progress: Callable[[int], None] | None = None,
        kind: Kind = Kind.CHAT,
    ) -> None:
        """Raises EngineFault: a peer loads by itself, when a job needs it."""
        raise EngineFault(f"{self.label} loads its models by itself, when a request needs them.", retryable=False)

    async def unload(self, model: str) -> None:
        """Raises EngineFault: only its own user frees a peer's memory."""
        raise EngineFault(f"Models of {self.label} are unloaded there.", retryable=False)

    def needs_load(self, model: str, kind: Kind = Kind.CHAT) -> bool:
        return False

    @asynccontextmanager
    async def call(self, call: Call) -> AsyncIterator[Reply]:
        """Send one request; leaving the block before the end closes the connection, which cancels it there."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                try:
                    async with asyncio.timeout(ACCEPT_S) as limit:
                        reply = await self._accepted(stack, call, limit)
                except TimeoutError:
                    raise PeerFault(f"{self.label} did not take the request in time.", Failure.SILENT) from None
                yield reply
        except PeerFault as fault:
            if fault.code == "model_not_found":
                self._lost(call.model)
            if fault.failure is not None:
                self._health.failed(self.id, call.model, fault.failure, fault.message)
            raise

    async def _accepted(self, stack: contextlib.AsyncExitStack, call: Call, limit: asyncio.Timeout) -> PeerReply:
        """The answer, once the peer has taken the request; ``stack`` gets what must be closed. Raises PeerFault."""
        posting = self._transport.post(self.client.place, RUN, _request(call), CONNECT_S, limit)
        source = await stack.enter_async_context(posting)
        if source.status != 200:
            raise await self._refused(source, call)
        kind = "text/event-stream" if call.stream else "application/json"
        reply = PeerReply(self.label, kind, source, (QUIET_FIRST_S, QUIET_S))
        reply.stream = PeerStream(self.label, call, reply, lambda: self._health.succeeded(self.id, call.model))
        await reply.accepted()
        return reply

    async def _refused(self, source: Reply, call: Call) -> PeerFault:
        """The peer took no job. What it says is passed on, what its status means is decided here."""
        body = bytearray()
        with contextlib.suppress(TimeoutError, EngineFault):
            async with asyncio.timeout(REFUSAL_S):
                async for data in source.chunks:
                    body += data
                    if len(body) > REFUSAL_MAX_BYTES:
                        break
        status = source.status
        code, message = _said(decoded(bytes(body)))
        message = message or f"{self.label} answered {status}."
        if status in (401, 403):
            self.show(replace(self._look, ready=False, trusted=False, detail=message))
            return PeerFault(message, None)
        if status == 404 and code == "model_not_found":
            return PeerFault(message, None, code="model_not_found")
        if status in (429, 503):
            return PeerFault(f"{self.label}: {message}", Failure.SHED)
        if status in _FINAL:
            return PeerFault(
                message, None, code="payload_too_large" if status == 413 else "bad_request", retryable=False
            )
        return PeerFault(f"{self.label}: {message}", Failure.BROKEN)

    def _lost(self, model: str) -> None:
        """The peer does not have the model, whatever it told."""
        left = tuple(held for held in self._look.models if held.name != model)
        if len(left) < len(self._look.models):
            self.show(replace(self._look, models=left))


class _Run(msgspec.Struct):
    origin_job: str
    try_: int = msgspec.field(name="try")
    deadline_s: float | None
    digest: str | None
    model: str
    kind: str
    body: msgspec.Raw
    stream: bool
    keep_alive_s: float | None


def _request(call: Call) -> bytes:
    return msgspec.json.encode(
        _Run(
            origin_job=call.request_id,
            try_=call.try_no,
            deadline_s=call.deadline_s,
            digest=call.digest,
            model=call.model,
            kind=call.kind.name.lower(),
            body=msgspec.Raw(call.body),
            stream=call.stream,
            keep_alive_s=call.keep_alive_s,
        )
    )


def _said(answer: Any) -> tuple[str, str]:
    """Code and sentence of a refusal, as far as they can be used."""
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return "", ""
    code, message = error.get("code"), error.get("message")
    return (
        code if isinstance(code, str) and code in CODES else "",
        one_line(message, SENTENCE_MAX) if isinstance(message, str) else "",
    )


def look_of(snapshot: PeerSnapshot) -> EngineSnapshot:
    """What a peer tells, as the registry holds it."""
    return EngineSnapshot(
        ready=True,
        models=tuple(map(_model, snapshot.models)),
        detail="" if snapshot.mode.takes_work else f"It is {snapshot.mode}.",
        version=snapshot.version,
        mode=snapshot.mode,
        width=snapshot.width,
        in_flight=snapshot.in_flight,
        waiting=snapshot.waiting,
        free_vram_bytes=snapshot.vram_free_bytes,
        free_ram_bytes=snapshot.ram_free_bytes,
    )


def away(held: Sequence[PeerModel], why: str, trusted: bool) -> EngineSnapshot:
    """A peer that can't be asked now, which held these models when it told last; none counts as loaded."""
    models = tuple(replace(_model(model), resident=False) for model in held)
    return EngineSnapshot(ready=False, models=models, detail=why, trusted=trusted)


def _model(model: PeerModel) -> EngineModel:
    return EngineModel(
        name=model.name,
        digest=model.digest,
        size_bytes=model.size_bytes,
        family=model.family,
        parameters=model.parameters,
        quantisation=model.quantisation,
        context=model.context,
        capabilities=frozenset(model.capabilities),
        resident=model.resident,
        source=model.engine_kind,
        problem=model.problem,
        speed=Speed(model.prefill_per_s, model.tokens_per_s, model.load_s),
    )
