"""Batches and their lines in the store: a result is recorded once, and nothing is left of what has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from router.batch_rows import STEP_LINES, BatchRow, BatchRows, Line
from router.errors import StoreError
from router.files import FileRow
from router.store import Store
from tests.router.store_kit import opened, rows

ULID = "01JOB0000000000000000000A{}"
LINES = [Line(number, f"id-{number}", number * 10, 9) for number in range(1, 6)]


def row(number: int = 1, **fields: Any) -> BatchRow:
    given: dict[str, Any] = {
        "id": f"batch_{ULID.format(number)}",
        "key_id": None,
        "endpoint": "/v1/embeddings",
        "input_file": "file-1",
        "metadata": {"a": "b"},
        "created_at": float(number),
    }
    return BatchRow(**(given | fields))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(tmp_path / "quorum.db") as made:
        yield made


@pytest.fixture
async def batches(store: Store) -> BatchRows:
    return BatchRows(store)


async def test_a_batch_is_read_as_it_was_saved(batches: BatchRows) -> None:
    made = row(errors=[{"code": "c", "message": "m"}], keep_output_s=5.0, key_id="k")
    await batches.insert(made)
    made.status, made.total, made.completed_at = "completed", 7, 9.0
    file = FileRow(id="file-2", key_id="k", filename="f", purpose="p", size=1, created_at=1.0, expires_at=None)

    await batches.save(made, [file])

    assert await batches.get(made.id, None) == made
    assert rows(batches._store.path, "SELECT id FROM files") == [("file-2",)]


async def test_a_key_sees_its_own_batches_only(batches: BatchRows) -> None:
    await batches.insert(row(key_id="a"))

    assert await batches.get(row().id, "a") is not None
    assert await batches.get(row().id, None) is not None
    assert await batches.get(row().id, "b") is None
    assert await batches.get("batch_x", None) is None
    assert await batches.page("b", None, 10) == []


async def test_what_is_unfinished_is_found_oldest_first(batches: BatchRows) -> None:
    for number, status in enumerate(("completed", "in_progress", "cancelling", "failed", "validating"), 1):
        await batches.insert(row(number, status=status))

    assert [found.status for found in await batches.unfinished()] == ["in_progress", "cancelling", "validating"]


async def test_lines_wait_run_and_have_results_in_order(batches: BatchRows) -> None:
    made = row()
    await batches.insert(made)
    await batches.add_lines(made.row_id, LINES)
    batches.assign(made.row_id, LINES[0], "J1")
    await batches.record(made.row_id, LINES[1], "completed", b"two")
    await batches.record(made.row_id, LINES[3], "failed", b"four")

    assert [one.number for one in await batches.lines(made.row_id, ("waiting",))] == [3, 5]
    assert [one.number for one in await batches.lines(made.row_id, ("waiting",), after=3)] == [5]
    assert [(one.number, one.job_id) for one in await batches.lines(made.row_id, ("running",))] == [(1, "J1")]
    assert await batches.results(made.row_id, "completed", 0) == [(2, b"two")]
    assert await batches.counts(made.row_id) == (1, 1)


async def test_a_result_is_recorded_once_and_never_undone(batches: BatchRows) -> None:
    made = row()
    await batches.insert(made)
    await batches.add_lines(made.row_id, LINES)
    await batches.record(made.row_id, LINES[0], "completed", b"first")

    await batches.record(made.row_id, LINES[0], "failed", b"second")
    batches.assign(made.row_id, LINES[0], "J9")

    assert await batches.results(made.row_id, "completed", 0) == [(1, b"first")]
    assert await batches.counts(made.row_id) == (1, 0)


async def test_many_lines_are_dropped_to_the_last(batches: BatchRows, store: Store) -> None:
    made, other = row(1), row(2)
    for one in (made, other):
        await batches.insert(one)
    many = [Line(number, str(number), 0, 1) for number in range(1, 2 * STEP_LINES + 2)]
    await batches.add_lines(made.row_id, many)
    await batches.add_lines(other.row_id, LINES)

    await batches.drop_lines(made.row_id)

    assert rows(store.path, "SELECT count(*), min(batch) FROM batch_lines") == [(5, other.row_id)]


async def test_lines_of_batches_that_have_ended_are_leftovers(batches: BatchRows, store: Store) -> None:
    done, running = row(1, status="completed"), row(2, status="in_progress")
    for one in (done, running):
        await batches.insert(one)
        await batches.add_lines(one.row_id, LINES)

    await batches.drop_leftovers()

    assert rows(store.path, "SELECT DISTINCT batch FROM batch_lines") == [(running.row_id,)]


async def test_old_batches_leave_with_their_lines_unless_they_run(batches: BatchRows, store: Store) -> None:
    for number, status in enumerate(("completed", "in_progress", "completed"), 1):
        one = row(number, status=status)
        await batches.insert(one)
        await batches.add_lines(one.row_id, LINES)

    await batches.prune(3.0, 3.0)

    assert [found.id[-1] for found in await batches.page(None, None, 10)] == ["3", "2"]
    assert rows(store.path, "SELECT count(*) FROM batch_lines") == [(10,)]


async def test_a_key_makes_one_batch_and_is_free_again_a_day_after_its_end(batches: BatchRows) -> None:
    made = row(idempotency_key="k", request_hash="h", status="completed", completed_at=100.0)
    await batches.insert(made)
    await batches.insert(row(2, idempotency_key="k", key_id="anna"))
    with pytest.raises(StoreError) as refused:
        await batches.insert(row(3, idempotency_key="k"))
    assert refused.value.duplicate
    await batches.prune(0.0, 100.0)
    assert await batches.by_idempotency(None, "k") == made
    await batches.prune(0.0, 101.0)
    assert await batches.by_idempotency(None, "k") is None
    assert await batches.by_idempotency("anna", "k") is not None, "it has not ended"


async def test_results_take_room_until_their_batch_has_ended(batches: BatchRows, store: Store) -> None:
    made = row()
    await batches.insert(made)
    await batches.add_lines(made.row_id, LINES)
    for result in (b"12345", b"again"):  # the second is not taken: a line has one result
        await batches.record(made.row_id, LINES[0], "completed", result)
    await batches.record(made.row_id, LINES[1], "failed", b"123")
    await batches.results(made.row_id, "failed", 0)
    again = BatchRows(store)
    await again.open()
    assert (batches.kept_bytes, again.kept_bytes) == (8, 8)
    await batches.drop_lines(made.row_id)
    assert batches.kept_bytes == 0
