"""What this node tells its paired computers about itself, and the open streams that tell it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import web

from router import __version__
from router.registry import Registry
from router.scheduler import Scheduler
from router.settings import Settings
from router.trust import Peer, Trust
from router.web.answers import SSE_HEADERS
from router.wire import ModelInfo, NodeInfo
from router.wire_snapshot import PeerModel, PeerSnapshot

BEAT_S: Final = 5.0
STREAMS_A_PEER: Final = 8
GOODBYE_S: Final = 0.5

_encode: Final = msgspec.json.Encoder().encode
_GOODBYE: Final = b'event: goodbye\ndata: {"why": "%b"}\n\n'
_BEAT: Final = b": beat\n\n"


class Told:
    """This node as its peers see it. Only what is on this computer counts: a peer's models are never passed on."""

    def __init__(
        self,
        registry: Registry,
        scheduler: Scheduler,
        settings: Settings,
        info: Callable[[], NodeInfo],
        width: Callable[[str], int],
    ) -> None:
        self._registry = registry
        self._scheduler = scheduler
        self._settings = settings
        self._info = info
        self._width = width

    def local(self, engine_id: str) -> bool:
        """Whether an engine is of this computer."""
        return bool(getattr(self._registry.engines.get(engine_id), "local", True))

    def models(self) -> list[ModelInfo]:
        """The models of this computer's own engines."""
        return [info for info in self._registry.model_infos() if info.local and self.local(info.engine)]

    def snapshot(self, peer: Peer) -> PeerSnapshot:
        """This node now, as ``peer`` is told it: without models when it may not use them."""
        info = self._info()
        lanes = [lane for lane in self._scheduler.lanes.values() if self.local(lane.engine)]
        ready = [name for name, look in self._registry.snapshots.items() if look.ready and self.local(name)]
        return PeerSnapshot(
            node_id=info.id,
            name=info.name,
            version=__version__,
            mode=info.mode,
            width=max(1, sum(self._width(name) for name in ready)),
            in_flight=sum(lane.in_flight for lane in lanes),
            waiting=sum(lane.waiting for lane in lanes),
            ram_total_bytes=info.ram_total_bytes,
            ram_free_bytes=info.ram_free_bytes,
            vram_total_bytes=info.vram_total_bytes,
            vram_free_bytes=info.vram_free_bytes,
            gpu=info.gpu,
            models=[self._model(model) for model in self.models()] if self.may_use(peer) else [],
            shared=bool(self._settings["share"]),
            granted=peer.may_use,
        )

    def _model(self, info: ModelInfo) -> PeerModel:
        engine = self._registry.engines.get(info.engine)
        speed = self._scheduler.rates.own(info.engine, info.name)
        return PeerModel(
            name=info.name,
            digest=info.digest,
            size_bytes=info.size_bytes,
            context=info.context,
            capabilities=info.capabilities,
            family=info.family,
            parameters=info.parameters,
            quantisation=info.quantisation,
            resident=info.residency == "warm",
            engine_kind=engine.kind if engine else "",
            problem=info.problem,
            prefill_per_s=speed.prefill_per_s,
            tokens_per_s=speed.decode_per_s,
            load_s=speed.load_s,
        )

    def may_use(self, peer: Peer) -> bool:
        """Whether ``peer`` may run jobs here now, apart from pause and drain."""
        return peer.may_use and bool(self._settings["share"])

    def find(self, model: str, digest: str | None) -> str | None:
        """The public name here of the model with ``digest``, else of the one called ``model``; None: not held.

        A file whose digest is still being computed goes by its name.
        """
        held = self.models()
        if digest is not None:
            same = [info.name for info in held if info.digest == digest]
            if same:
                return model if model in same else same[0]
            held = [info for info in held if info.digest is None]
        asked = _normal(model)
        return next((info.name for info in held if _normal(info.name) == asked), None)


def _normal(name: str) -> str:
    return name.lower().removesuffix(":latest")


class _Watcher:
    def __init__(self, node_id: str, transport: asyncio.Transport | None) -> None:
        self.node_id = node_id
        self.transport = transport
        self.wake = asyncio.Event()
        self.leaving = False
        self.replaced = False


class StateFeed:
    """The open state streams. ``changed`` may be called as often as one likes: a slow reader gets the newest state."""

    def __init__(self, told: Told, trust: Trust) -> None:
        self._told = told
        self._trust = trust
        self.asleep = False
        self._watchers: dict[_Watcher, None] = {}
        self._empty = asyncio.Event()

    def __len__(self) -> int:
        return len(self._watchers)

    def changed(self) -> None:
        """Look again, and tell those to whom it is news."""
        for watcher in self._watchers:
            watcher.wake.set()

    async def goodbye(self, *, asleep: bool = False) -> None:
        """Say that this node goes, or sleeps, and end the streams that are open now; at most half a second."""
        self.asleep = asleep
        for watcher in self._watchers:
            watcher.leaving = True
            watcher.wake.set()
        try:
            async with asyncio.timeout(GOODBYE_S):
                while self._watchers:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            return

    def _make_room(self, node_id: str) -> None:
        """The oldest stream gives way: one of a peer that moved stands open for minutes, and nobody hears it."""
        mine = [watcher for watcher in self._watchers if watcher.node_id == node_id]
        for watcher in mine[: max(0, len(mine) - STREAMS_A_PEER + 1)]:
            del self._watchers[watcher]
            watcher.replaced = watcher.leaving = True
            watcher.wake.set()
            if watcher.transport is not None:
                watcher.transport.abort()  # it may be waiting for one that does not read

    async def serve(self, request: web.Request, node_id: str) -> web.StreamResponse:
        """``GET /peer/v1/state``: a snapshot, each change as a whole new one, a beat when nothing changes."""
        self._make_room(node_id)
        response = web.StreamResponse(headers=SSE_HEADERS)
        watcher = _Watcher(node_id, request.transport)
        self._watchers[watcher] = None
        try:
            await response.prepare(request)
            last = b""
            while not (watcher.leaving or self.asleep) and (peer := self._trust.get(node_id)) is not None:
                watcher.wake.clear()
                now = _encode(self._told.snapshot(peer))
                if now != last:
                    await response.write(b"event: %b\ndata: %b\n\n" % (b"change" if last else b"snapshot", now))
                    last = now
                elif not await _woken(watcher.wake, BEAT_S):
                    await response.write(_BEAT)
            if watcher.replaced:
                return response
            await response.write(_GOODBYE % (b"asleep" if self.asleep else b"closed"))
            await response.write_eof()
            return response
        finally:
            self._watchers.pop(watcher, None)
            if not self._watchers:
                self._empty.set()


async def _woken(event: asyncio.Event, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
