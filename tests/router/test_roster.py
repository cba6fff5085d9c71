"""The engines' snapshots stay fresh, and the user's loads and unloads reach the right engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from router.aio import Tasks
from router.errors import EngineFault, ModelNotFoundError
from router.registry import Registry
from router.roster import Roster
from tests.fakes import FakeClock, MemoryEngine


class Shelf:
    """A roster over engines in memory."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.tasks = Tasks()
        self.notices: list[str] = []
        self.registry = Registry("here", lambda: "here")
        self.roster = Roster(self.registry, self.tasks, self.clock, self.notices.append)

    def warm(self) -> list[str]:
        return [m.name for snapshot in self.registry.snapshots.values() for m in snapshot.models if m.resident]


@pytest.fixture
async def shelf() -> AsyncIterator[Shelf]:
    made = Shelf()
    yield made
    await made.tasks.close()


async def test_an_engine_is_looked_at_as_it_comes(shelf: Shelf) -> None:
    await shelf.roster.add(MemoryEngine("e", ["a"]))
    shelf.roster.found(MemoryEngine("f", ["b"]))
    await shelf.roster.settled()
    assert {model.name for model in shelf.registry.model_infos()} == {"a", "b"}


async def test_an_engine_that_is_gone_takes_its_models_along(shelf: Shelf) -> None:
    await shelf.roster.add(MemoryEngine("e", ["a"]))
    shelf.roster.gone("e")
    assert not shelf.registry.model_infos()


async def test_looks_asked_for_together_are_two_at_most(shelf: Shelf) -> None:
    engine = MemoryEngine("e", ["a"])
    await shelf.roster.add(engine)
    looks = 0

    async def poll():  # type: ignore[no-untyped-def]
        nonlocal looks
        looks += 1
        return engine.look()

    engine.poll = poll  # type: ignore[method-assign]
    for _ in range(10):
        shelf.roster.poll_soon("e")
    await shelf.roster.settled()
    assert looks <= 2


async def test_an_unknown_model_is_looked_for_once_in_a_while(shelf: Shelf) -> None:
    engine = MemoryEngine("e", ["a"])
    await shelf.roster.add(engine)
    engine.names.append("new")
    await shelf.roster.repoll()
    assert shelf.registry.find("new")
    engine.names.append("newer")
    await shelf.roster.repoll()
    with pytest.raises(ModelNotFoundError):
        shelf.registry.find("newer")
    shelf.clock.advance(3)
    await shelf.roster.repoll()
    assert shelf.registry.find("newer")


async def test_the_user_loads_and_unloads_by_name(shelf: Shelf) -> None:
    engine = MemoryEngine("e", ["a", "b"])
    await shelf.roster.add(engine)
    shelf.roster.load("a", "")
    while not engine.loaded:
        await asyncio.wait(set(shelf.tasks._running), return_when=asyncio.FIRST_COMPLETED)
    await shelf.roster.settled()
    assert shelf.warm() == ["a"]
    await shelf.roster.unload("a", "e")
    await shelf.roster.settled()
    assert shelf.warm() == []
    with pytest.raises(ModelNotFoundError):
        shelf.roster.load("a", "elsewhere")


class Noting(MemoryEngine):
    """Remembers how long models were to stay."""

    kept: float | None = None

    async def load(self, model: str, *, keep_alive_s: float | None = None, **options: Any) -> None:
        self.kept = keep_alive_s
        await super().load(model, keep_alive_s=keep_alive_s, **options)


async def test_a_model_is_loaded_for_as_long_as_was_asked(shelf: Shelf) -> None:
    engine = Noting("e", ["a"])
    await shelf.roster.add(engine)
    shelf.roster.load("a", "", -1.0)
    while not engine.loaded:
        await asyncio.wait(set(shelf.tasks._running), return_when=asyncio.FIRST_COMPLETED)
    assert engine.kept == -1.0


async def test_a_model_that_was_set_aside_is_tried_once_more_when_the_user_loads_it(shelf: Shelf) -> None:
    class Careful(MemoryEngine):
        def forgive(self, model: str) -> None:
            self.load_fault = None

    await shelf.roster.add(engine := Careful("e", ["a"]))
    engine.load_fault = EngineFault("It is set aside.", retryable=False)
    shelf.roster.load("a", "")
    while not engine.loaded:
        await asyncio.wait(set(shelf.tasks._running), return_when=asyncio.FIRST_COMPLETED)
    await shelf.roster.settled()
    assert (shelf.warm(), shelf.notices) == (["a"], [])


async def test_a_load_that_fails_is_told(shelf: Shelf) -> None:
    engine = MemoryEngine("e", ["a"])
    engine.load_fault = EngineFault("It does not fit.")
    await shelf.roster.add(engine)
    shelf.roster.load("a", "")
    await asyncio.wait(set(shelf.tasks._running))
    assert shelf.notices == ["a: It does not fit."]
