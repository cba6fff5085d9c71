"""Loaded copies of models: what runs on each, the memory set aside for those on their way, and who hears of their end.

A copy is known by (engine, model); another computer is one engine. Mutated on the loop only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Replica:
    """One copy. ``last_used`` is monotonic; ``reserved_bytes`` are set aside until its computer tells anew."""

    in_flight: int = 0
    last_used: float = 0.0
    loaded: bool = False
    reserved_bytes: int = 0


_NONE = Replica()


class Replicas:
    """All of them. ``on_removed`` are called with (engine, model) when a loaded copy is gone."""

    def __init__(self) -> None:
        self.on_removed: list[Callable[[str, str], None]] = []
        self._known: dict[tuple[str, str], Replica] = {}

    def get(self, engine: str, model: str) -> Replica:
        """One of them; one never used and not loaded counts as empty."""
        return self._known.get((engine, model), _NONE)

    def in_flight(self, engine: str) -> int:
        """Leases of this node at an engine."""
        return sum(one.in_flight for (at, _), one in self._known.items() if at == engine)

    def reserved_bytes(self, engine: str) -> int:
        """Memory at an engine that its free memory does not show yet: somebody was just sent there who loads."""
        return sum(one.reserved_bytes for (at, _), one in self._known.items() if at == engine)

    # -- leases

    def lease(self, engine: str, model: str, now: float, need_bytes: int = 0) -> None:
        """Count one job in; ``need_bytes`` are set aside once, however many jobs wait for the same load."""
        one = self._known.setdefault((engine, model), Replica())
        one.in_flight += 1
        one.last_used = now
        one.reserved_bytes = one.reserved_bytes or need_bytes

    def release(self, engine: str, model: str, now: float) -> None:
        """Count it out; with the last one, what was set aside is free: the load is seen by now, or has failed."""
        one = self._known.get((engine, model))
        if one is None or not one.in_flight:
            return  # it was swept
        one.in_flight -= 1
        one.last_used = now
        if not one.in_flight:
            one.reserved_bytes = 0

    def sweep(self, engine: str) -> None:
        """Nothing runs there, as two sides say: what is still counted leaked."""
        for (at, _), one in self._known.items():
            if at == engine:
                one.in_flight = one.reserved_bytes = 0

    # -- what is loaded

    def see(self, engine: str, loaded: Iterable[str]) -> None:
        """The computer told anew which models it holds loaded and how much memory is free."""
        now = set(loaded)
        gone = []
        for (at, model), one in self._known.items():
            if at == engine:
                one.reserved_bytes = 0
                if one.loaded and model not in now:
                    one.loaded = False
                    gone.append(model)
        for model in now:
            self._known.setdefault((engine, model), Replica()).loaded = True
        for model in gone:
            self._tell(engine, model)

    def clear(self, engine: str) -> None:
        """The engine is away, and nothing of it is loaded any more; what runs there is counted to its end."""
        self.see(engine, ())

    def forget(self, engine: str) -> None:
        """The engine is gone for good."""
        self.clear(engine)
        for key in [key for key, one in self._known.items() if key[0] == engine and not one.in_flight]:
            del self._known[key]

    def drop(self, engine: str, model: str) -> None:
        """Forget one copy of an engine that is gone, once nothing is counted at it."""
        if not self.get(engine, model).in_flight:
            self._known.pop((engine, model), None)

    def _tell(self, engine: str, model: str) -> None:
        for listener in self.on_removed:
            try:
                listener(engine, model)
            except Exception:
                log.exception("a cache that depends on a loaded model could not be told that it is gone")
