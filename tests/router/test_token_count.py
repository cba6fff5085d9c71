"""Tokens are counted by the engine that holds the model, or by nobody."""

from __future__ import annotations

import json

import pytest

from router.errors import EngineFault, ModelNotFoundError
from router.token_count import count_tokens
from tests.fakes import MemoryEngine
from tests.world import World

BODY = json.dumps({"model": "M", "messages": []}).encode()


class CountingEngine(MemoryEngine):
    """Counts the letters of the model's name it is given, unless told otherwise."""

    answer: int | None = 5
    fault: EngineFault | None = None

    async def count_tokens(self, model: str, body: bytes) -> int | None:
        if self.fault is not None:
            raise self.fault
        assert json.loads(body)["model"] == model
        return self.answer


async def test_the_engine_counts_what_it_calls_by_its_own_name() -> None:
    world = World(CountingEngine("e", ["m:latest"]))

    assert await count_tokens(world.registry, "M", BODY) == 5


async def test_the_next_holder_is_asked_when_one_can_not_tell() -> None:
    cold, broken, good = CountingEngine("a"), CountingEngine("b"), CountingEngine("c")
    cold.answer = None
    broken.fault = EngineFault("gone")

    assert await count_tokens(World(MemoryEngine("d"), cold, broken, good).registry, "M", BODY) == 5


async def test_nobody_can_count_where_no_engine_offers_it() -> None:
    assert await count_tokens(World(MemoryEngine()).registry, "m", BODY) is None


async def test_a_model_nobody_holds_is_not_found() -> None:
    with pytest.raises(ModelNotFoundError):
        await count_tokens(World().registry, "other", BODY)
