"""One loaded copy of a model in the built-in engine: its process, how it is tuned, and its use."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from yarl import URL

from router import gguf
from router.aio import Tasks
from router.engines.base import Kind
from router.engines.llama_child import Orders
from router.engines.llama_process import HEALTH_INTERVAL_S, HEALTH_TIMEOUT_S, Child, new_key
from router.engines.transport import Transport
from router.errors import EngineFault
from router.hardware import HardwareProbe, process_bytes, usual_threads
from router.library import LibraryModel

log = logging.getLogger(__name__)

USUAL_CONTEXT: Final = 8192
EMBEDDING_CONTEXT: Final = 2048
EMBEDDING_SLOTS: Final = 4
PROGRESS_S: Final = 0.25
LOAD_S: Final = 300.0
LOAD_S_PER_GIB: Final = 20.0


@dataclass(frozen=True, slots=True)
class Tuning:
    """Limits that tests shorten, in seconds."""

    health_interval_s: float = HEALTH_INTERVAL_S
    health_timeout_s: float = HEALTH_TIMEOUT_S
    load_s: float = LOAD_S


class Replica:
    """State of one copy. ``key`` is the model's name and whether this copy makes embeddings."""

    def __init__(
        self,
        key: tuple[str, bool],
        model: LibraryModel,
        settings: Mapping[str, Any],
        width: int,
        tasks: Tasks,
        transport: Transport,
        tuning: Tuning,
        hardware: HardwareProbe,
    ) -> None:
        self.key = key
        self.model = model
        self.embedder = key[1]
        self.loaded = False
        self.percent = 0
        self.memory_bytes = 0
        self.waiters = 0
        self.watchers: list[Callable[[int], None]] = []
        self.task: asyncio.Task[EngineFault | None] | None = None
        self.in_flight = 0
        self.jobs: dict[str, int] = {}
        self.mourned = False  # whether its crash was counted
        self.last_mono = 0.0
        self.fresh_until = 0.0
        self.keep_alive_s: float | None = None
        self.expires_at: float | None = None
        self.urls: dict[Kind, URL] = {}
        self.headers: dict[str, str] = {}
        self.changed: Callable[[], None] = lambda: None
        self._settings = settings
        self._width = width
        self._tasks = tasks
        self._tuning = tuning
        self._hardware = hardware
        self._transport = transport
        self._child = Child(model.name, tasks, transport)

    @property
    def crashed(self) -> bool:
        """Whether its process ended on its own, without saying why."""
        return self._child.crashed

    def fresh(self, now: float) -> bool:
        """Whether it was loaded a moment ago for somebody who has not called yet."""
        return now < self.fresh_until

    def idle(self, now: float) -> bool:
        """Whether it may be unloaded."""
        return self.loaded and self.in_flight == 0 and not self.fresh(now)

    def keep_s(self, usual_s: float) -> float:
        """Seconds it stays loaded when idle; negative for ever. An embedding model stays unless told otherwise."""
        if self.keep_alive_s is not None:
            return self.keep_alive_s
        return -1.0 if self.model.info.embedding else usual_s

    def log_lines(self) -> list[str]:
        """The last lines of llama.cpp's log."""
        return list(self._child.lines)

    def how(self) -> str:
        """How its process ended."""
        return self._child.how()

    async def ended_within(self, limit_s: float) -> bool:
        """Whether its process has ended, or does so soon."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._child.ended.wait(), limit_s)
        return self._child.ended.is_set()

    async def fits(self, rivals: list[Replica], most: int) -> bool:
        """Whether it may be loaded beside ``rivals``. Raises EngineFault when it could not be even alone."""
        context, slots = self._shape(self.model.info)
        need = self.model.info.memory_need(context, slots)
        there = await asyncio.to_thread(self._hardware.read)
        total = there.ram_total_bytes + there.vram_total_bytes
        if need > total:
            raise EngineFault(
                f"The model '{self.model.name}' needs {_gib(need)} of memory; this computer has {_gib(total)}.",
                "Choose a smaller model, or a smaller context size in Settings.",
                lasting=True,
            )
        free = there.vram_free_bytes if need <= there.vram_total_bytes else there.vram_free_bytes + there.ram_free_bytes
        return not rivals or (len(rivals) < most and need <= free)

    async def load(self) -> None:
        """Check the file, start the process, wait until it serves. Raises EngineFault; ends the process then."""
        try:
            info = await asyncio.to_thread(gguf.read, self.model.path)
        except gguf.GgufError as error:
            raise EngineFault(f"The file of '{self.model.name}' {error}.", lasting=True) from error
        try:
            orders = self._orders(info)
            await self._child.start(orders)
            need = info.size_bytes + info.kv_bytes * orders["context"]
            async with asyncio.timeout(self._limit_s()) as patience:
                measuring = self._tasks.spawn(f"progress of {self.model.name}", self._measure(need, patience))
                try:
                    await self._child.ready()
                finally:
                    measuring.cancel()  # before the time-out ends: it moves that
        except TimeoutError:
            await self._child.close()
            raise EngineFault(f"The model '{self.model.name}' did not load in time.") from None
        except BaseException:
            await self._child.close()
            raise
        self.urls = {kind: self._child.url(f"v1/{kind.value}") for kind in Kind}
        self.headers = {"Content-Type": "application/json", **self._child.headers}
        self.memory_bytes = await asyncio.to_thread(process_bytes, self._child.pid)
        self.loaded = True
        self._tell(100)

    async def count_tokens(self, body: bytes) -> int | None:
        """Tokens of the prompt that a chat's template makes; None where the template refuses. Raises EngineFault."""
        status, made = await self._ask("apply-template", msgspec.Raw(body))
        prompt = made.get("prompt") if isinstance(made, dict) else None
        if status != 200 or not isinstance(prompt, str):
            return None
        status, made = await self._ask("tokenize", {"content": prompt, "add_special": True, "parse_special": True})
        tokens = made.get("tokens") if isinstance(made, dict) else None
        return len(tokens) if status == 200 and isinstance(tokens, list) else None

    async def _ask(self, path: str, body: object) -> tuple[int, Any]:
        return await self._transport.json("POST", self._child.url(path), headers=self.headers, body=body)

    async def watch(self) -> None:
        """Until its process has ended."""
        await self._child.watch(self._tuning.health_interval_s, self._tuning.health_timeout_s)
        await self._child.ended.wait()
        self.loaded = False

    async def close(self) -> None:
        """End its process; a load in progress is given up."""
        self.loaded = False
        self._child.expected = True
        if self.task is not None and not self.task.done() and self.task is not asyncio.current_task():
            self.task.cancel()
            await asyncio.wait([self.task])
        await self._child.close()

    def _orders(self, info: gguf.GgufInfo) -> Orders:
        context, slots = self._shape(info)
        return {
            "key": new_key(),
            "model": str(info.path),
            "alias": self.model.name,
            "projector": str(self.model.projector or "") if not self.embedder else "",
            "context": context * slots,
            "slots": slots,
            "threads": self._settings["threads"] or usual_threads(),
            "http_threads": slots + 16,
            "gpu_layers": self._settings["gpu_layers"],
            "embedding": self.embedder,
            "pooling": (info.pooling if info.pooling in ("mean", "cls", "last") else "mean"),
            "batch": context if self.embedder else 0,
        }

    def _shape(self, info: gguf.GgufInfo) -> tuple[int, int]:
        """Context of one slot, and slots."""
        own = info.context or USUAL_CONTEXT
        if self.embedder:
            return min(own, EMBEDDING_CONTEXT), EMBEDDING_SLOTS if info.embedding else 1
        return min(own, self._settings["context"] or USUAL_CONTEXT), self._width

    async def _measure(self, need: int, patience: asyncio.Timeout) -> None:
        """Percents from the memory the process has come to hold, never 100 before it serves."""
        while True:
            await asyncio.sleep(PROGRESS_S)
            held = await asyncio.to_thread(process_bytes, self._child.pid)
            percent = min(99, held * 100 // max(need, 1))
            if percent > self.percent:
                patience.reschedule(asyncio.get_running_loop().time() + self._limit_s())
                self._tell(percent)

    def _tell(self, percent: int) -> None:
        self.percent = percent
        for watcher in self.watchers:
            watcher(percent)
        self.changed()

    def _limit_s(self) -> float:
        return self._tuning.load_s + LOAD_S_PER_GIB * self.model.info.size_bytes / 2**30


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
