"""The second half of an update, in a process of its own that runs from the new program: wait, swap, start, watch.

Standard library and psutil only, all imported at the start: the folder this runs from changes its name meanwhile.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from app.others import environment
from app.update import data, journal, swap
from app.update.journal import Journal, Step

WORD: Final = "--finish-update"
"""``quorum --finish-update FOLDER``: how the helper is started."""

OLD_ENDS_S: Final = 600.0
FIRST_START_S: Final = 180.0  # a large database may have to be brought up to date
STARTS_MAX: Final = 2
LOOK_S: Final = 0.1
DETACHED: Final = 0x8 | 0x200  # DETACHED_PROCESS, CREATE_NEW_PROCESS_GROUP of Windows


def main(words: Sequence[str]) -> int:
    """Finish the update that is prepared in the folder ``words[0]``; 0 when the new program runs."""
    work = Path(words[0]) if words else Path()
    plan = journal.read(work)
    if plan is None or plan.step is not Step.READY or not plan.fits(work):
        return 2
    if not plan.service:
        plan = plan.now(helper=os.getpid())
        journal.write(work, plan)
    if not _ended(plan.pid):
        swap.failed(work, plan, "The old program did not end.")
        return 1
    try:
        plan = swap.swap(work, plan)
    except OSError as error:
        return _undo(
            work, plan, f"The new program could not be put in place: {error.strerror or type(error).__name__}."
        )
    if plan.service:
        _become(plan)
    return _watch(work, plan)


def _ended(pid: int) -> bool:
    """Wait for the process that must end first; it may be this one, which became the helper."""
    deadline = time.monotonic() + OLD_ENDS_S
    while pid and pid != os.getpid() and _lives(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_S)
    return True


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _watch(work: Path, plan: Journal) -> int:
    """Start the new program; when it doesn't say that it runs, put the old one back and start that."""
    try:
        child = _start(plan)
    except OSError as error:
        return _undo(work, plan, f"The new program could not be started: {error.strerror or type(error).__name__}.")
    deadline = time.monotonic() + FIRST_START_S
    reason = f"The new program did not get ready in {FIRST_START_S:.0f} s."
    while time.monotonic() < deadline:
        seen = journal.read(work)
        if seen is not None and seen.step is Step.DONE:
            return 0
        if (code := child.poll()) is not None:
            reason = f"The new program ended at its first start (code {code})."
            break
        time.sleep(LOOK_S)
    _end(child)
    return _undo(work, plan, reason)


def _undo(work: Path, plan: Journal, reason: str) -> int:
    try:
        swap.roll_back(work, plan, reason)
        data.restore(plan)
        _start(plan)
    except OSError as error:
        sys.stderr.write(f"{reason} The old program could not be started again: {error}\n")
    return 1


def _start(plan: Journal) -> subprocess.Popen[bytes]:
    """The program in place, on its own: it must outlive this process."""
    return apart([str(plan.executable), *plan.argv], Path(plan.root))


def apart(words: list[str], root: Path) -> subprocess.Popen[bytes]:
    """A program that goes on when this one ends, where this one was started, but never inside ``root``.

    Raises OSError.
    """
    here = Path.cwd()
    windows = sys.platform == "win32"
    return subprocess.Popen(  # noqa: S603 # our own program
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=root.parent if here.is_relative_to(root) else here,
        env=environment(),
        creationflags=DETACHED if windows else 0,
        start_new_session=not windows,
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(15)
    if child.poll() is None:
        child.kill()
        child.wait()


def _become(plan: Journal) -> None:
    """Turn this process into the program in place: a service manager keeps its eye on the process id."""
    words = [str(plan.executable), *plan.argv]
    os.execve(plan.executable, words, environment())  # noqa: S606 # our own program


def begin(work: Path, *, counts: bool) -> None:
    """Called first at every start of an installed program: mends what a crash left, counts the starts of a trial.

    May not return: the process then becomes the program that was put in place.
    """
    plan = journal.read(work)
    if plan is None or plan.step not in (Step.SWAPPING, Step.TRIAL) or not plan.fits(work) or _lives_other(plan.helper):
        return
    try:
        if plan.step is Step.SWAPPING:
            plan = swap.mend(work, plan)
            _become(plan)
        if not counts:
            return
        plan = plan.now(starts=plan.starts + 1)
        journal.write(work, plan)
        if plan.starts > STARTS_MAX:
            plan = swap.roll_back(work, plan, "The new program did not start.")
            data.restore(plan)
            _become(plan)
    except OSError as error:
        sys.stderr.write(f"An unfinished update can't be mended: {error}\n")


def _lives_other(pid: int) -> bool:
    return bool(pid) and pid != os.getpid() and _lives(pid)


def confirm(work: Path) -> str:
    """The node answers: a trial has succeeded. Returns why the last update failed, once; else nothing."""
    plan = journal.read(work)
    if plan is None:
        return ""
    with suppress(OSError):
        if plan.step is Step.TRIAL:
            journal.write(work, plan.now(step=Step.DONE))
        elif plan.step is Step.FAILED:
            journal.remove(work)
            return f"Updating to version {plan.version} failed: {plan.reason} Version {plan.old_version} runs."
    return ""
