"""Jobs on disk: acknowledged means stored, and a short job costs one write."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.errors import StoreError
from router.job_rows import KEPT_ENDED_ROWS, JobRow, JobRows
from router.states import JobState
from router.store import Store
from tests.router.store_kit import Broken, disk_full, opened, rows

DAY_S = 86_400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "quorum.db"


@pytest.fixture
def faults() -> Broken:
    return Broken()


@pytest.fixture
async def store(path: Path, faults: Broken) -> AsyncIterator[Store]:
    async with opened(path, faults) as store:
        yield store


@pytest.fixture
async def jobs(store: Store) -> JobRows:
    jobs = JobRows(store)
    await jobs.open()
    return jobs


def row(job_id: str, **fields: object) -> JobRow:
    return JobRow(id=job_id, created_at=1.0, **fields)  # type: ignore[arg-type]


def end(job: JobRow, state: JobState = JobState.DONE, at: float = 2.0) -> JobRow:
    job.state, job.completed_at = state, at
    return job


async def changes(store: Store) -> int:
    return int(await store.run(lambda db: db.connection().total_changes))


async def recovered(store: Store) -> None:
    event = asyncio.Event()
    store.on_recovery = event.set
    async with asyncio.timeout(10):
        await event.wait()


async def test_a_job_that_moves_and_ends_between_two_commits_costs_one_write(jobs: JobRows, store: Store) -> None:
    before = await changes(store)
    for number in range(10):
        job = row(f"j{number}")
        jobs.save(job, b"asked")
        for state in (JobState.LOADING, JobState.WORKING, JobState.DONE):
            job.state = state
            jobs.save(job)

    assert await changes(store) - before == 10
    assert {job.state for job in await jobs.recent(20)} == {JobState.DONE}


async def test_the_request_of_a_plain_job_that_ended_at_once_is_never_written(
    jobs: JobRows, store: Store, path: Path
) -> None:
    job = row("j1")
    jobs.save(job, b"a secret prompt")
    jobs.save(end(job))

    assert await jobs.read_request("j1") is None
    assert jobs.bodies_bytes == 0
    assert b"a secret prompt" not in path.with_name("quorum.db-wal").read_bytes()


async def test_the_request_of_a_plain_job_goes_when_it_ends(jobs: JobRows) -> None:
    job = row("j1")
    await jobs.save_durable(job, b"asked")
    assert await jobs.read_request("j1") == b"asked"
    assert jobs.bodies_bytes == 5

    jobs.save(end(job))

    assert await jobs.read_request("j1") is None
    assert jobs.bodies_bytes == 0


async def test_a_kept_job_keeps_request_and_answer(jobs: JobRows) -> None:
    job = row("j1", keep=True)
    jobs.save(job, b"asked")
    jobs.save(end(job))
    jobs.set_answer("j1", b"said so", "application/json")

    assert await jobs.read_request("j1") == b"asked"
    assert await jobs.read_answer("j1") == (b"said so", "application/json")
    assert jobs.bodies_bytes == 12


async def test_a_durable_row_is_on_the_disk_when_its_future_ends(jobs: JobRows, path: Path) -> None:
    await jobs.save_durable(row("j1"), b"asked")

    assert rows(path, "SELECT id, state, request FROM jobs JOIN bodies ON job = row_id") == [("j1", "queued", b"asked")]


async def test_rows_are_numbered_in_the_order_they_came_and_the_count_goes_on(path: Path) -> None:
    for name in "ab":
        async with opened(path) as store:
            jobs = JobRows(store)
            await jobs.open()
            for number in range(3):
                jobs.save(row(f"{name}{2 - number}"))
            given = row(f"{name}9", row_id=jobs.last_row_id + 5)
            jobs.save(given)
            jobs.save(row(f"{name}8"))

    async with opened(path) as store:
        jobs = JobRows(store)
        await jobs.open()
        assert jobs.last_row_id == 18
        found = [(job.row_id, job.id) for job in await jobs.recent(100)]
    assert [number for number, _ in found] == [18, 17, 12, 11, 10, 9, 8, 3, 2, 1]
    assert [name for _, name in found][-3:] == ["a0", "a1", "a2"]


async def test_live_jobs_come_back_in_order_with_their_requests(jobs: JobRows) -> None:
    jobs.save(row("waits"), b"1")
    jobs.save(end(row("over", keep=True)), b"2")
    jobs.save(row("works", state=JobState.WORKING))

    live = await jobs.live()

    assert [(job.id, job.state, body) for job, body in live] == [
        ("waits", JobState.QUEUED, b"1"),
        ("works", JobState.WORKING, b""),
    ]
    assert all(job.stored for job, _ in live)


async def test_a_row_that_came_back_can_be_saved_again(jobs: JobRows) -> None:
    await jobs.save_durable(row("j1"), b"asked")
    ((job, _),) = await jobs.live()
    jobs.save(end(job))

    found = await jobs.get("j1")
    assert found is not None
    assert found.state is JobState.DONE
    assert await jobs.read_request("j1") is None


async def test_a_row_read_again_counts_though_the_first_one_still_waits(jobs: JobRows) -> None:
    await jobs.save_durable(row("j1"))
    first, second = await jobs.get("j1"), await jobs.get("j1")
    assert first is not None
    assert second is not None
    jobs.save(first)
    jobs.save(end(second))

    assert [job.state for job in await jobs.recent(9)] == [JobState.DONE]


async def test_lists_go_back_page_by_page(jobs: JobRows) -> None:
    for number in range(7):
        job = row(f"j{number}", key_id="k1" if number % 2 else None)
        jobs.save(end(job) if number < 4 else job)

    assert [job.id for job in await jobs.recent(3)] == ["j6", "j5", "j4"]
    assert [job.id for job in await jobs.recent(3, before="j4")] == ["j3", "j2", "j1"]
    assert [job.id for job in await jobs.recent(9, state=JobState.DONE)] == ["j3", "j2", "j1", "j0"]
    assert [job.id for job in await jobs.recent(9, key_id="k1")] == ["j5", "j3", "j1"]
    assert [job.id for job in await jobs.ended(3)] == ["j3", "j2", "j1"]
    assert await jobs.get("nobody") is None


async def test_one_idempotency_key_makes_one_job_per_api_key(jobs: JobRows) -> None:
    ends = await asyncio.gather(
        *(jobs.save_durable(row(f"j{number}", idempotency_key="once"), b"asked") for number in range(100)),
        jobs.save_durable(row("other", idempotency_key="once", key_id="k1")),
        return_exceptions=True,
    )

    refused = [error for error in ends if isinstance(error, StoreError)]
    assert len(refused) == 99
    assert all(error.duplicate for error in refused)
    assert ends[-1] is None
    found = await jobs.by_idempotency(None, "once")
    assert found is not None
    assert [job.id for job in await jobs.recent(9)] == ["other", found.id]
    assert jobs.bodies_bytes == 5
    assert await jobs.by_idempotency("k2", "once") is None


async def test_the_same_try_of_a_peer_makes_one_job(jobs: JobRows) -> None:
    of_peer = {"origin": "peer", "origin_node": "p", "origin_job": "01P", "origin_try": 1}
    await jobs.save_durable(row("j1", **of_peer))

    with pytest.raises(StoreError) as failed:
        await jobs.save_durable(row("j2", **of_peer))

    assert failed.value.duplicate
    found = await jobs.by_origin("p", "01P", 1)
    assert found is not None
    assert found.id == "j1"


async def test_a_row_that_is_refused_harms_no_other(jobs: JobRows) -> None:
    await jobs.save_durable(row("j1", idempotency_key="once"))
    jobs.save(row("twin", idempotency_key="once"))
    for number in range(2, 80):
        jobs.save(row(f"j{number}"))

    assert len(await jobs.recent(100)) == 79


async def test_while_the_disk_fails_nobody_is_acknowledged_and_the_rest_is_written_after(
    jobs: JobRows, store: Store, faults: Broken
) -> None:
    known = row("known")
    await jobs.save_durable(known, b"1")
    faults.error = disk_full()
    jobs.save(row("plain"), b"2")
    with pytest.raises(StoreError, match="full"):
        await jobs.save_durable(row("refused"), b"3")
    jobs.save(end(known))
    jobs.set_answer("plain", b"kept only if the job is")
    faults.error = None
    await recovered(store)

    assert {job.id: job.state for job in await jobs.recent(9)} == {
        "plain": JobState.QUEUED,
        "known": JobState.DONE,
    }
    assert await jobs.read_request("plain") == b"2"
    assert jobs.bodies_bytes == 1


async def test_a_job_that_moved_while_its_first_commit_failed_keeps_its_request(
    jobs: JobRows, store: Store, faults: Broken
) -> None:
    faults.gate.clear()
    faults.error = disk_full()
    job = row("j1")
    jobs.save(job, b"asked")
    failing = store.commit("DELETE FROM added_paths")
    await asyncio.sleep(0)  # the batch is with the writer now
    job.state = JobState.WORKING
    jobs.save(job)
    faults.gate.set()
    with pytest.raises(StoreError):
        await failing
    faults.error = None
    await recovered(store)

    assert [(job.state, body) for job, body in await jobs.live()] == [(JobState.WORKING, b"asked")]


async def test_a_job_that_was_refused_but_ran_on_is_recorded_as_it_ended(
    jobs: JobRows, store: Store, faults: Broken
) -> None:
    faults.error = disk_full()
    job = row("j1")
    with pytest.raises(StoreError):
        await jobs.save_durable(job, b"asked")
    jobs.save(end(job, JobState.CANCELLED))
    faults.error = None
    await recovered(store)

    assert [(job.id, job.state) for job in await jobs.recent(9)] == [("j1", JobState.CANCELLED)]


async def test_while_the_disk_fails_jobs_can_be_read_as_they_stand(
    store: Store, jobs: JobRows, faults: Broken, path: Path
) -> None:
    old, running = row("old", keep=True, state=JobState.DONE, completed_at=2.0), row("running", idempotency_key="k")
    await asyncio.gather(jobs.save_durable(old, b"asked"), jobs.save_durable(running, b"body"))
    jobs.set_answer("old", b"said")
    await store.run(lambda db: None)
    faults.error = disk_full()
    end(running, JobState.CANCELLED)
    jobs.save(running)

    for _ in range(3):  # before the batch, while it is written, and after it failed
        assert (found := await jobs.get("running")) is not None
        assert found.state is JobState.CANCELLED
    assert [(one.id, one.state) for one in await jobs.recent(9)] == [("running", "cancelled"), ("old", "done")]
    assert (await jobs.by_idempotency(None, "k")) is not None
    assert await jobs.read_answer("old") == (b"said", "")
    assert await jobs.read_request("old") == b"asked"
    assert await jobs.oldest_ended_body() == 2.0
    assert not store.healthy
    assert rows(path, "SELECT state FROM jobs WHERE id = 'running'") == [("queued",)]
    faults.error = None
    await recovered(store)


async def test_while_the_disk_fails_ended_rows_are_bounded_and_live_ones_stay(
    jobs: JobRows, store: Store, faults: Broken
) -> None:
    faults.error = disk_full()
    jobs.save(row("live"))
    for number in range(KEPT_ENDED_ROWS + 5):
        jobs.save(end(row(f"j{number}")))
    with pytest.raises(StoreError):
        await store.run(lambda db: None)
    faults.error = None
    await recovered(store)

    total = await store.run(lambda db: db.execute_sql("SELECT count(*) FROM jobs").fetchone()[0])
    assert total == KEPT_ENDED_ROWS + 1
    assert await jobs.get("live") is not None
    assert await jobs.get("j4") is None


async def test_what_a_reader_missed_comes_from_the_chunks(jobs: JobRows) -> None:
    jobs.save(row("j1", keep=True))
    for seq, data in ((0, b"abc"), (3, b"de"), (5, b"f")):
        jobs.append_chunks("j1", 1, seq, data)

    assert await jobs.read_chunks("j1", 1) == [(0, b"abc"), (3, b"de"), (5, b"f")]
    assert await jobs.read_chunks("j1", 1, after_seq=1) == [(0, b"abc"), (3, b"de"), (5, b"f")]
    assert await jobs.read_chunks("j1", 1, after_seq=2) == [(3, b"de"), (5, b"f")]
    assert await jobs.read_chunks("j1", 1, after_seq=4) == [(5, b"f")]
    assert await jobs.read_chunks("j1", 2) == []


async def test_another_try_makes_void_what_an_earlier_one_said(jobs: JobRows) -> None:
    jobs.save(row("j1", keep=True))
    jobs.append_chunks("j1", 1, 0, b"old")
    jobs.append_chunks("j1", 2, 0, b"new")

    assert await jobs.read_chunks("j1", 1) == []
    assert await jobs.read_chunks("j1", 2) == [(0, b"new")]


async def test_a_plain_job_keeps_neither_chunks_nor_answer(jobs: JobRows) -> None:
    jobs.save(row("j1"))
    jobs.append_chunks("j1", 1, 0, b"said")
    jobs.set_answer("j1", b"said")
    jobs.append_chunks("nobody", 1, 0, b"said")

    assert await jobs.read_chunks("j1", 1) == []
    assert await jobs.read_answer("j1") is None
    assert await jobs.read_answer("nobody") is None


async def test_forgetting_leaves_the_row_and_nothing_else(jobs: JobRows, path: Path) -> None:
    job = row("j1", keep=True)
    await jobs.save_durable(job, b"a secret prompt")
    jobs.append_chunks("j1", 1, 0, b"a secret answer")
    jobs.set_answer("j1", b"a secret answer")

    await jobs.forget("j1")

    assert await jobs.read_request("j1") is None
    assert await jobs.read_chunks("j1", 1) == []
    assert jobs.bodies_bytes == 0
    assert await jobs.get("j1") is not None


async def test_the_oldest_ended_body_is_the_one_to_leave_first(jobs: JobRows) -> None:
    assert await jobs.oldest_ended_body() is None
    await jobs.save_durable(row("waiting", keep=True), b"asked")
    await jobs.save_durable(end(row("j1", keep=True), at=50.0), b"asked")
    await jobs.save_durable(end(row("j2", keep=True), at=60.0), b"asked")
    assert await jobs.oldest_ended_body() == 50.0
    await jobs.forget("j1")
    assert await jobs.oldest_ended_body() == 60.0


async def test_forgetting_reaches_what_is_not_written_yet(jobs: JobRows) -> None:
    jobs.save(row("j1", keep=True), b"a secret prompt")
    await jobs.forget("j1")

    assert await jobs.read_request("j1") is None
    assert jobs.bodies_bytes == 0


async def test_pruning_takes_ended_jobs_with_all_they_have(jobs: JobRows, store: Store) -> None:
    now = 10 * DAY_S
    for number, at in enumerate((1.0, now - DAY_S - 1, now - DAY_S + 1, None)):
        job = row(f"j{number}", keep=True)
        jobs.save(job if at is None else end(job, at=at), b"asked")
        jobs.append_chunks(job.id, 1, 0, b"said")

    assert await jobs.prune(now - DAY_S) == 2

    assert sorted(job.id for job in await jobs.recent(9)) == ["j2", "j3"]
    assert jobs.bodies_bytes == 10
    left = await store.run(lambda db: db.execute_sql("SELECT count(*) FROM chunks").fetchone()[0])
    assert left == 2


async def test_an_idempotency_key_is_remembered_for_a_day_whatever_the_jobs_time(jobs: JobRows) -> None:
    now = 10 * DAY_S
    await jobs.save_durable(end(row("j1", idempotency_key="once"), at=now - 60))

    assert await jobs.prune(now, now - DAY_S) == 0
    assert await jobs.by_idempotency(None, "once") is not None

    assert await jobs.prune(now, now) == 1


async def test_the_count_of_bodies_is_right_after_a_restart(path: Path) -> None:
    async with opened(path) as store:
        jobs = JobRows(store)
        await jobs.open()
        jobs.save(row("j1", keep=True), b"asked")
        jobs.save(row("j2"), b"asked too")
        jobs.set_answer("j1", b"said")
    async with opened(path) as store:
        jobs = JobRows(store)
        await jobs.open()

        assert jobs.bodies_bytes == 18


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["move", "end", "durable", "keep", "flush", "break", "mend"]),
        st.integers(min_value=0, max_value=4),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_whatever_happens_in_whatever_order_the_rows_end_as_they_were_last_saved(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("any") / "quorum.db"
    asyncio.run(_play(path, actions))


async def _play(path: Path, actions: list[tuple[str, int]]) -> None:
    """Do ``actions`` to five jobs while the disk breaks and mends; then compare the file with what was promised."""
    faults, made, promised, waiting = Broken(), {}, set(), {}
    async with opened(path, faults) as store:
        jobs = JobRows(store)
        await jobs.open()
        for action, number in actions:
            name = f"j{number}"
            job = made.get(name)
            match action:
                case "break":
                    faults.error = disk_full()
                case "mend":
                    faults.error = None
                case "flush":
                    with contextlib.suppress(StoreError):
                        await jobs.get(name)
                case _ if job is None:
                    made[name] = job = row(name)
                    if action == "durable":
                        waiting[name] = jobs.save_durable(job, name.encode())
                    else:
                        jobs.save(job, name.encode())
                        promised.add(name)
                case _ if job.state.live:
                    if action == "end":
                        end(job)
                    elif action == "keep":
                        job.keep = True
                    else:
                        job.state = JobState.WORKING
                    jobs.save(job)
                    promised.add(name)
        faults.error = None
        for name, future in waiting.items():
            with contextlib.suppress(StoreError):
                await future
                promised.add(name)
        if not store.healthy:
            await recovered(store)
        stored = {job.id: job for job in await jobs.recent(9)}
        assert {name: stored.get(name) for name in promised} == {name: made[name] for name in promised}
        assert set(stored) <= set(made)
        for name, job in stored.items():
            body = await jobs.read_request(name)
            if not job.keep and not job.state.live:
                assert body is None
            elif job.state.live and name not in waiting:
                assert body == name.encode()
        sizes = [len(await jobs.read_request(name) or b"") for name in stored]
        assert jobs.bodies_bytes == sum(sizes)
