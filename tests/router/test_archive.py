"""A job is found wherever it is: see also test_records, which reads it back after a restart."""

from __future__ import annotations

import pytest

from router.archive import KEPT_ANSWERS, Archive
from router.states import JobState
from router.wire import Ended
from tests.fakes import make_job
from tests.world import World


class NoRows:
    """A store that has nothing."""

    async def get(self, job_id: str) -> None:
        return None


@pytest.fixture
def world() -> World:
    return World()


async def test_a_live_job_is_read_from_memory_with_its_place(world: World) -> None:
    archive = Archive(NoRows(), world.scheduler)  # type: ignore[arg-type]
    first, second = world.submit(), world.submit()
    assert await archive.answer(first.id) is first.answer
    info = await archive.info(second.id)
    assert info is not None
    assert (info.state, info.place) == (JobState.QUEUED, 1)


async def test_a_job_that_just_ended_needs_no_store(world: World) -> None:
    archive = Archive(NoRows(), world.scheduler)  # type: ignore[arg-type]
    job = world.submit()
    archive.keep(job)
    world.end(job)
    assert await archive.answer(job.id) is job.answer


async def test_only_the_newest_ended_answers_stay_in_memory(world: World) -> None:
    archive = Archive(NoRows(), world.scheduler)  # type: ignore[arg-type]
    running = make_job(0, id="running")
    archive.keep(running)
    for number in range(KEPT_ANSWERS + 5):
        job = make_job(number, id=f"J{number}")
        job.answer.end = Ended(state=JobState.DONE)
        archive.keep(job)
    assert len(archive._recent) == KEPT_ANSWERS
    assert "running" in archive._recent
    assert "J0" not in archive._recent
