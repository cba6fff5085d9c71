"""Engines that speak OpenAI's API: LM Studio, llama-server, vLLM, and whatever else is compatible."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from yarl import URL

from router.aio import Clock
from router.engines.base import Call, EngineModel, EngineSnapshot, Kind, Reply
from router.engines.transport import POLL_S, Transport
from router.errors import EngineFault
from router.library_places import NAME

WIDTH: Final = 8
MAX_MODELS: Final = 1000


class OpenAIEngine:
    """An OpenAI-compatible address (with or without ``/v1``), with a key if it wants one. It loads by itself."""

    kind = "openai"

    def __init__(self, url: str, key: str, transport: Transport, clock: Clock) -> None:
        self._root, self._base = _addresses(url)
        self.id = f"openai-{self._root.host}-{self._root.port}{self._root.path.rstrip('/').replace('/', '-')}"
        self.url = str(self._base)
        self.label = "OpenAI-compatible"
        self.width = WIDTH
        self._transport = transport
        self._clock = clock
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._call_headers = {"Content-Type": "application/json", **self._headers}
        self._urls = {kind: _below(self._base, kind.value) for kind in Kind}
        self._version = ""

    async def start(self) -> None:
        """Nothing to make ready."""

    async def stop(self) -> None:
        """Nothing was started."""

    async def poll(self) -> EngineSnapshot:
        """One look at the models; LM Studio's own list tells more than the common one and is preferred."""
        try:
            models = await self._lmstudio() if self.label in ("OpenAI-compatible", "LM Studio") else None
            if models is None:
                models = await self._models()
        except EngineFault as fault:
            return EngineSnapshot(ready=False, detail=fault.message, away=fault.away)
        return EngineSnapshot(ready=True, models=tuple(models[:MAX_MODELS]), version=self._version)

    async def load(
        self,
        model: str,
        *,
        keep_alive_s: float | None = None,
        progress: Callable[[int], None] | None = None,
        kind: Kind = Kind.CHAT,
    ) -> None:
        """Nothing to do: the engine loads by itself when it is asked."""

    async def unload(self, model: str) -> None:
        """Nothing to do: the common API can't unload."""

    def needs_load(self, model: str, kind: Kind = Kind.CHAT) -> bool:
        """Never: the engine loads by itself."""
        return False

    def call(self, call: Call) -> AbstractAsyncContextManager[Reply]:
        """Send the canonical body as it is. Raises EngineFault on entry."""
        return self._transport.open("POST", self._urls[call.kind], headers=self._call_headers, body=call.body)

    async def _models(self) -> list[EngineModel]:
        status, answer = await self._transport.json(
            "GET", _below(self._base, "models"), headers=self._headers, timeout_s=POLL_S
        )
        if status in (401, 403):
            raise EngineFault("The engine wants another key.", "Set it as key@address in Settings, Other engines.")
        entries = answer.get("data") if isinstance(answer, dict) else None
        if status != 200 or not isinstance(entries, list):
            raise EngineFault(f"The engine answered its list of models with status {status}.")
        found = [entry for entry in entries if isinstance(entry, dict) and _named(entry)]
        owners = {str(entry.get("owned_by")) for entry in found}
        self.label = next(
            (label for owner, label in (("llamacpp", "llama-server"), ("vllm", "vLLM")) if owner in owners), self.label
        )
        return [self._model(entry) for entry in found]

    def _model(self, entry: dict[str, Any]) -> EngineModel:
        name = entry["id"]
        told = entry.get("meta")
        meta: dict[str, Any] = told if isinstance(told, dict) else {}
        return EngineModel(
            name=name,
            size_bytes=_number(meta.get("size")),
            parameters=_billions(_number(meta.get("n_params"))),
            context=_number(entry.get("max_model_len")) or _number(meta.get("n_ctx_train")),
            capabilities=frozenset({"embedding" if "embed" in name.lower() else "chat"}),
            resident=True,
            source=self.label,
        )

    async def _lmstudio(self) -> list[EngineModel] | None:
        """The richer list, or None when the address is not LM Studio's."""
        status, answer = await self._transport.json(
            "GET", _below(self._root, "api/v0/models"), headers=self._headers, timeout_s=POLL_S
        )
        entries = answer.get("data") if status == 200 and isinstance(answer, dict) else None
        if not isinstance(entries, list):
            return None
        self.label = "LM Studio"
        return [_lmstudio_model(entry) for entry in entries if isinstance(entry, dict) and _named(entry)]


def _lmstudio_model(entry: dict[str, Any]) -> EngineModel:
    kind = entry.get("type")
    capabilities = {"embedding"} if kind == "embeddings" else {"chat", "vision"} if kind == "vlm" else {"chat"}
    listed = entry.get("capabilities")
    if isinstance(listed, list) and "tool_use" in listed:
        capabilities.add("tools")
    return EngineModel(
        name=entry["id"],
        family=str(entry.get("arch") or "")[:64],
        quantisation=str(entry.get("quantization") or "")[:32],
        context=_number(entry.get("loaded_context_length")) or _number(entry.get("max_context_length")),
        capabilities=frozenset(capabilities),
        resident=entry.get("state") == "loaded",
        source="LM Studio",
    )


def _addresses(url: str) -> tuple[URL, URL]:
    """The root of the address and its OpenAI base."""
    root = URL(url.strip().rstrip("/"))
    if root.path.endswith("/v1"):
        return root.with_path(root.path.removesuffix("/v1") or "/"), root
    return root, _below(root, "v1")


def _below(base: URL, path: str) -> URL:
    return URL(f"{str(base).rstrip('/')}/{path}", encoded=True)


def _named(entry: dict[str, Any]) -> bool:
    name = entry.get("id")
    return isinstance(name, str) and NAME.match(name) is not None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**62 else None


def _billions(count: int | None) -> str:
    if not count:
        return ""
    return f"{count / 1e9:.1f}B".replace(".0B", "B") if count >= 10**9 else f"{count / 1e6:.0f}M"
