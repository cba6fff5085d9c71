"""What is kept beside jobs is ready together, or the node doesn't start."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.aio import Tasks
from router.archive import Archive
from router.errors import StartError
from router.intake import Intake
from router.job_rows import JobRows
from router.kept import FOLDER, Kept, open_kept
from router.room import Room
from router.settings import Settings
from router.store import Store
from tests.router.store_kit import opened
from tests.world import World


class NoLedger:
    """No job is promised here."""

    def committed(self, job: object) -> None:
        raise AssertionError

    def refused(self, job: object) -> None:
        raise AssertionError


async def kept_in(store: Store, folder: Path) -> Kept:
    world, settings = World(), Settings(None, environ={})
    rows = JobRows(store)
    archive, room = Archive(rows, world.scheduler), Room(rows, settings, world.clock)

    async def repoll() -> None: ...

    intake = Intake(world.scheduler, world.registry, settings, world.clock, repoll, NoLedger())  # type: ignore[arg-type]
    return await open_kept(store, archive, intake, world.scheduler, Tasks(), world.clock, room, folder)


async def test_responses_files_and_batches_are_there_before_the_first_request(tmp_path: Path) -> None:
    async with opened(tmp_path / "quorum.db") as store:
        kept = await kept_in(store, tmp_path)

        assert (tmp_path / FOLDER).is_dir()
        assert await kept.responses.find("resp_unknown", None) is None
        assert await kept.batches.page(None, None, 10) == []
        assert kept.batches.reading() == frozenset()


async def test_a_folder_that_can_not_be_used_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_bytes(b"")
    async with opened(tmp_path / "quorum.db") as store:
        with pytest.raises(StartError):
            await kept_in(store, tmp_path)
