"""Other computers of paper: one in memory for the scheduler, and one over TLS that can lie in every way."""

from __future__ import annotations

from typing import Any

from router.engines.base import EngineModel, EngineSnapshot, Kind
from router.states import NodeMode
from tests.fakes import MemoryEngine


class MemoryPeer(MemoryEngine):
    """Another computer as the registry sees it: it loads by itself and says what it does for others."""

    kind = "peer"
    local = False

    def __init__(self, node: str = "p", models: tuple[str, ...] = ("m",), **more: Any) -> None:
        super().__init__(f"peer-{node}", models, **more)
        self.node = node
        self.label = node.title()
        self.mode = NodeMode.RUNNING
        self.in_flight = 0
        self.resident = list(models)

    def needs_load(self, model: str, kind: Kind = Kind.CHAT) -> bool:
        return False

    def look(self, *, ready: bool = True, detail: str = "", **more: Any) -> EngineSnapshot:
        models = tuple(
            EngineModel(name=name, digest=self.digests.get(name), resident=name in self.resident) for name in self.names
        )
        told: dict[str, Any] = {"mode": self.mode, "width": self.width, "in_flight": self.in_flight}
        return EngineSnapshot(ready=ready, models=models, detail=detail, **(told | more))
