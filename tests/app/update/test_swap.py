"""At every moment of the swap a whole program is in place, or the next start puts one there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.update import journal, swap
from app.update.journal import Journal, Step


def in_place(root: Path) -> str:
    return (root / "VERSION").read_text()


def cannot(one: Path, other: Path) -> bool:
    return False


@pytest.fixture
def plan(tmp_path: Path) -> Journal:
    root, work = tmp_path / "quorum", tmp_path / ".quorum.update"
    for folder, version in ((root, "0.1.0"), (work / "staged", "0.2.0")):
        folder.mkdir(parents=True)
        (folder / "VERSION").write_text(version)
    return Journal(
        str(root), str(root / "quorum"), "0.2.0", "0.1.0", str(work / "staged"), old_inode=root.stat().st_ino
    )


@pytest.mark.parametrize("exchange", [swap.exchange, cannot])
def test_the_new_program_is_in_place_and_the_old_one_kept(
    plan: Journal, exchange: Callable[[Path, Path], bool]
) -> None:
    root, work = Path(plan.root), Path(plan.staged).parent

    after = swap.swap(work, plan, exchange)

    assert after.step is Step.TRIAL
    assert (in_place(root), in_place(plan.previous)) == ("0.2.0", "0.1.0")
    back = swap.roll_back(work, after, "it did not start", exchange)
    assert (back.step, back.reason) == (Step.FAILED, "it did not start")
    assert in_place(root) == "0.1.0"


def test_folders_are_exchanged_in_one_step_here(tmp_path: Path, plan: Journal) -> None:
    if not swap.exchange(Path(plan.staged), Path(plan.root)):
        pytest.skip("this file system exchanges nothing")
    assert in_place(Path(plan.root)) == "0.2.0"
    assert in_place(Path(plan.staged)) == "0.1.0"


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("at", range(1, 6))
@pytest.mark.parametrize("exchange", [swap.exchange, cannot])
def test_a_crash_at_any_step_is_mended(
    plan: Journal, monkeypatch: pytest.MonkeyPatch, at: int, exchange: Callable[[Path, Path], bool]
) -> None:
    root, work = Path(plan.root), Path(plan.staged).parent
    journal.write(work, plan)
    real_rename, steps = Path.rename, 0

    def crash_or(act: Callable[[], object]) -> object:
        nonlocal steps
        steps += 1
        if steps == at:
            raise Crash
        return act()

    monkeypatch.setattr(Path, "rename", lambda self, to: crash_or(lambda: real_rename(self, to)))
    real_write = journal.write
    monkeypatch.setattr(journal, "write", lambda work, plan: crash_or(lambda: real_write(work, plan)))
    crashed = True
    try:
        swap.swap(work, plan, lambda one, other: bool(crash_or(lambda: exchange(one, other))))
        crashed = False
    except Crash:
        pass
    monkeypatch.undo()

    found = journal.read(work)
    assert found is not None
    if found.step is Step.SWAPPING:
        found = swap.mend(work, found)
    assert found.step is {"0.1.0": Step.FAILED, "0.2.0": Step.TRIAL}[in_place(root)] or found.step is Step.READY
    if found.step is Step.TRIAL:
        assert in_place(swap.roll_back(work, found, "tried").previous.parent.parent / "quorum") == "0.1.0"
    assert crashed or found.step is not Step.READY


def test_rolling_back_without_the_old_program_leaves_the_new_one(plan: Journal) -> None:
    work = Path(plan.staged).parent
    after = swap.swap(work, plan)
    (plan.previous / "VERSION").unlink()
    plan.previous.rmdir()

    with pytest.raises(FileNotFoundError):
        swap.roll_back(work, after, "it did not start")
    assert in_place(Path(plan.root)) == "0.2.0"


def test_a_folder_that_can_not_be_renamed_is_told(tmp_path: Path, plan: Journal) -> None:
    with pytest.raises(OSError, match="nowhere"):
        swap.exchange(tmp_path / "nowhere", Path(plan.root))
    assert in_place(Path(plan.root)) == "0.1.0"


def test_tidying_removes_what_an_update_left(plan: Journal) -> None:
    work = Path(plan.staged).parent
    swap.tidy(work)
    swap.tidy(work)

    assert not work.exists()
    assert in_place(Path(plan.root)) == "0.1.0"
