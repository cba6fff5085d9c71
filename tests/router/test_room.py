"""What is kept of prompts and answers has a bound, and leaves in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.errors import QueueFullError
from router.job_row import JobRow
from router.job_rows import JobRows
from router.room import BODIES_S, MIB, PRUNE_S, Room
from router.settings import Settings
from router.states import JobState
from router.store import Store
from tests.fakes import FakeClock


class Desk:
    """A room of 1 MiB over a real database."""

    def __init__(self, path: Path) -> None:
        self.clock = FakeClock()
        self.settings = Settings(None, {})
        self.settings.update({"bodies_mib": 1})
        self.store = Store(path)

    async def open(self) -> None:
        await self.store.open()
        self.rows = JobRows(self.store)
        await self.rows.open()
        self.room = Room(self.rows, self.settings, self.clock)

    async def keep(self, name: str, size: int, *, ended: bool = True, **more: str) -> None:
        now = self.clock.wall()
        state = JobState.DONE if ended else JobState.QUEUED
        row = JobRow(id=name, keep=True, state=state, created_at=now, completed_at=now if ended else None, **more)
        await self.rows.save_durable(row, b"x" * size)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path / "quorum.db")
    await made.open()
    yield made
    await made.store.close()


async def refused(desk: Desk, size: int) -> QueueFullError:
    with pytest.raises(QueueFullError) as caught:
        await desk.room.require(size)
    return caught.value


async def test_what_fits_is_taken_to_the_last_byte(desk: Desk) -> None:
    await desk.keep("j1", MIB - 100)
    await desk.room.require(100)
    error = await refused(desk, 101)
    assert (error.status, error.code) == (429, "queue_full")
    assert "room for prompts and answers" in error.message.lower()


async def test_the_time_to_come_back_is_when_the_oldest_will_have_left(desk: Desk) -> None:
    await desk.keep("waiting", 10, ended=False)
    await desk.keep("old", MIB)
    desk.clock.advance(1000)
    await desk.keep("new", 10)
    assert (await refused(desk, 1)).retry_after_s == BODIES_S - 1000 + PRUNE_S
    desk.settings.update({"job_ttl": 3600})
    assert (await refused(desk, 1)).retry_after_s == 3600 - 1000 + PRUNE_S


async def test_coming_back_then_is_right(desk: Desk) -> None:
    await desk.keep("old", MIB)
    wait_s = (await refused(desk, 1)).retry_after_s
    assert wait_s is not None
    desk.clock.advance(wait_s - PRUNE_S + 1)
    await desk.rows.prune(desk.clock.wall() - BODIES_S)
    await desk.room.require(MIB)


async def test_room_held_by_jobs_that_have_not_ended_is_freed_a_day_after_them(desk: Desk) -> None:
    await desk.keep("waiting", MIB, ended=False)
    assert (await refused(desk, 1)).retry_after_s == BODIES_S + PRUNE_S
    desk.settings.update({"forget_bodies": True})
    assert (await refused(desk, 1)).retry_after_s == PRUNE_S


async def test_a_larger_room_counts_at_once(desk: Desk) -> None:
    await desk.keep("old", MIB)
    await refused(desk, 1)
    desk.settings.update({"bodies_mib": 2})
    await desk.room.require(MIB)


async def test_forgetting_at_once_empties_the_room_and_remembers_idempotency_keys(desk: Desk) -> None:
    await desk.keep("done", MIB, idempotency_key="once")
    await desk.keep("waiting", 10, ended=False)
    desk.clock.advance(1)
    pruning = asyncio.ensure_future(desk.room.prune_on())
    await desk.store.run(lambda db: None)
    assert desk.rows.bodies_bytes == MIB + 10
    desk.settings.update({"forget_bodies": True})
    async with asyncio.timeout(5):
        while desk.rows.bodies_bytes > 10:
            await desk.store.run(lambda db: None)
    assert await desk.rows.read_request("waiting") == b"x" * 10
    assert await desk.rows.by_idempotency(None, "once") is not None
    pruning.cancel()
    await asyncio.gather(pruning, return_exceptions=True)


class Files:
    """Something that takes room beside bodies."""

    kept_bytes = MIB - 100

    def __init__(self, leaves_at: float | None) -> None:
        self._leaves_at = leaves_at

    async def leaves_at(self) -> float | None:
        return self._leaves_at


async def test_files_and_results_count_too_and_the_next_of_all_that_leaves_is_waited_for(desk: Desk) -> None:
    files = Files(desk.clock.wall() + 500)
    desk.room.share(files)
    desk.room.share(Files(None))
    files.kept_bytes = 0
    await desk.room.require(100)
    assert (await refused(desk, 101)).retry_after_s == 500 + PRUNE_S
    await desk.keep("old", 60)
    desk.clock.advance(BODIES_S - 100)
    assert (await refused(desk, 41)).retry_after_s == PRUNE_S, "a file that has expired leaves with the next pruning"
    assert desk.room.left == 40


async def test_what_a_response_was_asked_counts_as_long_as_it_is_kept(desk: Desk) -> None:
    await desk.keep("job", 100)
    await desk.rows.promise_asked("job", b"y" * 50)
    await desk.rows.promise_asked("job", b"z" * 70)  # it is kept already
    desk.rows.set_asked("nobody", b"y" * 50)
    await desk.keep("other", 10)
    desk.rows.set_asked("other", b"y" * 5)
    await desk.store.run(lambda db: None)
    assert desk.rows.bodies_bytes == 165
    again = JobRows(desk.store)
    await again.open()
    assert again.bodies_bytes == 165
    await desk.rows.forget("job")
    assert desk.rows.bodies_bytes == 15
    desk.clock.advance(10)
    await desk.rows.prune(desk.clock.wall())
    assert desk.rows.bodies_bytes == 0
