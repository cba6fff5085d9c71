"""Every request becomes a job through one door."""

from __future__ import annotations

import pytest

from router.engines.base import Kind
from router.errors import ModelNotFoundError, QueueFullError, QuorumError
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
        self.back: MemoryEngine | None = None
        self.intake = Intake(
            self.world.scheduler, self.world.registry, Settings(None, {}), self.world.clock, self.repoll, self
        )

    async def repoll(self) -> None:
        self.repolls += 1
        if self.back is not None:
            self.world.look(self.back)


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


async def test_an_engine_that_was_away_gets_one_more_look_before_its_model_is_refused(door: Door) -> None:
    engine = door.world.registry.engines["e"]
    assert isinstance(engine, MemoryEngine)
    door.world.look(engine, ready=False, detail="It is away.")
    with pytest.raises(QuorumError, match="It is away") as raised:
        await door.intake.submit(door.intake.job(CHECKED, Origin.API))
    assert (raised.value.code, door.repolls) == ("no_holder_available", 1)
    door.back = engine
    job = await door.intake.submit(door.intake.job(CHECKED, Origin.API))
    assert job.state is not JobState.QUEUED


async def test_a_node_that_stops_looks_at_nothing(door: Door) -> None:
    door.world.scheduler.stop_accepting()
    with pytest.raises(QuorumError, match="stopping"):
        await door.intake.submit(door.intake.job(CHECKED, Origin.API))
    assert door.repolls == 0


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


class Full:
    """No room for more than a few bytes."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def require(self, size: int) -> None:
        self.asked.append(size)
        raise QueueFullError(60.0, "The room is used up.")


async def test_only_what_is_to_be_kept_needs_room(door: Door) -> None:
    room = Full()
    world = door.world
    intake = Intake(world.scheduler, world.registry, Settings(None, {}), world.clock, door.repoll, door, room)
    with pytest.raises(QueueFullError):
        await intake.submit(intake.job(CHECKED, Origin.JOBS, keep=True))
    assert room.asked == [len(CHECKED.body)]
    assert not world.scheduler.jobs
    await intake.submit(intake.job(CHECKED, Origin.API))
    assert len(world.scheduler.jobs) == 1


async def test_a_job_takes_its_turns_as_the_person_whose_key_it_came_with(door: Door) -> None:
    world = door.world

    def person(key_id: str) -> str:
        if key_id == "k2":
            raise QuorumError("unauthorized", "This API key was revoked.")
        return {"k1": "Anna"}[key_id]

    intake = Intake(world.scheduler, world.registry, Settings(None, {}), world.clock, door.repoll, door, person=person)
    job = await intake.submit(intake.job(CHECKED, Origin.API, key_id="k1"))
    assert (job.person, job.key_id, job.info().key) == ("Anna", "k1", "Anna")
    with pytest.raises(QuorumError):
        await intake.submit(intake.job(CHECKED, Origin.API, key_id="k2"))
    assert (await intake.submit(intake.job(CHECKED, Origin.API))).person == ""
    assert len(world.scheduler.jobs) == 2
