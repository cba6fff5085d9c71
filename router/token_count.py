"""How many tokens a prompt has, where an engine can tell without running it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from router.engines.base import Kind
from router.errors import EngineFault
from router.registry import Registry
from router.web.canonical import with_model


@runtime_checkable
class Counter(Protocol):
    """An engine that counts the tokens of a canonical chat; None where it can't just now. Raises EngineFault."""

    async def count_tokens(self, model: str, body: bytes) -> int | None: ...


async def count_tokens(registry: Registry, model: str, body: bytes) -> int | None:
    """Tokens of the prompt of ``body``, a canonical chat of ``model``, by the first holder that can count them.

    Raises ModelNotFoundError. None when nobody can: then only an estimate is left.
    """
    for holder in registry.find(model, Kind.CHAT):
        engine = registry.engines.get(holder.engine)
        if isinstance(engine, Counter):
            try:
                count = await engine.count_tokens(holder.model, with_model(body, model, holder.model))
            except EngineFault:
                continue
            if count is not None:
                return count
    return None
