"""Finds other engines: those that the settings name, else the usual ports of this computer, now and every 30 s."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

from yarl import URL

from router.aio import Clock, Tasks
from router.engines.ollama import OllamaEngine
from router.engines.openai import OpenAIEngine
from router.engines.transport import Transport
from router.errors import EngineFault

log = logging.getLogger(__name__)

EVERY_S: Final = 30.0
ASK_S: Final = 2.0
MISSES: Final = 2
OLLAMA_PORT: Final = 11434
USUAL_PORTS: Final = {
    OLLAMA_PORT: "Ollama",
    1234: "LM Studio",
    8080: "llama-server",
    8000: "vLLM",
    1337: "Jan",
    5001: "KoboldCpp",
}
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1", "0.0.0.0", "::"})  # noqa: S104 - compared, not bound

FoundEngine: TypeAlias = OllamaEngine | OpenAIEngine


class Sight(Enum):
    """What one look at an address means; every failure is one of these."""

    OLLAMA = "ollama"
    OPENAI = "openai"
    GONE = "gone"  # nothing there, or nothing that is an engine for us


@dataclass(frozen=True, slots=True)
class Address:
    """Where an engine may be. ``named`` ones are shown even while they do not answer."""

    url: URL
    key: str = ""
    named: bool = False


class EngineFinder:
    """Calls ``appeared`` with each new engine (started) and ``vanished`` with the id of one that is gone (stopped)."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        transport: Transport,
        clock: Clock,
        *,
        own: Callable[[], frozenset[tuple[str, int]]],
        appeared: Callable[[FoundEngine], None],
        vanished: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._clock = clock
        self._own = own
        self._appeared = appeared
        self._vanished = vanished
        self._engines: dict[Address, FoundEngine] = {}
        self._misses: dict[Address, int] = {}
        self._looking = asyncio.Lock()

    def start(self, tasks: Tasks) -> None:
        """Look now and every 30 s until the tasks are closed."""
        tasks.spawn("find engines", self._look_on())

    async def _look_on(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """One look at every address, all at once."""
        async with self._looking:
            addresses = self._addresses()
            for address in [known for known in self._engines if known not in addresses]:
                await self._remove(address)
            sights = await asyncio.gather(*(self._sight(address) for address in addresses))
            for address, sight in zip(addresses, sights, strict=True):
                await self._note(address, sight)

    async def _note(self, address: Address, sight: Sight) -> None:
        known = self._engines.get(address)
        if sight is Sight.GONE:
            self._misses[address] = self._misses.get(address, 0) + 1
            if known is not None and not address.named and self._misses[address] >= MISSES:
                await self._remove(address)
            elif known is None and address.named:
                await self._add(address, Sight.OLLAMA if address.url.port == OLLAMA_PORT else Sight.OPENAI)
            return
        self._misses[address] = 0
        if known is not None and known.kind != sight.value:
            await self._remove(address)
            known = None
        if known is None:
            await self._add(address, sight)

    async def _add(self, address: Address, sight: Sight) -> None:
        engine: FoundEngine
        if sight is Sight.OLLAMA:
            engine = OllamaEngine(str(address.url), self._transport, self._clock)
        else:
            engine = OpenAIEngine(str(address.url), address.key, self._transport, self._clock)
        if any(other.id == engine.id for other in self._engines.values()):
            return
        self._engines[address] = engine
        await engine.start()
        log.info("found an engine at %s: %s", engine.url, engine.kind)
        self._appeared(engine)

    async def _remove(self, address: Address) -> None:
        engine = self._engines.pop(address)
        self._misses.pop(address, None)
        log.info("the engine at %s is gone", engine.url)
        self._vanished(engine.id)
        await engine.stop()

    def _addresses(self) -> list[Address]:
        named = [part.strip() for part in self._settings["engines"].split(",") if part.strip()]
        if named:
            found = [address for text in named if (address := parse_address(text)) is not None]
        else:
            found = [Address(URL(f"http://127.0.0.1:{port}")) for port in USUAL_PORTS]
        own = self._own()
        return [address for address in dict.fromkeys(found) if not _is_own(address.url, own)]

    async def _sight(self, address: Address) -> Sight:
        """Who is there. Ollama speaks OpenAI too, so it is asked for first."""
        try:
            if await self._is_ollama(address):
                return Sight.OLLAMA
            if await self._is_openai(address):
                return Sight.OPENAI
        except (EngineFault, TimeoutError):
            return Sight.GONE
        return Sight.GONE

    async def _is_ollama(self, address: Address) -> bool:
        root = str(address.url).removesuffix("/v1")
        _, version = await self._transport.json("GET", URL(f"{root}/api/version"), timeout_s=ASK_S)
        if not isinstance(version, dict) or not isinstance(version.get("version"), str):
            return False
        async with asyncio.timeout(ASK_S), self._transport.open("GET", URL(f"{root}/")) as reply:
            async for chunk in reply.chunks:
                return chunk.startswith(b"Ollama is running")
        return False

    async def _is_openai(self, address: Address) -> bool:
        headers = {"Authorization": f"Bearer {address.key}"} if address.key else {}
        base = str(address.url) if str(address.url).endswith("/v1") else f"{address.url}/v1"
        status, answer = await self._transport.json("GET", URL(f"{base}/models"), headers=headers, timeout_s=ASK_S)
        if status in (401, 403):
            return address.named
        return status == 200 and isinstance(answer, dict) and isinstance(answer.get("data"), list)


def parse_address(text: str) -> Address | None:
    """``address`` or ``key@address`` of the settings; None, with a warning, when it is no HTTP address."""
    key, _, place = text.rpartition("@")
    try:
        url = URL((place if "://" in place else f"http://{place}").rstrip("/"))
        good = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except ValueError:
        good = False
    if not good:
        log.warning("a setting of other engines is no address and is left out")
        return None
    return Address(url, key, named=True)


def _is_own(url: URL, own: frozenset[tuple[str, int]]) -> bool:
    """Whether the address is one that this node listens at itself."""
    host = url.host or ""
    return any(
        url.port == port and (host == listened or (host in _LOOPBACK and listened in _LOOPBACK))
        for listened, port in own
    )
