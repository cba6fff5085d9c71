"""API keys: shown once, stored hashed, counted, and gone at once when revoked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.access import KEYS_MAX, Access
from router.errors import BadRequestError, QuorumError, StoreError
from router.jobs import Job
from router.runner import JobMoved
from router.states import JobState
from router.store import Store
from router.wire import KeyUsed
from tests.fakes import FakeClock
from tests.router.store_kit import Broken, disk_full, rows
from tests.world import World

DAY_S = 86_400.0


class Office:
    """Access over a real database and a scheduler in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.world = World()
        self.faults = Broken()

    @property
    def clock(self) -> FakeClock:
        return self.world.clock

    async def open(self) -> Office:
        self.store = Store(self.path, faults=self.faults)
        await self.store.open()
        self.access = Access(self.store, self.clock, self.world.scheduler)
        await self.access.open()
        moved = self.world.effects.moved

        def both(job: Job, old: JobState | None) -> None:
            moved(job, old)
            self.access.moved(JobMoved(job, old))

        self.world.effects.moved = both  # type: ignore[method-assign]
        return self

    async def reopened(self) -> Office:
        await self.store.close()
        return await Office(self.path).open()


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    made = await Office(tmp_path / "quorum.db").open()
    yield made
    await made.store.close()


async def test_a_key_has_256_random_bits_and_opens_what_it_was_made_for(office: Office) -> None:
    made = await office.access.create("Anna")
    other = await office.access.create("Ben")
    assert re.fullmatch(r"qk_[A-Za-z0-9_-]{43}", made.key)
    assert made.key != other.key
    assert office.access.check(f"Bearer {made.key}") == made.info.id
    assert office.access.check(f"bearer  {made.key} ") == made.info.id
    assert office.access.check(f"Bearer {other.key}") == other.info.id


async def test_anything_else_opens_nothing(office: Office) -> None:
    key = (await office.access.create("Anna")).key
    for given in (
        key,
        f"Basic {key}",
        f"Bearer {key}x",
        f"Bearer {key[:-1]}",
        "Bearer qk_",
        "Bearer ",
        "",
        "Bearer \udc80",
    ):
        assert office.access.check(given) is None


async def test_a_key_is_shown_once_and_never_stored(office: Office) -> None:
    made = await office.access.create("Anna")
    assert made.key not in repr(office.access.list())
    assert made.info.tail == made.key[-4:]
    await office.store.close()
    for file in office.path.parent.iterdir():
        assert made.key.encode() not in file.read_bytes()
        assert made.key[3:40].encode() not in file.read_bytes()


async def test_keys_outlive_a_restart(office: Office) -> None:
    made = await office.access.create("Anna")
    again = await office.reopened()
    assert again.access.check(f"Bearer {made.key}") == made.info.id
    assert [key.name for key in again.access.list()] == ["Anna"]
    await again.store.close()


@pytest.mark.parametrize("name", ["", "   ", "x" * 65, "two\nlines", "bell\x07", "\u202eevil"])
async def test_a_name_is_1_to_64_printable_characters(office: Office, name: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        await office.access.create(name)
    assert caught.value.field == "name"
    assert office.access.list() == []


async def test_one_name_has_one_key_also_when_asked_twice_at_once(office: Office) -> None:
    results = await asyncio.gather(*(office.access.create("Anna") for _ in range(5)), return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    with pytest.raises(QuorumError) as caught:
        await office.access.create(" anna ")
    assert caught.value.status == 409


async def test_there_is_a_bound_for_the_number_of_keys(office: Office) -> None:
    await asyncio.gather(*(office.access.create(f"program {number}") for number in range(KEYS_MAX)))
    with pytest.raises(BadRequestError, match="keys"):
        await office.access.create("one more")


async def test_a_revoked_key_opens_nothing_and_its_name_is_free(office: Office) -> None:
    made = await office.access.create("Anna")
    assert (await office.access.revoke(made.info.id)).name == "Anna"
    assert office.access.check(f"Bearer {made.key}") is None
    assert office.access.list() == []
    again = await office.access.create("Anna")
    later = await office.reopened()
    assert later.access.check(f"Bearer {made.key}") is None
    assert later.access.check(f"Bearer {again.key}") == again.info.id
    await later.store.close()


async def test_revoking_what_is_not_there_says_so(office: Office) -> None:
    with pytest.raises(QuorumError) as caught:
        await office.access.revoke("k000000000000")
    assert caught.value.status == 404


async def test_a_revoked_keys_jobs_are_cancelled_and_nobody_elses(office: Office) -> None:
    anna, ben = [(await office.access.create(name)).info.id for name in ("Anna", "Ben")]
    running, waiting = (office.world.submit(key_id=anna, person="Anna") for _ in range(2))
    other = office.world.submit(key_id=ben, person="Ben")
    await office.access.revoke(anna)
    assert (running.state, waiting.state) == (JobState.CANCELLED, JobState.CANCELLED)
    assert office.world.effects.stopped == [running]
    assert other.state.running


async def test_no_job_enters_with_a_key_that_was_revoked_while_its_request_came_in(office: Office) -> None:
    made = await office.access.create("Anna")
    assert office.access.person(made.info.id) == "Anna"
    await office.access.revoke(made.info.id)
    with pytest.raises(QuorumError) as caught:
        office.access.person(made.info.id)
    assert caught.value.status == 401


async def test_a_revocation_that_can_not_be_written_counts_until_the_next_start_and_can_be_repeated(
    office: Office,
) -> None:
    made = await office.access.create("Anna")
    office.faults.error = disk_full()
    with pytest.raises(StoreError):
        await office.access.revoke(made.info.id)
    assert office.access.check(f"Bearer {made.key}") is None
    office.faults.error = None
    await office.access.revoke(made.info.id)
    assert rows(office.path, "SELECT count(*) FROM keys WHERE revoked_at IS NULL") == [(0,)]


async def test_a_key_that_can_not_be_written_is_not_promised(office: Office) -> None:
    office.faults.error = disk_full()
    with pytest.raises(StoreError):
        await office.access.create("Anna")
    assert office.access.list() == []
    office.faults.error = None
    assert (await office.access.create("Anna")).info.name == "Anna"


async def test_a_key_nobody_waited_for_is_gone(office: Office) -> None:
    office.faults.gate.clear()
    making = asyncio.ensure_future(office.access.create("Anna"))
    await asyncio.sleep(0)
    making.cancel()
    await asyncio.gather(making, return_exceptions=True)
    office.faults.gate.set()
    assert office.access.list() == []
    again = await office.reopened()
    assert again.access.list() == []
    await again.store.close()


async def test_use_is_counted_per_key_and_day_and_outlives_a_restart(office: Office) -> None:
    anna = (await office.access.create("Anna")).info.id
    office.clock.advance(1)
    ben = (await office.access.create("Ben")).info.id
    for model, key, asked, answered in (("m", anna, 10, 5), ("m", anna, 20, 7), ("m", ben, 1, 1)):
        job = office.world.submit(model, key_id=key)
        office.world.end(job, prompt_tokens=asked, completion_tokens=answered)
    office.world.end(office.world.submit())  # without a key
    office.clock.advance(DAY_S)
    office.world.end(office.world.submit(key_id=anna), prompt_tokens=100, completion_tokens=50)

    def check(access: Access) -> None:
        first, second = access.list()
        assert first.today == KeyUsed(requests=1, prompt_tokens=100, completion_tokens=50)
        assert first.total == KeyUsed(requests=3, prompt_tokens=130, completion_tokens=62)
        assert second.today == KeyUsed()
        assert second.total == KeyUsed(requests=1, prompt_tokens=1, completion_tokens=1)

    check(office.access)
    again = Office(office.path)
    again.clock.advance(DAY_S)
    await office.store.close()
    await again.open()
    check(again.access)
    assert rows(office.path, "SELECT key_id, model, jobs FROM key_usage WHERE key_id = ? ORDER BY day", anna) == [
        (anna, "m", 2),
        (anna, "m", 1),
    ]
    await again.store.close()


async def test_a_failed_or_cancelled_job_counts_with_what_it_said(office: Office) -> None:
    key = (await office.access.create("Anna")).info.id
    job = office.world.submit(key_id=key, stream=True)
    office.world.load(job)
    job.answer.feed(b"data: {}\n\n" * 3, 3)
    office.world.scheduler.cancel(job.id)
    (info,) = office.access.list()
    assert info.total == KeyUsed(requests=1, prompt_tokens=0, completion_tokens=3)


async def test_use_is_counted_once_though_the_disk_fails_meanwhile(office: Office) -> None:
    key = (await office.access.create("Anna")).info.id
    office.faults.error = disk_full()
    failed = asyncio.Event()
    office.store.on_failure = lambda message: failed.set()
    office.world.end(office.world.submit(key_id=key), prompt_tokens=2, completion_tokens=3)
    async with asyncio.timeout(5):
        await failed.wait()
    office.faults.error = None
    again = await office.reopened()
    assert again.access.list()[0].total == KeyUsed(requests=1, prompt_tokens=2, completion_tokens=3)
    await again.store.close()


async def test_the_last_use_is_told_exactly_and_written_once_a_minute(office: Office) -> None:
    made = await office.access.create("Anna")
    assert made.info.used_at is None
    start = office.clock.wall()
    for _ in range(3):
        office.access.check(f"Bearer {made.key}")
        office.clock.advance(25)
    assert office.access.list()[0].used_at == start + 50
    await office.store.run(lambda db: None)
    assert rows(office.path, "SELECT used_at FROM keys") == [(start,)]
    office.access.check(f"Bearer {made.key}")
    await office.store.run(lambda db: None)
    assert rows(office.path, "SELECT used_at FROM keys") == [(start + 75,)]
