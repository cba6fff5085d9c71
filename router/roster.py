"""The engines of this node: starts them, looks at them, finds new ones, loads and unloads their models."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from router.aio import Clock, Tasks
from router.engines.base import Engine
from router.errors import EngineFault, ModelNotFoundError
from router.registry import Registry

POLL_S = 30.0
REPOLL_S = 2.0


class Roster:
    """Keeps the registry's snapshots fresh."""

    def __init__(self, registry: Registry, tasks: Tasks, clock: Clock, failed: Callable[[str], None]) -> None:
        self._registry = registry
        self._tasks = tasks
        self._clock = clock
        self._failed = failed
        self._polls: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._repolled = 0.0

    async def add(self, engine: Engine) -> None:
        """Take an engine in and look at it at once."""
        await engine.start()
        self._registry.add(engine)
        self._registry.update(engine.id, await engine.poll())

    def found(self, engine: Engine) -> None:
        """An engine that already runs appeared: take it in and look at it."""
        self._registry.add(engine)
        self.poll_soon(engine.id)

    def gone(self, engine_id: str) -> None:
        """An engine vanished, and with it its models."""
        self._registry.remove(engine_id)

    async def poll_on(self) -> None:
        """Look at every engine every 30 s."""
        while True:
            await asyncio.sleep(POLL_S)
            for engine_id in tuple(self._registry.engines):
                self.poll_soon(engine_id)

    def poll_soon(self, engine_id: str) -> None:
        """Look at one engine; asked again meanwhile, once more afterwards."""
        self.poll_now(engine_id)

    def poll_now(self, engine_id: str) -> asyncio.Task[None] | None:
        """The same; the task ends when what is seen from now on is known. None for an engine that is gone."""
        running = self._polls.get(engine_id)
        if running is not None and not running.done():
            self._again.add(engine_id)
        elif engine_id in self._registry.engines:
            self._polls[engine_id] = self._tasks.spawn("poll", self._poll(engine_id))
        return self._polls.get(engine_id)

    async def _poll(self, engine_id: str) -> None:
        while (engine := self._registry.engines.get(engine_id)) is not None:
            self._again.discard(engine_id)
            self._registry.update(engine_id, await engine.poll())
            if engine_id not in self._again:
                return

    async def settled(self) -> None:
        """Wait for the looks that are under way."""
        await asyncio.gather(*self._polls.values(), return_exceptions=True)

    async def repoll(self) -> None:
        """Look at all engines now, because somebody asked for a model that isn't known; at most every 2 s."""
        if self._clock.mono() - self._repolled < REPOLL_S:
            return
        self._repolled = self._clock.mono()
        engines = list(self._registry.engines.values())
        for engine, snapshot in zip(engines, await asyncio.gather(*(e.poll() for e in engines)), strict=True):
            self._registry.update(engine.id, snapshot)

    # -- models, as the user asks

    def load(self, name: str, engine_id: str, keep_alive_s: float | None = None) -> None:
        """Begin to load a model, which then stays for ``keep_alive_s`` (negative: for ever) where one may say.

        Raises ModelNotFoundError; a failure of the load is told as a notice.
        """
        engine, model = self._pick(name, engine_id)
        if callable(forgive := getattr(engine, "forgive", None)):
            forgive(model)  # whoever loads a model that was set aside wants it tried once more
        self._tasks.spawn("load", self._load(engine, model, keep_alive_s))

    async def _load(self, engine: Engine, model: str, keep_alive_s: float | None) -> None:
        try:
            await engine.load(model, keep_alive_s=keep_alive_s, progress=lambda _: self.poll_soon(engine.id))
        except EngineFault as fault:
            self._failed(f"{model}: {fault.message}")
        finally:
            self.poll_soon(engine.id)

    async def unload(self, name: str, engine_id: str) -> None:
        """Free a model's memory. Raises ModelNotFoundError, EngineFault."""
        engine, model = self._pick(name, engine_id)
        await engine.unload(model)
        self.poll_soon(engine.id)

    async def unload_all(self) -> None:
        """Free the memory of every model that the built-in engine holds: somebody wants the machine."""
        for engine_id, snapshot in tuple(self._registry.snapshots.items()):
            engine = self._registry.engines[engine_id]
            if engine.kind == "builtin":
                for model in snapshot.models:
                    if model.resident:
                        with contextlib.suppress(EngineFault):
                            await engine.unload(model.name)
                self.poll_soon(engine_id)

    def _pick(self, name: str, engine_id: str) -> tuple[Engine, str]:
        for holder in self._registry.find(name):
            if engine_id in ("", holder.engine):
                return self._registry.engines[holder.engine], holder.model
        raise ModelNotFoundError(name)

    async def stop(self) -> None:
        """End everything."""
        await asyncio.gather(*(engine.stop() for engine in self._registry.engines.values()), return_exceptions=True)
