"""A job is found wherever it is: see also test_records, which reads it back after a restart."""

from __future__ import annotations

import pytest

from router.answer import Answer
from router.archive import KEPT_ANSWERS, KEPT_BYTES, Archive
from router.states import JobState
from router.wire import Ended
from tests.fakes import listening, make_job
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
    for number in range(KEPT_ANSWERS + 5):
        job = make_job(number, id=f"J{number}")
        job.answer.end = Ended(state=JobState.DONE)
        archive.keep(job)
    assert len(archive._recent) == KEPT_ANSWERS
    assert f"J{KEPT_ANSWERS + 4}" in archive._recent
    assert "J0" not in archive._recent


async def test_long_answers_leave_memory_sooner(world: World) -> None:
    archive = Archive(NoRows(), world.scheduler)  # type: ignore[arg-type]
    for number in range(4):
        job = make_job(number, id=f"J{number}", answer=Answer(keep=True))
        job.answer.feed(bytes(KEPT_BYTES // 2), 1)
        archive.keep(job)
    assert list(archive._recent) == ["J2", "J3"]
    archive.keep(make_job(4, id="J4"))
    assert list(archive._recent) == ["J2", "J3", "J4"]


async def test_a_blanked_answer_says_how_it_ended_and_nothing_more(world: World) -> None:
    archive = Archive(NoRows(), world.scheduler)  # type: ignore[arg-type]
    job = world.submit(answer=Answer(keep=True))
    archive.keep(job)
    world.load(job)
    reader = listening(job)
    job.answer.feed(b"data: canary\n\n", 1)
    world.effects.moved = lambda job, old: archive.blank(job) if not job.state.live else None  # type: ignore[method-assign]
    world.end(job)
    assert reader.got == b"data: canary\n\n"
    late = listening(await archive.answer(job.id) or Answer())
    assert late.got == b""
    assert late.ends == reader.ends


async def test_blanking_all_leaves_running_answers_alone(world: World) -> None:
    archive = Archive(NoRows(), world.scheduler)  # type: ignore[arg-type]
    ended, running = world.submit(answer=Answer(keep=True)), world.submit(answer=Answer(keep=True))
    for job in (ended, running):
        archive.keep(job)
        if job is ended:
            world.load(job)
            job.answer.feed(b"data: canary\n\n", 1)
            world.end(job)
    archive.blank_all()
    blank = await archive.answer(ended.id)
    assert blank is not None
    assert (blank.chunks, blank.end) == ([], ended.answer.end)
    assert await archive.answer(running.id) is running.answer
