"""Ollama beside us: its models, what of them is loaded, and its chat in whichever of its two forms carries the most."""

from __future__ import annotations

import asyncio
import datetime
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
from yarl import URL

from router.aio import Clock
from router.engines.base import Call, EngineModel, EngineSnapshot, Kind, Reply
from router.engines.ollama_chat import Translator, duration, native_body, wants_usage
from router.engines.transport import POLL_S, Transport
from router.errors import EngineFault
from router.library_places import NAME

MAX_MODELS: Final = 1000
MAX_LINE_BYTES: Final = 8 * 2**20
MAX_BODY_BYTES: Final = 64 * 2**20
SHOWS_AT_ONCE: Final = 4
LOAD_S: Final = 300.0
LOAD_S_PER_GIB: Final = 20.0

_CAPABILITIES: Final = {"completion": "chat", "embedding": "embedding"} | {
    name: name for name in ("vision", "tools", "thinking")
}
_BLOB: Final = re.compile(r"^FROM .*[/\\]sha256-([0-9a-f]{64})\s*$", re.MULTILINE)
_JSON: Final = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class _Shown:
    """What ``/api/show`` tells of one model."""

    weights: str | None
    context: int | None
    capabilities: frozenset[str]


class OllamaEngine:
    """Ollama at one address (``http://127.0.0.1:11434``). Models that run elsewhere (its cloud) are not offered."""

    kind = "ollama"
    label = "Ollama"
    width = 1

    def __init__(self, url: str, transport: Transport, clock: Clock) -> None:
        self._base = URL(url.strip().rstrip("/").removesuffix("/v1"))
        self.id = f"ollama-{self._base.host}-{self._base.port}"
        self.url = str(self._base)
        self._transport = transport
        self._clock = clock
        self._shown: dict[str, _Shown] = {}
        self._models: dict[str, EngineModel] = {}
        self._urls = {kind: self._at(f"v1/{kind.value}") for kind in Kind}

    async def start(self) -> None:
        """Nothing to make ready."""

    async def stop(self) -> None:
        """Nothing was started; what Ollama has loaded stays its own business."""

    async def poll(self) -> EngineSnapshot:
        """Models, residency and version, asked for at once; details are asked for once per model."""
        began = self._clock.mono()
        try:
            tags, running, version = await asyncio.gather(
                self._get("api/tags"), self._get("api/ps"), self._get("api/version")
            )
        except EngineFault as fault:
            return EngineSnapshot(ready=False, detail=fault.message, away=fault.away)
        entries = [entry for entry in _entries(tags) if not entry.get("remote_host")][:MAX_MODELS]
        await self._show_new(entries, POLL_S - (self._clock.mono() - began))
        loaded = {entry["name"]: entry for entry in _entries(running)}
        self._models = {entry["name"]: self._model(entry, loaded.get(entry["name"])) for entry in entries}
        return EngineSnapshot(ready=True, models=tuple(self._models.values()), version=_text(version, "version"))

    async def load(
        self,
        model: str,
        *,
        keep_alive_s: float | None = None,
        progress: Callable[[int], None] | None = None,
        kind: Kind = Kind.CHAT,
    ) -> None:
        """Ask for nothing but the load. Ollama tells no progress. Raises EngineFault."""
        known = self._models.get(model)
        body: dict[str, Any] = {"model": model}
        if keep_alive_s is not None:
            body["keep_alive"] = duration(keep_alive_s)
        embedder = known is not None and known.capabilities == {"embedding"}
        limit_s = LOAD_S + LOAD_S_PER_GIB * ((known.size_bytes if known else None) or 0) / 2**30
        if embedder:
            status, answer = await self._post("api/embed", body | {"input": "a"}, limit_s)
        else:
            status, answer = await self._post("api/generate", body | {"stream": False}, limit_s)
        if status != 200:
            code = "model_not_found" if status == 404 else "engine_failed"
            raise EngineFault(
                f"Ollama can't load '{model}': {_text(answer, 'error') or f'status {status}'}.", code=code
            )
        if known is not None:
            self._models[model] = replace(known, resident=True)
        if progress is not None:
            progress(100)

    async def unload(self, model: str) -> None:
        """Ask Ollama to let go of it; running requests of it are Ollama's to end."""
        if model not in self._models:
            return
        await self._post("api/generate", {"model": model, "keep_alive": 0, "stream": False}, POLL_S)
        self._models[model] = replace(self._models[model], resident=False)

    def needs_load(self, model: str, kind: Kind = Kind.CHAT) -> bool:
        """Whether it was cold when last looked at: Ollama would load by itself, but not tell that it does."""
        known = self._models.get(model)
        return known is not None and not known.resident

    @asynccontextmanager
    async def call(self, call: Call) -> AsyncIterator[Reply]:
        """Send the body as it is to ``/v1``, or translated to ``/api/chat`` where that carries more of it."""
        native = native_body(call)
        url = self._at("api/chat") if native is not None else self._urls[call.kind]
        body = call.body if native is None else msgspec.json.encode(native)
        async with self._transport.open("POST", url, headers=_JSON, body=body) as reply:
            if native is None or reply.status != 200:
                yield reply
            elif call.stream:
                translator = Translator(call, usage=wants_usage(call))
                yield Reply(200, "text/event-stream", _events(reply, translator))
            else:
                yield Reply(200, "application/json", _whole(reply, Translator(call, usage=True)))

    def _at(self, path: str) -> URL:
        return URL(f"{str(self._base).rstrip('/')}/{path}", encoded=True)

    async def _get(self, path: str) -> Any:
        status, answer = await self._transport.json("GET", self._at(path), timeout_s=POLL_S)
        if status != 200 or not isinstance(answer, dict):
            raise EngineFault(f"Ollama answered {path} with status {status}.")
        return answer

    async def _post(self, path: str, body: dict[str, Any], timeout_s: float) -> tuple[int, Any]:
        return await self._transport.json("POST", self._at(path), body=body, timeout_s=timeout_s)

    async def _show_new(self, entries: list[dict[str, Any]], limit_s: float) -> None:
        """Ask for the details of models not seen before; what is not told in time is asked again next time."""
        digests = {digest: entry["name"] for entry in entries if (digest := _text(entry, "digest"))}
        self._shown = {digest: shown for digest, shown in self._shown.items() if digest in digests}
        turns = asyncio.Semaphore(SHOWS_AT_ONCE)

        async def show(digest: str, name: str) -> None:
            async with turns:
                status, answer = await self._post("api/show", {"model": name}, max(0.1, limit_s))
            if status == 200 and isinstance(answer, dict):
                self._shown[digest] = _shown(answer)

        new = [show(digest, name) for digest, name in digests.items() if digest not in self._shown]
        try:
            async with asyncio.timeout(max(0.1, limit_s)):
                await asyncio.gather(*new, return_exceptions=True)
        except TimeoutError:
            return

    def _model(self, entry: dict[str, Any], running: dict[str, Any] | None) -> EngineModel:
        told = entry.get("details")
        details = told if isinstance(told, dict) else {}
        shown = self._shown.get(_text(entry, "digest"))
        name = entry["name"]
        guessed = frozenset({"embedding" if "embed" in name else "chat"})
        return EngineModel(
            name=name,
            digest=shown.weights if shown else None,
            size_bytes=_count(entry, "size"),
            family=_text(details, "family"),
            parameters=_text(details, "parameter_size"),
            quantisation=_text(details, "quantization_level"),
            context=(_count(running, "context_length") if running else None) or (shown.context if shown else None),
            capabilities=(shown.capabilities if shown else None) or guessed,
            resident=running is not None,
            memory_bytes=_count(running, "size") if running else None,
            expires_at=_time(running, "expires_at") if running else None,
            modified_at=_time(entry, "modified_at"),
            source="Ollama",
        )


async def _events(reply: Reply, translator: Translator) -> AsyncIterator[bytes]:
    """A stream of Ollama's lines as events."""
    rest = b""
    async for chunk in reply.chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise EngineFault("Ollama sent an endless line.")
        if events := b"".join(translator.events(line) for line in lines if line.strip()):
            yield events
        if translator.done:
            return
    if rest.strip():
        yield translator.events(rest)
    if not translator.done:
        raise EngineFault("Ollama ended its answer in the middle.")


async def _whole(reply: Reply, translator: Translator) -> AsyncIterator[bytes]:
    body = bytearray()
    async for chunk in reply.chunks:
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise EngineFault("Ollama sent an answer of absurd size.")
    yield translator.whole(bytes(body))


def _shown(answer: dict[str, Any]) -> _Shown:
    blob = _BLOB.search(_text(answer, "modelfile", 2**20))
    told = answer.get("model_info")
    info = told if isinstance(told, dict) else {}
    listed = answer.get("capabilities")
    words = [_CAPABILITIES[word] for word in listed if word in _CAPABILITIES] if isinstance(listed, list) else []
    return _Shown(
        weights=blob[1] if blob else None,
        context=_count(info, f"{_text(info, 'general.architecture')}.context_length"),
        capabilities=frozenset(words),
    )


def _entries(answer: Any) -> list[dict[str, Any]]:
    listed = answer.get("models")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return [entry for entry in entries if isinstance(entry.get("name"), str) and NAME.match(entry["name"])]


def _text(answer: Any, name: str, limit: int = 256) -> str:
    value = answer.get(name) if isinstance(answer, dict) else None
    return value[:limit] if isinstance(value, str) else ""


def _count(answer: dict[str, Any], name: str) -> int | None:
    value = answer.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**62 else None


def _time(answer: dict[str, Any], name: str) -> float | None:
    try:
        return datetime.datetime.fromisoformat(_text(answer, name)).timestamp()
    except (ValueError, OverflowError):
        return None
