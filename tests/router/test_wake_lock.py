"""This computer stays awake while jobs run on it, and not longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from router.aio import Tasks
from router.power import NoPower
from router.wake_lock import WakeLock
from tests.fakes import BOUND_S


class Power(NoPower):
    """A system that can be kept awake, unless ``able`` is False."""

    def __init__(self) -> None:
        super().__init__()
        self.able = True
        self.held = False
        self.did: list[str] = []
        self.news = asyncio.Event()

    async def hold(self) -> bool:
        if not self.held:
            self.did.append("hold")
        self.held = self.able
        self.news.set()
        return self.able

    async def release(self) -> None:
        self.held = False
        self.did.append("release")


class Bench:
    def __init__(self) -> None:
        self.power = Power()
        self.running = False
        self.wanted = True
        self.news = self.power.news
        self.tasks = Tasks()
        self.lock = WakeLock(self.power, self.tasks, self._look, lambda: self.wanted, self.news.set, linger_s=0.02)

    def _look(self) -> bool:
        self.news.set()
        return self.running

    def begin(self) -> None:
        self.running = True
        self.lock.begun()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(BOUND_S):
            while not true():
                self.news.clear()
                await self.news.wait()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    made.lock.start()
    yield made
    await made.lock.stop()
    assert not made.power.held
    await made.tasks.close()


async def test_held_while_a_job_runs_and_released_when_none_does(bench: Bench) -> None:
    bench.begin()
    await bench.until(lambda: bench.lock.held)
    assert bench.power.held
    assert bench.lock.knows
    bench.running = False
    await bench.until(lambda: not bench.lock.held)
    assert bench.power.did == ["hold", "release"]
    bench.begin()
    await bench.until(lambda: bench.lock.held)


async def test_a_job_that_runs_elsewhere_keeps_nobody_awake(bench: Bench) -> None:
    bench.lock.begun()
    await bench.until(lambda: not bench.lock.knows)
    assert bench.power.did == []


async def test_who_switches_it_off_is_heard_at_once_and_so_is_who_switches_it_on(bench: Bench) -> None:
    bench.begin()
    await bench.until(lambda: bench.lock.held)
    bench.wanted = False
    await bench.until(lambda: not bench.lock.held)
    assert not bench.power.held
    bench.wanted = True
    await bench.until(lambda: bench.lock.held)


async def test_a_lock_that_was_lost_is_taken_again(bench: Bench) -> None:
    bench.begin()
    await bench.until(lambda: bench.lock.held)
    bench.power.held = False
    await bench.until(lambda: bench.power.held)


async def test_where_nothing_can_be_had_none_is_claimed(bench: Bench) -> None:
    bench.power.able = False
    bench.begin()
    await bench.until(lambda: len(bench.power.did) >= 3)
    assert not bench.lock.held
    assert set(bench.power.did) == {"hold"}
