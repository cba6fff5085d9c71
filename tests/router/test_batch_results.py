"""The end of a batch: two files with every line in one of them, or nothing at all."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.batch_lines import answered, refused
from router.batch_results import finish
from router.batch_rows import BatchRow, BatchRows, Line
from router.errors import StoreError, failure
from router.files import MIB, Files
from tests.router.store_kit import Broken, Clock, disk_full, opened

LINES = [Line(number, f"id-{number}", 0, 1) for number in range(1, 151)]
BODY = json.dumps({"usage": {"prompt_tokens": 2, "completion_tokens": 1}}).encode()


class Kit:
    """A batch of 150 lines, a third answered, a third failed, a third not run."""

    def __init__(self, rows: BatchRows, files: Files, folder: Path, faults: Broken) -> None:
        self.rows = rows
        self.files = files
        self.folder = folder
        self.faults = faults
        self.row = BatchRow(
            id="batch_01JOB0000000000000000000A1",
            key_id=None,
            endpoint="/v1/embeddings",
            input_file="file-1",
            metadata={},
            status="finalizing",
            created_at=1.0,
        )

    async def fill(self) -> None:
        await self.rows.insert(self.row)
        await self.rows.add_lines(self.row.row_id, LINES)
        for line in LINES[:50]:
            self.rows.record(self.row.row_id, line, "completed", answered(self.row.id, line, "J", BODY))
        for line in LINES[50:100]:
            self.rows.record(self.row.row_id, line, "failed", refused(self.row.id, line, "J", failure("poison", "No.")))

    def ids(self, file_id: str | None) -> list[str]:
        assert file_id is not None
        return [json.loads(line)["custom_id"] for line in self.files.place_of(file_id).read_bytes().splitlines()]


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[Kit]:
    faults = Broken()
    async with opened(tmp_path / "quorum.db", faults) as store:
        files = Files(store, tmp_path / "files", Clock(), lambda: MIB)
        await files.open()
        made = Kit(BatchRows(store), files, tmp_path / "files", faults)
        await made.fill()
        yield made


async def test_every_line_is_in_one_of_the_files_in_order(kit: Kit) -> None:
    kit.row.status, kit.row.cancelling_at = "cancelling", 5.0

    done = await finish(kit.rows, kit.files, kit.row, 9.0)

    assert (done.status, done.cancelled_at) == ("cancelled", 9.0)
    assert kit.ids(done.output_file) == [line.custom_id for line in LINES[:50]]
    assert kit.ids(done.error_file) == [line.custom_id for line in LINES[50:]]
    assert (done.input_tokens, done.output_tokens) == (100, 50)
    assert await kit.rows.get(done.id, None) == done
    assert await kit.files.get(done.output_file or "", None) is not None


async def test_a_batch_without_failures_has_no_error_file(kit: Kit) -> None:
    for line in LINES[50:]:
        kit.rows.record(kit.row.row_id, line, "completed", answered(kit.row.id, line, "J", BODY))
    other = BatchRow(**{name: getattr(kit.row, name) for name in kit.row.__struct_fields__} | {"id": kit.row.id + "x"})
    await kit.rows.insert(other)
    await kit.rows.add_lines(other.row_id, LINES[:1])
    await kit.rows.record(other.row_id, LINES[0], "completed", answered(other.id, LINES[0], "J", BODY))

    done = await finish(kit.rows, kit.files, other, 9.0)

    assert (done.status, done.error_file) == ("completed", None)


async def test_a_failure_of_the_disk_leaves_no_file_and_the_batch_as_it_was(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await kit.rows.get(kit.row.id, None)
    save = kit.rows.save

    async def broken(*args: object) -> None:
        kit.faults.error = disk_full()
        await save(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(kit.rows, "save", broken)
    with pytest.raises(StoreError):
        await finish(kit.rows, kit.files, kit.row, 9.0)
    kit.faults.error = None

    assert list(kit.folder.iterdir()) == []
    assert await kit.rows.get(kit.row.id, None) == before
    assert kit.row.status == "finalizing"
