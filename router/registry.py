"""What this node knows of engines, its own and other computers, and of the models they hold: who holds what, and warm.

Another computer is one more engine whose ``local`` is False and whose ``node`` is its id.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from router.aio import SystemClock
from router.engines.base import Engine, EngineModel, EngineSnapshot, Kind
from router.errors import ModelNotFoundError
from router.health import Health
from router.placement import Word
from router.prediction import UNMEASURED, Speed
from router.replicas import Replicas
from router.states import NodeMode
from router.wire import EngineInfo, ModelInfo
from router.wire_receipt import Verdict

OVERHEAD = 1.2
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
UNKNOWN_MAX = 64  # a line of jobs whose model is away asks for it again and again
NOT_READY = EngineSnapshot(ready=False, detail="starting")

_UNKNOWN: dict[str, Any] = {"resident": False, "loading_pct": None, "memory_bytes": None, "expires_at": None}


@dataclass(frozen=True, slots=True)
class Holder:
    """One engine that has one model. ``model`` is the engine's own name of it.

    Of another computer ``others`` counts the jobs there that this node did not send; ``width`` is its own. ``blind``:
    it is known to take no images. ``told`` is how fast it says that it is.
    """

    node: str
    engine: str
    model: str
    digest: str | None
    local: bool
    warm: bool
    last_used: float
    free_vram_bytes: int = 0
    blocked: Word | None = None
    detail: str = ""
    others: int = 0
    width: int = 0
    blind: bool = False
    told: Speed = UNMEASURED


class Registry:
    """Engines with their latest snapshots. Mutated on the loop only; ``changed`` hears of each change."""

    def __init__(
        self,
        node: str,
        node_name: Callable[[], str],
        changed: Callable[[], None] = lambda: None,
        health: Health | None = None,
    ) -> None:
        self.node = node
        self.engines: dict[str, Engine] = {}
        self.snapshots: dict[str, EngineSnapshot] = {}
        self.changed = changed
        self.health = health or Health(SystemClock())
        self.health.changed = lambda: self.changed()
        self._node_name = node_name
        self.replicas = Replicas()
        self._found: dict[str, list[tuple[str, EngineModel]]] = {}
        self._unknown: dict[str, tuple[Sequence[str], str]] = {}
        self._others: dict[str, int] = {}

    # -- engines

    def add(self, engine: Engine) -> None:
        """A new engine, not ready before its first snapshot."""
        self.engines[engine.id] = engine
        self.snapshots[engine.id] = NOT_READY
        self._forget_found()

    def remove(self, engine_id: str) -> Engine | None:
        """The engine is gone, and with it its models; what still runs there is counted to its end."""
        engine = self.engines.pop(engine_id, None)
        self.snapshots.pop(engine_id, None)
        self._others.pop(engine_id, None)
        self._forget_found()
        self.replicas.forget(engine_id)
        self.changed()
        return engine

    def update(self, engine_id: str, snapshot: EngineSnapshot) -> None:
        """A newer look at an engine; one that is gone is ignored. A look that failed takes no model away."""
        if engine_id not in self.engines:
            return
        if snapshot.ready:
            self.replicas.see(engine_id, (model.name for model in snapshot.models if model.resident))
        elif not snapshot.models:
            known = self.snapshots[engine_id].models
            snapshot = replace(snapshot, models=tuple(replace(model, **_UNKNOWN) for model in known))
        if self.snapshots[engine_id] != snapshot:
            self.snapshots[engine_id] = snapshot
            if not self.local(engine_id):
                ours = self.replicas.in_flight(engine_id)
                self._others[engine_id] = max(0, snapshot.in_flight + snapshot.waiting - ours)
            self._forget_found()
            self.changed()

    def has_engine(self, engine_id: str) -> bool:
        """Whether the engine is known, ready or not."""
        return engine_id in self.engines

    def local(self, engine_id: str) -> bool:
        """Whether the engine is this computer's own; one that is gone counts as such."""
        return bool(getattr(self.engines.get(engine_id), "local", True))

    def answers(self, engine_id: str) -> bool:
        """False for an own engine that refused to be looked at; of other computers see ``takes``."""
        return not self.local(engine_id) or engine_id not in self.engines or not self.snapshots[engine_id].away

    def others(self, engine_id: str) -> int:
        """Jobs at another computer that this node did not send, as last told."""
        return self._others.get(engine_id, 0)

    def takes(self, engine_id: str, model: str) -> bool:
        """Whether a job may be sent to ``model`` at another computer now. An own engine is always asked itself."""
        if self.local(engine_id):
            return True
        snapshot = self.snapshots[engine_id]
        held = next((held for held in snapshot.models if held.name == model), None)
        return held is not None and self._blocked(engine_id, held)[0] is None

    # -- who holds what

    def find(self, name: str, kind: Kind = Kind.CHAT) -> list[Holder]:
        """All holders of the model called ``name``, by digest where one is known. Raises ModelNotFoundError."""
        if (unknown := self._unknown.get(name)) is not None:
            raise ModelNotFoundError(name, *unknown)
        key = _normal(name)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._resolve(name)
        return [self._holder(engine, model) for engine, model in found]

    def _forget_found(self) -> None:
        self._found.clear()
        self._unknown.clear()

    def _resolve(self, name: str) -> list[tuple[str, EngineModel]]:
        asked = _normal(name)
        offered = [(engine, model) for engine in self._in_order() for model in self.snapshots[engine].models]
        if weights := _DIGEST.fullmatch(asked):
            by_digest = [(engine, model) for engine, model in offered if model.digest == weights[1]]
            if by_digest:
                return by_digest
        named = [
            (engine, model)
            for engine, model in offered
            if (own := _normal(model.name)) == asked
            or asked in (f"{own}@{engine}".lower(), f"{own}@{self._suffix(engine)}".lower())
        ]
        if not named:
            names = sorted({model.name for _, model in offered})
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
            why = next((file.problem for _, file in self._refused() if _normal(file.name) == asked), "")
            if len(self._unknown) >= UNKNOWN_MAX:
                self._unknown.clear()
            self._unknown[name] = (near or names[:3], why)
            raise ModelNotFoundError(name, *self._unknown[name])
        digest = named[0][1].digest
        if digest is None:
            return [pair for pair in named if pair[1].digest is None]
        return [(engine, model) for engine, model in offered if model.digest == digest] + [
            pair for pair in named if pair[1].digest is None
        ]

    def _refused(self) -> list[tuple[str, EngineModel]]:
        return [(engine, file) for engine, snapshot in self.snapshots.items() for file in snapshot.refused]

    def _in_order(self) -> list[str]:
        """Own engines first: a name means this computer's model; then the others in an order that stays."""
        own = [engine for engine in self.snapshots if self.local(engine)]
        return own + sorted(engine for engine in self.snapshots if not self.local(engine))

    def _suffix(self, engine_id: str) -> str:
        """What follows the ``@`` where two models have one name: the computer's name if unique, else its id."""
        if self.local(engine_id):
            return engine_id
        names = [_slug(engine.label) for engine in self.engines.values() if not self.local(engine.id)]
        slug = _slug(self.engines[engine_id].label)
        return slug if slug and names.count(slug) == 1 and slug not in self.engines else engine_id

    def _holder(self, engine_id: str, model: EngineModel) -> Holder:
        snapshot, local, engine = self.snapshots[engine_id], self.local(engine_id), self.engines[engine_id]
        blocked, detail = self._blocked(engine_id, model)
        return Holder(
            node=getattr(engine, "node", self.node),
            engine=engine_id,
            model=model.name,
            digest=model.digest,
            local=local,
            warm=model.resident or (local and not engine.needs_load(model.name)),
            last_used=self.replicas.get(engine_id, model.name).last_used,
            free_vram_bytes=snapshot.free_vram_bytes
            and max(0, snapshot.free_vram_bytes - self.replicas.reserved_bytes(engine_id)),
            blocked=blocked,
            detail=detail,
            others=self.others(engine_id),
            width=snapshot.width,
            blind=engine.kind == "builtin" and "vision" not in model.capabilities,
            told=model.speed,
        )

    def absent(self, holders: Sequence[Holder]) -> tuple[Verdict, ...]:
        """The computers that are not among ``holders``, with why; empty while there is no other computer."""
        others = [engine_id for engine_id in self.engines if not self.local(engine_id)]
        if not others:
            return ()
        held = {holder.node for holder in holders}
        nodes = {str(getattr(self.engines[engine_id], "node", "")): engine_id for engine_id in others}
        here = () if self.node in held else (Verdict(node=self.node, engine="", verdict=Word.MISSING),)
        return here + tuple(self._absent(node, engine_id) for node, engine_id in nodes.items() if node not in held)

    def _absent(self, node: str, engine_id: str) -> Verdict:
        """Whoever was not heard of yet may have the model."""
        snapshot = self.snapshots[engine_id]
        if snapshot.ready or snapshot.models:
            return Verdict(node=node, engine=engine_id, verdict=Word.MISSING)
        word = Word.UNHEALTHY if snapshot.trusted else Word.UNTRUSTED
        return Verdict(node=node, engine=engine_id, verdict=word, detail=snapshot.detail)

    def _blocked(self, engine_id: str, model: EngineModel) -> tuple[Word | None, str]:
        """The word that rules a holder out now, and why; an own engine is never ejected."""
        snapshot = self.snapshots[engine_id]
        if not snapshot.trusted:
            return Word.UNTRUSTED, snapshot.detail
        if not snapshot.ready:
            return Word.UNHEALTHY, snapshot.detail
        if model.problem:
            return Word.UNFIT, model.problem
        if self.local(engine_id):
            return None, ""
        if not snapshot.mode.takes_work:
            return Word.PAUSED if snapshot.mode is NodeMode.PAUSED else Word.DRAINING, snapshot.detail
        if why := self.health.ejected(engine_id, model.name):
            return Word.UNHEALTHY, why
        why = self._no_room(engine_id, model)
        return (Word.UNFIT, why) if why else (None, "")

    def _no_room(self, engine_id: str, model: EngineModel) -> str:
        """Why a model can't be loaded at another computer, though what is loaded there may leave; empty when it can."""
        snapshot = self.snapshots[engine_id]
        free = snapshot.free_vram_bytes + snapshot.free_ram_bytes
        if model.resident or not free:
            return ""
        loaded = sum(memory_need(held) for held in snapshot.models if held.resident)
        reserved = self.replicas.reserved_bytes(engine_id) - self.replicas.get(engine_id, model.name).reserved_bytes
        need, room = memory_need(model), max(0, free + loaded - reserved)
        return "" if need <= room else f"It needs {_gib(need)} of memory there; {_gib(room)} can be had."

    def warm(self, engine_id: str, model: str) -> bool:
        """Whether ``model`` answers at ``engine_id`` without a load."""
        snapshot = self.snapshots.get(engine_id)
        return snapshot is not None and any(m.resident for m in snapshot.models if m.name == model)

    def needs_load(self, engine_id: str, model: str, kind: Kind = Kind.CHAT) -> bool:
        """Whether a job of ``kind`` must load the model first."""
        engine = self.engines.get(engine_id)
        return engine is not None and engine.needs_load(model, kind)

    def used(self, engine_id: str, model: str, now: float, change: int) -> None:
        """A lease was taken (+1) or given back (-1) at monotonic time ``now``."""
        if change > 0:
            self.replicas.lease(engine_id, model, now, self._on_its_way(engine_id, model))
        else:
            self.replicas.release(engine_id, model, now)
        if not self.local(engine_id):
            (self.health.began if change > 0 else self.health.ended)(engine_id, model)
        if engine_id not in self.engines:
            self.replicas.drop(engine_id, model)

    def _on_its_way(self, engine_id: str, model: str) -> int:
        """Memory that a job sent to ``model`` at another computer takes there before that computer can tell."""
        if self.local(engine_id):
            return 0
        held = next((held for held in self.snapshots[engine_id].models if held.name == model), None)
        return 0 if held is None or held.resident else memory_need(held)

    # -- looks

    def engine_infos(self, width: Callable[[str], int], in_flight: Callable[[str], int]) -> list[EngineInfo]:
        """The engines of this computer as the page shows them."""
        return [
            EngineInfo(
                id=engine.id,
                kind=engine.kind,
                label=engine.label,
                url=engine.url,
                state="ready" if snapshot.ready else "starting" if snapshot is NOT_READY else "failed",
                detail=snapshot.detail,
                version=snapshot.version,
                width=width(engine.id),
                in_flight=in_flight(engine.id),
            )
            for engine in self.engines.values()
            if self.local(engine.id)
            for snapshot in (self.snapshots[engine.id],)
        ]

    def shown_infos(self) -> list[ModelInfo]:
        """The models, then the files that are none: what pages and commands show."""
        return self.model_infos() + [self._info(engine, file, file.name) for engine, file in self._refused()]

    def model_infos(self) -> list[ModelInfo]:
        """The models that can be asked for; two of one name and different digests are told apart by where they are.

        The name alone is that of this computer's model, where it has one.
        """
        first: dict[str, str | None] = {}
        infos = []
        for engine_id in self._in_order():
            for model in self.snapshots[engine_id].models:
                same = first.setdefault(_normal(model.name), model.digest) == model.digest
                name = model.name if same else f"{model.name}@{self._suffix(engine_id)}"
                infos.append(self._info(engine_id, model, name))
        return infos

    def _info(self, engine_id: str, model: EngineModel, name: str) -> ModelInfo:
        snapshot = self.snapshots[engine_id]
        loading = model.loading_pct is not None and not model.resident
        local, engine = self.local(engine_id), self.engines[engine_id]
        return ModelInfo(
            name=name,
            node=getattr(engine, "node", self.node),
            node_name=self._node_name() if local else engine.label,
            local=local,
            engine=engine_id,
            digest=model.digest,
            size_bytes=model.size_bytes,
            family=model.family,
            parameters=model.parameters,
            quantisation=model.quantisation,
            context=model.context,
            capabilities=sorted(model.capabilities),
            residency="warm" if model.resident else "loading" if loading else "cold",
            loading_pct=model.loading_pct,
            in_flight=self.replicas.get(engine_id, model.name).in_flight,
            expires_at=model.expires_at,
            memory_bytes=model.memory_bytes,
            source=model.source,
            problem=model.problem or ("" if snapshot.ready else snapshot.detail),
            modified_at=model.modified_at,
        )


def _normal(name: str) -> str:
    """Names compare without case, and ``:latest`` is what no tag means."""
    return name.lower().removesuffix(":latest")


def memory_need(model: EngineModel) -> int:
    """About the memory that a loaded copy takes: as measured, else its weights and a fifth more."""
    return model.memory_bytes or int((model.size_bytes or 0) * OVERHEAD)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _slug(name: str) -> str:
    """A computer's name as part of a model's."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.")
