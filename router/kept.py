"""What OpenAI's API keeps beside jobs: responses, files, batches; built and opened together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from router.aio import Clock, Tasks
from router.archive import Archive
from router.batches import Batches
from router.files import Files
from router.intake import Intake
from router.responses import Responses
from router.room import Room
from router.scheduler import Scheduler
from router.store import Store

FOLDER: Final = "files"


@dataclass(frozen=True, slots=True)
class Kept:
    """Ready for the first request; ``batches.start`` follows once jobs may run."""

    responses: Responses
    files: Files
    batches: Batches


async def open_kept(
    store: Store,
    archive: Archive,
    intake: Intake,
    scheduler: Scheduler,
    tasks: Tasks,
    clock: Clock,
    room: Room,
    data_dir: Path,
) -> Kept:
    """All three over an open ``store``. Raises StartError, StoreError."""
    responses = Responses(store, archive)
    await responses.open()
    files = Files(store, data_dir / FOLDER, clock, lambda: files.kept_bytes + room.left)
    await files.open()
    room.share(files)
    batches = Batches(store, files, intake, scheduler, archive, responses, tasks, clock, room)
    await batches.open()
    return Kept(responses, files, batches)
