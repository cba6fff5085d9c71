"""The built-in engine: llama.cpp, one child process per loaded model, so that a crash costs one model and no more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from router.aio import Clock, Tasks
from router.engines.base import Call, EngineModel, EngineSnapshot, Kind, Reply
from router.engines.llama_replica import Replica, Tuning
from router.engines.quarantine import Quarantine
from router.engines.transport import Transport
from router.errors import EngineFault
from router.hardware import HardwareProbe
from router.library import Library, LibraryModel
from router.library_places import loose

log = logging.getLogger(__name__)

FAILURE_KEPT_S: Final = 15.0
ROOM_TRIES: Final = 5
ROOM_PAUSE_S: Final = 0.5
SWEEP_S: Final = 1.0
FRESH_S: Final = 5.0
CRASH_SEEN_S: Final = 0.5
MAX_SLOTS: Final = 16
ERROR_MAX_BYTES: Final = 64 * 1024
# A text too long for an embedder; an image or sound for a model without a projector.
THE_REQUESTS: Final = (b"too large to process", b"input is not supported")


class LlamaEngine:
    """``Engine`` over child processes. A chat model that is asked for embeddings gets a second process for them."""

    id = "builtin"
    kind = "builtin"
    label = "Built-in"
    url = ""

    def __init__(
        self,
        library: Library,
        settings: Mapping[str, Any],
        tasks: Tasks,
        clock: Clock,
        transport: Transport,
        tuning: Tuning | None = None,
    ) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._library = library
        self._settings = settings
        self._tasks = tasks
        self._clock = clock
        self._transport = transport
        self._tuning = tuning or Tuning()
        self._hardware = HardwareProbe()
        self._quarantine = Quarantine()
        self._replicas: dict[tuple[str, bool], Replica] = {}
        self._failures: dict[tuple[str, bool], tuple[float, EngineFault]] = {}
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def width(self) -> int:
        """Jobs at once: the setting, up to the slots a process may have."""
        return min(self._settings["concurrency"] or 1, MAX_SLOTS)

    async def start(self) -> None:
        """Begin to unload idle models; loads nothing."""
        self._sweeper = self._tasks.spawn("builtin keep alive", self._sweep_on())

    async def stop(self) -> None:
        """End all child processes."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        await asyncio.gather(*(self._drop(replica) for replica in tuple(self._replicas.values())))

    async def poll(self) -> EngineSnapshot:
        """The library's models and what of them is loaded; costs no I/O."""
        models = tuple(self._describe(model) for model in self._library.models.values())
        refused = {(file := _refused(Path(path), why)).name: file for path, why in self._library.refused.items()}
        shown = tuple(file for name, file in refused.items() if name not in self._library.models)
        return EngineSnapshot(ready=True, models=models, refused=shown)

    def needs_load(self, model: str, kind: Kind = Kind.CHAT) -> bool:
        """Whether a request of ``kind`` should wait for ``load`` first."""
        found = self._library.find(model)
        if found is None:
            return False
        replica = self._replicas.get(_key(found, kind))
        return replica is None or not replica.loaded

    async def load(
        self,
        model: str,
        *,
        keep_alive_s: float | None = None,
        progress: Callable[[int], None] | None = None,
        kind: Kind = Kind.CHAT,
    ) -> None:
        """Make ``model`` resident for ``kind``. Loads of the same model join; one nobody waits for is cancelled."""
        found = self._model(model)
        replica = self._replicas.get(_key(found, kind)) or self._begin(found, kind)
        if not replica.loaded:
            if progress is not None:
                replica.watchers.append(progress)
            await self._join(replica)
        if keep_alive_s is not None:
            replica.keep_alive_s = keep_alive_s
        self._idle_from_now(replica)

    async def unload(self, model: str) -> None:
        """End the processes of ``model``."""
        if (found := self._library.find(model)) is not None:
            mine = [replica for (name, _), replica in self._replicas.items() if name == found.name]
            await asyncio.gather(*(self._drop(replica) for replica in mine))

    async def unload_all(self) -> None:
        """Free all memory (pause)."""
        await asyncio.gather(*(self._drop(replica) for replica in tuple(self._replicas.values())))

    def forgive(self, model: str) -> None:
        """Let a quarantined model be tried again."""
        if (found := self._library.find(model)) is not None:
            self._quarantine.forgive(found.stamp)
            self._failures = {key: kept for key, kept in self._failures.items() if key[0] != found.name}
            self.changed()

    def log_lines(self, model: str) -> list[str]:
        """The last log lines of the processes of ``model``, without anything users wrote."""
        return [line for (name, _), replica in self._replicas.items() if name == model for line in replica.log_lines()]

    @asynccontextmanager
    async def call(self, call: Call) -> AsyncIterator[Reply]:
        """Send the canonical body to the model's process, loading it first where it is not. Raises EngineFault."""
        found = self._model(call.model)
        replica = self._replicas.get(_key(found, call.kind))
        if replica is None or not replica.loaded:
            await self.load(call.model, keep_alive_s=call.keep_alive_s, kind=call.kind)
            replica = self._replicas.get(_key(found, call.kind))
            if replica is None:
                raise EngineFault(f"The model '{call.model}' was unloaded while it was asked.")
        replica.keep_alive_s = call.keep_alive_s
        replica.in_flight += 1
        replica.jobs[call.request_id] = replica.jobs.get(call.request_id, 0) + 1
        replica.fresh_until = 0.0
        try:
            async with self._transport.open(
                "POST", replica.urls[call.kind], headers=replica.headers, body=call.body
            ) as reply:
                yield await _judged(reply) if reply.status == 500 else reply
            self._quarantine.worked(found.stamp)
        except EngineFault as fault:
            raise await self._explained(replica, fault) from fault
        finally:
            self._release(replica, call.request_id)

    async def count_tokens(self, model: str, body: bytes) -> int | None:
        """Tokens of the prompt of a chat as the loaded model counts them; None while it isn't. Raises EngineFault."""
        found = self._library.find(model)
        replica = self._replicas.get(_key(found, Kind.CHAT)) if found is not None else None
        return await replica.count_tokens(body) if replica is not None and replica.loaded else None

    # -- loading

    def _model(self, name: str) -> LibraryModel:
        found = self._library.find(name)
        if found is None:
            raise EngineFault(f"The built-in engine has no model '{name}'.", code="model_not_found")
        if problem := self._quarantine.problem(found.stamp):
            raise EngineFault(
                problem, "Replace the file, or load it on the Models page to try it once more.", retryable=False
            )
        return found

    def _begin(self, model: LibraryModel, kind: Kind) -> Replica:
        """Start to load, unless that failed a moment ago."""
        key = _key(model, kind)
        if (kept := self._failures.get(key)) is not None:
            until, fault = kept
            if self._clock.mono() < until:
                raise _told_again(fault)
            del self._failures[key]
        replica = Replica(
            key, model, self._settings, self.width, self._tasks, self._transport, self._tuning, self._hardware
        )
        replica.changed = self.changed
        replica.last_mono = self._clock.mono()
        self._replicas[key] = replica
        replica.task = self._tasks.spawn(f"load {model.name}", self._load(replica))
        self.changed()
        return replica

    async def _join(self, replica: Replica) -> None:
        assert replica.task is not None  # noqa: S101 - set by _begin; this tells the type checker
        replica.waiters += 1
        try:
            fault = await asyncio.shield(replica.task)
        except asyncio.CancelledError:
            if not replica.task.cancelled():
                if replica.waiters == 1:
                    self._tasks.spawn(f"abandon {replica.model.name}", self._drop(replica))
                raise
            fault = EngineFault(f"The load of '{replica.model.name}' was given up.")
        finally:
            replica.waiters -= 1
        if fault is not None:
            raise _told_again(fault)

    async def _load(self, replica: Replica) -> EngineFault | None:
        """Make room, start, wait; how it failed is a value, so that every waiter gets it."""
        stamp = replica.model.stamp
        try:
            await asyncio.sleep(self._quarantine.pause_s(stamp, self._clock.mono()))
            await self._make_room(replica)
            await replica.load()
        except EngineFault as fault:
            self._replicas.pop(replica.key, None)
            if replica.crashed:
                self._quarantine.crashed_loading(stamp, self._clock.mono())
            elif fault.code != "models_busy":
                self._failures[replica.key] = (self._clock.mono() + FAILURE_KEPT_S, fault)
            log.warning("%s", fault.message)
            self.changed()
            return fault
        except asyncio.CancelledError:
            self._replicas.pop(replica.key, None)
            raise
        replica.fresh_until = self._clock.mono() + FRESH_S
        self._idle_from_now(replica)
        self._tasks.spawn(f"watch {replica.model.name}", self._watch(replica))
        self.changed()
        return None

    async def _make_room(self, new: Replica) -> None:
        """Unload the least recently used idle models until there is room. Embedders neither count nor leave."""
        for attempt in range(ROOM_TRIES):
            while not await new.fits(self._rivals(new), self._settings["max_loaded"]):
                idle = [replica for replica in self._rivals(new) if replica.idle(self._clock.mono())]
                if not idle:
                    break
                await self._drop(min(idle, key=lambda replica: replica.last_mono))
            else:
                return
            if attempt + 1 < ROOM_TRIES:
                await asyncio.sleep(ROOM_PAUSE_S)
        raise EngineFault(f"There is no room for '{new.model.name}': every loaded model is in use.", code="models_busy")

    def _rivals(self, new: Replica) -> list[Replica]:
        if new.embedder:
            return []
        return [replica for replica in self._replicas.values() if replica is not new and not replica.embedder]

    # -- loaded

    async def _watch(self, replica: Replica) -> None:
        await replica.watch()
        self._ended(replica)

    def _ended(self, replica: Replica) -> None:
        """Its process is gone; an end nobody asked for is a crash under the jobs that ran. Counts once."""
        if self._replicas.get(replica.key) is replica:
            del self._replicas[replica.key]
        if replica.crashed and not replica.mourned:
            replica.mourned = True
            self._quarantine.crashed_working(replica.model.stamp, frozenset(replica.jobs), self._clock.mono())
            log.warning("the engine of %s stopped: %s", replica.model.name, replica.how())
        self.changed()

    async def _explained(self, replica: Replica, fault: EngineFault) -> EngineFault:
        """A broken connection often shows before the end of the process that broke it."""
        if not await replica.ended_within(CRASH_SEEN_S):
            return fault
        self._ended(replica)
        return EngineFault(f"The engine of '{replica.model.name}' stopped: {replica.how()}.", crashed=replica.crashed)

    def _release(self, replica: Replica, request_id: str) -> None:
        replica.in_flight -= 1
        left = replica.jobs[request_id] - 1
        if left:
            replica.jobs[request_id] = left
        else:
            del replica.jobs[request_id]
        self._idle_from_now(replica)

    def _idle_from_now(self, replica: Replica) -> None:
        """Count its idle time afresh; a keep alive of 0 unloads it at once."""
        replica.last_mono = self._clock.mono()
        keep_s = replica.keep_s(self._settings["keep_alive"])
        replica.expires_at = None if keep_s < 0 else self._clock.wall() + keep_s
        if keep_s == 0 and replica.in_flight == 0 and replica.loaded and not replica.fresh(self._clock.mono()):
            self._tasks.spawn(f"unload {replica.model.name}", self._drop(replica))

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            await self.sweep()

    async def sweep(self) -> None:
        """Unload what has been idle for its keep alive, or whose file is no longer offered."""
        now = self._clock.mono()
        for replica in tuple(self._replicas.values()):
            keep_s = replica.keep_s(self._settings["keep_alive"])
            gone = self._library.find(replica.model.name) is None
            if replica.idle(now) and (gone or 0 <= keep_s <= now - replica.last_mono):
                await self._drop(replica)

    async def _drop(self, replica: Replica) -> None:
        """Out of the list at once, so that nobody picks it; then its process ends."""
        if self._replicas.get(replica.key) is replica:
            del self._replicas[replica.key]
        self.changed()
        await replica.close()

    def _describe(self, model: LibraryModel) -> EngineModel:
        mine = [r for embedder in (False, True) if (r := self._replicas.get((model.name, embedder)))]
        first = mine[0] if mine else None
        expiries = [replica.expires_at for replica in mine if replica.expires_at is not None]
        return EngineModel(
            name=model.name,
            digest=model.digest,
            size_bytes=model.info.size_bytes,
            family=model.info.architecture,
            parameters=model.info.parameters,
            quantisation=model.info.quantisation,
            context=model.info.context,
            capabilities=model.capabilities,
            resident=any(replica.loaded for replica in mine),
            loading_pct=first.percent if first and not first.loaded else None,
            memory_bytes=sum(replica.memory_bytes for replica in mine) or None,
            expires_at=max(expiries, default=None),
            modified_at=model.info.modified_at,
            source=model.source,
            problem=self._quarantine.problem(model.stamp),
        )


def _refused(path: Path, why: str) -> EngineModel:
    return EngineModel(name=loose(path, "").name, source=str(path), problem=f"Its file {path.name} {why}.")


def _key(model: LibraryModel, kind: Kind) -> tuple[str, bool]:
    return model.name, kind is Kind.EMBEDDING or model.info.embedding


def _told_again(fault: EngineFault) -> EngineFault:
    """``fault`` for one more of those who waited: an exception raised twice would gather tracebacks."""
    return EngineFault(fault.message, fault.hint, code=fault.code, retryable=fault.retryable, lasting=fault.lasting)


async def _judged(reply: Reply) -> Reply:
    """What is the request's fault is told as such, whatever llama.cpp says: nobody should try it again."""
    body = bytearray()
    async for chunk in reply.chunks:
        body += chunk
        if len(body) > ERROR_MAX_BYTES:
            break
    status = 400 if any(fault in body for fault in THE_REQUESTS) else 500
    return Reply(status, reply.content_type, _only(bytes(body)))


async def _only(body: bytes) -> AsyncIterator[bytes]:
    yield body
