"""The Engine protocol: what every adapter offers, in the canonical (OpenAI) form of requests and answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from router.prediction import UNMEASURED, Speed
from router.states import NodeMode
from router.wire import Receipt, State


class Kind(StrEnum):
    """What a request asks for; the value is its path below an OpenAI base address."""

    CHAT = "chat/completions"
    COMPLETION = "completions"
    EMBEDDING = "embeddings"


@dataclass(frozen=True, slots=True)
class EngineModel:
    """One model an engine can run. ``name`` is the engine's own; ``digest`` is None where the engine tells none."""

    name: str
    digest: str | None = None
    size_bytes: int | None = None
    family: str = ""
    parameters: str = ""
    quantisation: str = ""
    context: int | None = None
    capabilities: frozenset[str] = frozenset()  # of: chat, embedding, vision, tools, thinking
    resident: bool = False
    loading_pct: int | None = None
    memory_bytes: int | None = None
    expires_at: float | None = None
    modified_at: float | None = None
    source: str = ""  # where its file lies, or the engine's label
    problem: str = ""  # why it can't run now, e.g. quarantined; empty when it can
    speed: Speed = UNMEASURED  # as another computer measured it there


@dataclass(frozen=True, slots=True)
class EngineSnapshot:
    """One look at an engine. ``ready`` False means that it can't be used now, ``detail`` says why, ``away`` that nobody
    listens there. ``refused`` are files that are no usable models, each under a name of its own with its ``problem``.

    The rest is told by other computers only: ``trusted`` False means that it refuses this one; ``width``, ``in_flight``
    and ``waiting`` count all its jobs, whoever asked. Free memory is 0 where it can't be told.
    """

    ready: bool
    models: tuple[EngineModel, ...] = ()
    detail: str = ""
    away: bool = False
    version: str = ""
    refused: tuple[EngineModel, ...] = ()
    trusted: bool = True
    mode: NodeMode = NodeMode.RUNNING
    width: int = 0
    in_flight: int = 0
    waiting: int = 0
    free_vram_bytes: int = 0
    free_ram_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """One canonical request to an engine. ``body`` is JSON whose ``model`` is already the engine's own name.

    Another computer also needs the try, the seconds left for all of it and the digest asked for; through ``told`` it
    says how the job stands there.
    """

    kind: Kind
    model: str
    body: bytes
    stream: bool
    keep_alive_s: float | None = None
    request_id: str = ""
    try_no: int = 0
    deadline_s: float | None = None
    digest: str | None = None
    told: Callable[[State], None] | None = None


@dataclass
class Reply:
    """An engine's answer: status and type at once, then bytes as they come.

    Streams are Server-Sent Events in OpenAI's form with ``data: [DONE]`` at the end; ``chunks`` may cut anywhere.
    ``chunks`` raises ``EngineFault`` when the connection breaks before its regular end. ``facts`` is what another
    computer tells at the end about the job it ran.
    """

    status: int
    content_type: str
    chunks: AsyncIterator[bytes]
    headers: dict[str, str] = field(default_factory=dict)
    gate: asyncio.Event | None = None
    facts: Receipt | None = None

    async def each(self, took: Callable[[bytes], bool]) -> None:
        """Give ``took`` the bytes as they come, until it returns True or the answer ends. Raises EngineFault."""
        async for chunk in self.chunks:
            if took(chunk):
                return
            if self.gate is not None:
                await self.gate.wait()

    def pause(self) -> None:
        """The client can't keep up: read no more for now."""
        self.gate = asyncio.Event()

    def resume(self) -> None:
        """Read on."""
        if self.gate is not None:
            self.gate.set()
            self.gate = None


class Engine(Protocol):
    """One engine. All methods run on the node's loop; none blocks it. Failures are ``errors.EngineFault``.

    Another computer is an engine with two more properties: ``local`` (False) and ``node`` (its id).
    """

    @property
    def id(self) -> str:
        """Unique on this node."""

    @property
    def kind(self) -> str:
        """builtin, ollama, openai or peer."""

    @property
    def label(self) -> str:
        """What a person calls it."""

    @property
    def url(self) -> str:
        """Its address, empty for the built-in one."""

    @property
    def width(self) -> int:
        """Jobs at once on its lane."""

    async def start(self) -> None:
        """Make ready for ``poll``; does not load a model."""

    async def stop(self) -> None:
        """End everything this adapter started, at most 10 s."""

    async def poll(self) -> EngineSnapshot:
        """Look now (at most 5 s); never raises: a failure is a snapshot that isn't ready."""

    async def load(
        self,
        model: str,
        *,
        keep_alive_s: float | None = None,
        progress: Callable[[int], None] | None = None,
        kind: Kind = Kind.CHAT,
    ) -> None:
        """Make ``model`` resident; returns at once when it is. ``progress`` gets percents. Raises EngineFault."""

    async def unload(self, model: str) -> None:
        """Free its memory; running requests of it end with EngineFault. Unknown or cold: nothing happens."""

    def needs_load(self, model: str, kind: Kind = Kind.CHAT) -> bool:
        """Whether a request should wait for ``load`` first (False where the engine loads by itself)."""

    def call(self, call: Call) -> AbstractAsyncContextManager[Reply]:
        """Send one request; leaving the block before the end stops the generation. Raises EngineFault on entry."""
