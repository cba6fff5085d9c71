"""What an update has done so far, on the disk beside the program, so that a crash at any moment can be mended."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

FILE: Final = "journal.json"


class Step(StrEnum):
    """How far an update is. ``DONE`` and ``FAILED`` are for whoever starts next."""

    READY = "ready"
    SWAPPING = "swapping"
    TRIAL = "trial"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Journal:
    """One update. ``old_inode`` tells the old program's folder wherever a crash left it.

    ``argv`` are the words to start the program with. ``service``: a service manager starts it again when it ends.
    ``data_dir`` is the node's folder, and ``prepared_at`` (Unix seconds) when nothing of the new version had run on it.
    ``pid`` is the process that must end first, ``helper`` the one that swaps and watches; 0 when none does.
    """

    root: str
    program: str
    version: str
    old_version: str
    staged: str
    old_inode: int
    argv: list[str] = field(default_factory=list)
    service: bool = False
    pid: int = 0
    helper: int = 0
    step: Step = Step.READY
    starts: int = 0
    reason: str = ""
    data_dir: str = ""
    prepared_at: float = 0.0

    def fits(self, work: Path) -> bool:
        """Whether it is about the program beside whose folder it lies."""
        root = Path(self.root)
        return (
            work == root.with_name(f".{root.name}.update")
            and Path(self.program).is_relative_to(root)
            and Path(self.staged).parent == work
            and ".." not in (*Path(self.program).parts, *Path(self.staged).parts)
        )

    @property
    def previous(self) -> Path:
        """Where the old program is kept."""
        return Path(self.staged).parent / "previous"

    @property
    def executable(self) -> Path:
        """What is started once the swap is done or undone."""
        return Path(self.program)

    def now(self, **changes: Any) -> Journal:
        """A changed copy."""
        return replace(self, **changes)


def write(work: Path, journal: Journal) -> None:
    """Replace the journal in one step. Raises OSError."""
    temporary = work / f".{FILE}.new"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(asdict(journal), file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(work / FILE)


def read(work: Path) -> Journal | None:
    """The journal, or None when there is none that can be understood."""
    try:
        told = json.loads((work / FILE).read_text("utf-8"))
        return Journal(**told | {"step": Step(told["step"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def remove(work: Path) -> None:
    """Forget the update."""
    (work / FILE).unlink(missing_ok=True)
