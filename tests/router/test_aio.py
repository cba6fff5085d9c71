"""Tasks of the node: none is lost, none dies silently, all end with it."""

from __future__ import annotations

import asyncio
import time

import pytest

from router.aio import SystemClock, Tasks
from tests.fakes import BOUND_S, happens


async def test_a_task_runs_under_its_name_and_is_forgotten_when_it_ends() -> None:
    tasks = Tasks()

    async def work() -> int:
        return 7

    task = tasks.spawn("work", work())
    assert (task.get_name(), len(tasks)) == ("work", 1)
    assert await task == 7
    assert len(tasks) == 0


async def test_a_task_that_fails_is_logged_with_its_name(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()

    async def fail() -> None:
        raise ValueError("broken")

    task = tasks.spawn("poll", fail())
    await asyncio.wait((task,), timeout=BOUND_S)
    assert "task poll ended with ValueError" in caplog.text
    assert len(tasks) == 0


async def test_a_task_that_nobody_holds_is_not_collected() -> None:
    tasks, done = Tasks(), asyncio.Event()
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        await gate
        done.set()

    tasks.spawn("wait", wait())
    gate.set_result(None)
    await happens(done)


async def test_close_cancels_all_and_waits_for_their_last_words(caplog: pytest.LogCaptureFixture) -> None:
    tasks, ended = Tasks(), []

    async def run(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    for name in ("a", "b"):
        tasks.spawn(name, run(name))
    await asyncio.wait(tuple(tasks._running), timeout=0.01)
    async with asyncio.timeout(BOUND_S):
        await tasks.close()
    assert sorted(ended) == ["a", "b"]
    assert len(tasks) == 0
    assert caplog.text == ""


async def test_a_task_may_close_the_others() -> None:
    tasks, closed = Tasks(), asyncio.Event()

    async def close() -> None:
        await tasks.close()
        closed.set()

    other = tasks.spawn("other", asyncio.Event().wait())
    tasks.spawn("close", close())
    await happens(closed)
    assert other.cancelled()


def test_the_clock_of_the_machine_has_two_hands() -> None:
    clock = SystemClock()
    assert abs(clock.wall() - time.time()) < 5
    assert clock.mono() <= clock.mono()
