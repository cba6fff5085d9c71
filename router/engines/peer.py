"""A paired computer as one more engine: its models are held there, its answers are checked event by event."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import aiohttp
import msgspec

from router.engines.base import Call, EngineModel, EngineSnapshot, Kind, Reply
from router.engines.peer_stream import PeerStream
from router.errors import CODES, EngineFault
from router.health import Failure, Health
from router.peer_client import PeerClient, PeerFault, decoded, small
from router.wire_snapshot import PeerModel, PeerSnapshot, one_line

ACCEPT_S: Final = 2.0
QUIET_FIRST_S: Final = 3.0
QUIET_S: Final = 8.0
REST_S: Final = 0.05
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
        """Nothing to do: the link and the session belong to the node."""

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
            answer_by = asyncio.get_running_loop().time() + ACCEPT_S
            async with self.client.open("POST", "/peer/v1/run", body=_request(call), answer_s=ACCEPT_S) as response:
                if response.status != 200:
                    raise await self._refused(response, call)
                kind = "text/event-stream" if call.stream else "application/json"
                reply = Reply(200, kind, _nothing())
                stream = PeerStream(self.label, call, reply, lambda: self._health.succeeded(self.id, call.model))
                source = _Source(response, self.label)
                while not stream.accepted:
                    stream.feed(await source.read(answer_by - source.now(), accepted=False))
                reply.chunks = self._chunks(stream, source)
                yield reply
        except PeerFault as fault:
            if fault.code == "model_not_found":
                self._lost(call.model)
            if fault.failure is not None:
                self._health.failed(self.id, call.model, fault.failure, fault.message)
            raise

    async def _chunks(self, stream: PeerStream, source: _Source) -> AsyncIterator[bytes]:
        while True:
            if out := stream.take():
                yield out
            if stream.ended:
                await source.rest()
                return
            if stream.fault is not None:
                raise stream.fault
            stream.feed(await source.read(QUIET_S if stream.content else QUIET_FIRST_S))

    async def _refused(self, response: aiohttp.ClientResponse, call: Call) -> PeerFault:
        """The peer took no job. What it says is passed on, what its status means is decided here."""
        try:
            async with asyncio.timeout(ACCEPT_S):
                said = decoded(await small(response))
        except TimeoutError:
            said = None
        status = response.status
        code, message = _said(said)
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


class _Source:
    """Bytes of one answer, each read in bounded time."""

    def __init__(self, response: aiohttp.ClientResponse, label: str) -> None:
        self._content = response.content
        self._label = label
        self.now = asyncio.get_running_loop().time

    async def read(self, limit_s: float, *, accepted: bool = True) -> bytes:
        """What came. Raises PeerFault at the end, at a break, and when nothing comes for ``limit_s`` seconds."""
        try:
            async with asyncio.timeout(limit_s):
                data = await self._content.readany()
        except TimeoutError:
            if not accepted:
                raise PeerFault(f"{self._label} did not take the request in time.", Failure.SILENT) from None
            raise PeerFault(f"{self._label} said nothing for {limit_s:g} s.", Failure.SILENT) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise PeerFault(f"The connection to {self._label} broke.", Failure.BROKEN) from error
        if not data:
            raise PeerFault(f"{self._label} closed the stream before its end.", Failure.BROKEN)
        return data

    async def rest(self) -> None:
        """Read the end of the answer, so that the connection can serve again."""
        with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError, ValueError):
            async with asyncio.timeout(REST_S):
                await self._content.readany()


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
    )


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
    )


async def _nothing() -> AsyncIterator[bytes]:
    """No bytes: stands in until the answer is accepted."""
    return
    yield b""
