"""Jobs reach the store as they move, and come back at the next start."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.archive import Archive
from router.job_rows import JobRows
from router.jobs import Job
from router.records import Records
from router.runner import JobMoved
from router.states import JobState
from router.store import Store
from tests.fakes import FakeClock, listening, stream
from tests.world import World


class Desk:
    """A scheduler in memory whose moves go to a real database."""

    def __init__(self, path: Path, boot_id: str = "boot-1", *, forget: bool = False) -> None:
        self.world = World()
        self.store = Store(path)
        self.boot_id, self.forget = boot_id, forget

    async def open(self) -> Desk:
        await self.store.open()
        self.rows = JobRows(self.store)
        await self.rows.open()
        self.records = Records(self.rows, self.boot_id, lambda: self.forget)
        self.archive = Archive(self.rows, self.world.scheduler)
        moved = self.world.effects.moved

        def both(job: Job, old: JobState | None) -> None:
            moved(job, old)
            self.records.moved(JobMoved(job, old))

        self.world.effects.moved = both  # type: ignore[method-assign]
        return self

    async def flushed(self) -> None:
        await self.store.run(lambda db: None)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = await Desk(tmp_path / "quorum.db").open()
    yield made
    await made.store.close()


async def test_a_done_job_is_a_row_with_its_receipt_and_no_body(desk: Desk) -> None:
    job = desk.world.submit()
    desk.world.end(job)
    await desk.flushed()
    row = await desk.rows.get(job.id)
    assert row is not None
    assert (row.state, row.try_no, row.boot_id) == (JobState.DONE, 1, "boot-1")
    assert row.receipt == job.receipt
    assert await desk.rows.read_request(job.id) is None


async def test_a_job_on_the_disk_is_promised(desk: Desk) -> None:
    job = desk.world.submit()
    await desk.records.committed(job)
    assert (await desk.rows.get(job.id)).state is job.state  # type: ignore[union-attr]


async def test_what_was_waiting_or_running_comes_back_in_order(desk: Desk, tmp_path: Path) -> None:
    jobs = [desk.world.submit(body=b'{"n":%d}' % number) for number in range(3)]
    await desk.flushed()
    await desk.store.close()
    again = await Desk(tmp_path / "quorum.db", "boot-2").open()
    found = await again.records.resumed(FakeClock())
    assert [job.id for job in found] == [job.id for job in jobs]
    assert [job.body for job in found] == [job.body for job in jobs]
    assert [job.crashes for job in found] == [1, 0, 0]
    assert all(job.keep and job.state is JobState.QUEUED for job in found)
    await again.store.close()


async def test_three_crashes_with_the_same_job_are_poison(desk: Desk, tmp_path: Path) -> None:
    job = desk.world.submit()
    await desk.flushed()
    await desk.store.close()
    for boot in range(3):
        again = await Desk(tmp_path / "quorum.db", f"boot-{boot + 2}").open()
        (found,) = await again.records.resumed(FakeClock())
        again.world.scheduler.resume_job(found)
        await again.flushed()
        await again.store.close()
    last = await Desk(tmp_path / "quorum.db", "boot-9").open()
    row = await last.rows.get(job.id)
    assert row is not None
    assert row.state is JobState.FAILED
    assert row.error is not None
    assert row.error.code == "poison"
    await last.store.close()


async def test_a_kept_answer_can_be_read_after_its_process(desk: Desk, tmp_path: Path) -> None:
    job = desk.world.submit(keep=True, stream=True)
    job.answer.keep = True
    desk.world.load(job)
    said = stream("kept")
    job.answer.feed(said, said.count(b"\n\n"))
    job.answer.content_type = "text/event-stream"
    desk.world.end(job)
    await desk.flushed()
    await desk.store.close()
    again = await Desk(tmp_path / "quorum.db", "boot-2").open()
    answer = await again.archive.answer(job.id)
    assert answer is not None
    heard = listening(answer)
    assert b"".join(data for _, data in answer.chunks) == said
    assert answer.end is not None
    assert answer.end.receipt == job.receipt
    assert heard is not None
    assert (await again.archive.info(job.id)).state is JobState.DONE  # type: ignore[union-attr]
    assert await again.archive.answer("nobody") is None
    await again.store.close()


async def test_forgetting_at_once_leaves_the_row_and_no_words(tmp_path: Path) -> None:
    desk = await Desk(tmp_path / "forget.db", forget=True).open()
    job = desk.world.submit(keep=True, body=b'{"canary":1}')
    job.answer.keep = True
    desk.world.load(job)
    job.answer.feed(stream("canary"), 3)
    desk.world.end(job)
    await desk.flushed()
    await desk.store.close()
    assert b"canary" not in (tmp_path / "forget.db").read_bytes()


async def test_forgetting_that_is_switched_on_meanwhile_reaches_what_was_kept_so_far(tmp_path: Path) -> None:
    desk = await Desk(tmp_path / "forget.db").open()
    job = desk.world.submit(keep=True, stream=True, body=b'{"canary":1}')
    job.answer.keep = True
    desk.world.load(job)
    desk.rows.append_chunks(job.id, 1, 0, stream("canary"))
    await desk.flushed()
    assert await desk.rows.read_chunks(job.id, 1)
    desk.forget = True
    desk.world.fail(job)
    desk.world.scheduler.cancel(job.id)
    await desk.flushed()
    assert await desk.rows.read_chunks(job.id, 1) == []
    assert await desk.rows.read_request(job.id) is None
    assert desk.rows.bodies_bytes == 0
    await desk.store.close()
    assert b"canary" not in (tmp_path / "forget.db").read_bytes()
