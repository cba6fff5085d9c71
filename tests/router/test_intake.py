"""Every request becomes a job through one door."""

from __future__ import annotations

import pytest

from router.engines.base import Kind
from router.errors import ModelNotFoundError
from router.intake import Intake
from router.jobs import Origin
from router.settings import Settings
from router.states import JobState
from router.web.canonical import Checked
from tests.fakes import MemoryEngine
from tests.world import World

CHECKED = Checked(kind=Kind.CHAT, model="m", body=b"{}", stream=False)


class Door:
    """An intake over a scheduler in memory."""

    def __init__(self) -> None:
        self.world = World()
        self.repolls = 0
        self.intake = Intake(
            self.world.scheduler, self.world.registry, Settings(None, {}), self.world.clock, self.repoll, self
        )

    async def repoll(self) -> None:
        self.repolls += 1


@pytest.fixture
def door() -> Door:
    return Door()


async def test_jobs_are_numbered_on_from_what_the_store_knows(door: Door) -> None:
    door.intake.start_after(41)
    jobs = [door.intake.job(CHECKED, Origin.API) for _ in range(2)]
    assert [job.seq for job in jobs] == [42, 43]
    assert len({job.id for job in jobs}) == 2
    assert all(len(job.id) == 26 for job in jobs)


async def test_an_unknown_model_gets_one_more_look(door: Door) -> None:
    job = door.intake.job(Checked(kind=Kind.CHAT, model="new", body=b"{}", stream=False), Origin.API)
    with pytest.raises(ModelNotFoundError):
        await door.intake.submit(job)
    assert door.repolls == 1
    door.world.appear(MemoryEngine("f", ["new"]))
    await door.intake.submit(job)
    assert job.state is not JobState.QUEUED


async def test_a_client_that_leaves_cancels_its_job(door: Door) -> None:
    job = await door.intake.submit(door.intake.job(CHECKED, Origin.API))
    door.intake.client_left(job)
    assert job.state is JobState.CANCELLED


async def test_a_job_that_was_asked_to_live_on_does(door: Door) -> None:
    job = await door.intake.submit(door.intake.job(CHECKED, Origin.CHAT, keep=True))
    door.intake.client_left(job)
    assert job.state.live


async def test_when_the_node_is_what_goes_away_the_job_stays(door: Door) -> None:
    job = await door.intake.submit(door.intake.job(CHECKED, Origin.API))
    door.world.scheduler.stop_accepting()
    door.intake.client_left(job)
    assert job.state.live
