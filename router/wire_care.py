"""What the page and the commands are told of updates and of the data folder."""

from __future__ import annotations

from enum import StrEnum

from router.wire_base import Wire


class UpdateState(StrEnum):
    """How far an update is. ``off``: no feed is set; ``current``: there is nothing newer."""

    OFF = "off"
    CHECKING = "checking"
    CURRENT = "current"
    AVAILABLE = "available"
    DOWNLOADING = "downloading"
    TESTING = "testing"
    WAITING = "waiting"
    INSTALLING = "installing"
    FAILED = "failed"

    @property
    def busy(self) -> bool:
        """Whether something is being done."""
        return self not in (UpdateState.OFF, UpdateState.CURRENT, UpdateState.AVAILABLE, UpdateState.FAILED)


class UpdateInfo(Wire, frozen=True, kw_only=True):
    """The newer version, if any, and what is done about it. ``download_pct`` of the download, 0 to 100.

    ``refusal`` says why this program can't replace itself and how it is updated instead; empty when it can.
    """

    state: UpdateState = UpdateState.OFF
    version: str = ""
    notes: str = ""
    download_pct: int | None = None
    message: str = ""
    hint: str = ""
    refusal: str = ""
    checked_at: float | None = None


class DiskUse(Wire, frozen=True, kw_only=True):
    """What the data folder takes, in bytes. ``bodies`` (kept prompts and answers of jobs) is a part of ``database``.

    ``models`` are those in the data folder only; ``backups`` are databases set aside or kept before a migration.
    """

    models_bytes: int = 0
    database_bytes: int = 0
    bodies_bytes: int = 0
    backups_bytes: int = 0
    logs_bytes: int = 0
    other_bytes: int = 0
    free_bytes: int = 0
