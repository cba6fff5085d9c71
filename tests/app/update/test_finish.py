"""The second half of an update with real processes: small installed programs whose update code is the real one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from app.update import finish, journal, swap
from app.update.journal import Journal, Step
from tests.app.update.kit import install

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the installed programs here are scripts")


class Site:
    """Version 0.1.0 in place, 0.2.0 staged; ``log`` is what the programs write as they start."""

    def __init__(self, folder: Path, manner: str = "") -> None:
        self.root, self.work, self.log = folder / "quorum", folder / ".quorum.update", folder / "log"
        self.program = install(self.root, "0.1.0")
        install(self.work / "staged", "0.2.0", manner)
        self.log.touch()
        self.plan = Journal(
            str(self.root),
            str(self.program),
            "0.2.0",
            "0.1.0",
            str(self.work / "staged"),
            old_inode=self.root.stat().st_ino,
            argv=[str(self.log)],
        )
        journal.write(self.work, self.plan)

    def finish(self, **changes: object) -> subprocess.CompletedProcess[bytes]:
        journal.write(self.work, self.plan.now(**changes))
        return subprocess.run(
            [str(self.work / "staged" / "quorum"), finish.WORD, str(self.work)], timeout=60, check=False
        )

    def start(self, program: Path | None = None) -> int:
        return subprocess.run([str(program or self.program), str(self.log)], timeout=60, check=False).returncode

    @property
    def version(self) -> str:
        return (self.root / "VERSION").read_text()

    @property
    def told(self) -> Journal:
        found = journal.read(self.work)
        assert found is not None
        return found

    def quiet(self) -> None:
        """Wait until no program of this site runs."""
        for process in psutil.process_iter(["cmdline"]):
            if str(self.log) in (process.info["cmdline"] or []):
                process.wait(20)

    def started(self) -> list[str]:
        return [re.sub(r"(\S+ started) \d+", r"\1", line) for line in self.log.read_text().splitlines()]

    def close(self) -> None:
        """End what still runs."""
        for pid in re.findall(r"^\S+ started (\d+)$", self.log.read_text(), re.MULTILINE):
            with suppress(psutil.NoSuchProcess):
                psutil.Process(int(pid)).terminate()


MakeSite = Callable[..., Site]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[MakeSite]:
    made: list[Site] = []

    def make(manner: str = "") -> Site:
        made.append(Site(tmp_path, manner))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_the_new_program_is_put_in_place_and_started(site: MakeSite) -> None:
    one = site()

    assert one.finish().returncode == 0
    assert (one.version, one.told.step) == ("0.2.0", Step.DONE)
    assert (one.work / "previous" / "VERSION").read_text() == "0.1.0"
    assert one.started() == ["0.2.0 started", "0.2.0 ready "]


def test_it_waits_for_the_old_program_to_end(site: MakeSite) -> None:
    one = site()
    with subprocess.Popen([str(one.program), str(one.log), "--stay"]) as old:
        journal.write(one.work, one.plan.now(pid=old.pid))
        helper = subprocess.Popen([str(one.work / "staged" / "quorum"), finish.WORD, str(one.work)])
        with pytest.raises(subprocess.TimeoutExpired):
            helper.wait(1.5)
        assert one.version == "0.1.0"
        old.terminate()
    assert helper.wait(30) == 0
    assert one.version == "0.2.0"


def test_a_new_program_that_ends_at_its_first_start_is_rolled_back_and_the_old_one_runs(site: MakeSite) -> None:
    one = site("breaks")

    assert one.finish().returncode == 1
    assert one.version == "0.1.0"
    one.quiet()
    reason = "The new program ended at its first start (code 7)."
    said = f"Updating to version 0.2.0 failed: {reason} Version 0.1.0 runs."
    assert one.started() == ["0.2.0 started", "0.1.0 started", f"0.1.0 ready {said}"]
    assert journal.read(one.work) is None


def test_a_relaunch_that_fails_is_rolled_back(site: MakeSite) -> None:
    one = site()
    helper = Path(one.work / "staged" / "helper")
    (one.work / "staged" / "quorum").rename(helper)  # the new program lacks what is to be started
    done = subprocess.run([str(helper), finish.WORD, str(one.work)], timeout=60, check=False)

    assert done.returncode == 1
    one.quiet()
    assert one.version == "0.1.0"
    assert "The new program could not be started: No such file" in one.started()[-1]


def test_a_new_program_that_hangs_is_ended_and_rolled_back(site: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    one = site()
    plan = swap.swap(one.work, one.plan.now(argv=[str(one.log), "--stay"]))
    monkeypatch.setattr(finish, "FIRST_START_S", 1.0)
    monkeypatch.setattr(journal, "read", lambda work: None)  # it never says that it runs
    children, start = [], finish._start
    monkeypatch.setattr(finish, "_start", lambda plan: children.append(start(plan)) or children[-1])

    assert finish._watch(one.work, plan) == 1
    assert one.version == "0.1.0"
    assert (len(children), children[0].returncode, children[1].poll()) == (2, -signal.SIGTERM, None)
    children[1].terminate()
    children[1].wait(20)


def test_as_a_service_a_new_program_that_fails_is_rolled_back_at_its_third_start(site: MakeSite) -> None:
    one = site("breaks")

    assert one.finish(service=True).returncode == 7
    assert (one.version, one.told.step, one.told.starts) == ("0.2.0", Step.TRIAL, 1)
    assert one.start() == 7
    assert one.start() == 0
    assert one.version == "0.1.0"
    assert one.started()[-1].startswith("0.1.0 ready Updating to version 0.2.0 failed: The new program did not start.")


def test_as_a_service_the_process_stays_the_same(site: MakeSite) -> None:
    one = site()
    journal.write(one.work, one.plan.now(service=True))
    with subprocess.Popen([str(one.work / "staged" / "quorum"), finish.WORD, str(one.work)]) as process:
        pass
    assert f"0.2.0 started {process.pid}" in one.log.read_text().splitlines()
    assert one.told.step is Step.DONE


@pytest.mark.parametrize("left", ["before", "between", "after"])
def test_a_crash_between_the_two_renames_is_mended_by_the_next_start(site: MakeSite, left: str) -> None:
    one = site()
    journal.write(one.work, one.plan.now(step=Step.SWAPPING, helper=2**22 + 7))
    if left != "before":
        one.root.rename(one.work / "previous")
    if left == "after":
        (one.work / "staged").rename(one.root)
    program = one.work / "previous" / "quorum" if left == "between" else one.program

    assert one.start(program) == 0
    assert one.version == ("0.2.0" if left == "after" else "0.1.0")
    assert ("failed" in one.started()[-1]) == (left != "after")


def test_a_helper_that_is_at_work_is_not_disturbed(site: MakeSite) -> None:
    one = site()
    journal.write(one.work, one.plan.now(step=Step.TRIAL, helper=os.getppid(), starts=9))

    finish.begin(one.work, counts=True)
    assert one.told.starts == 9
    assert one.version == "0.1.0"


def test_without_a_prepared_update_the_helper_does_nothing(site: MakeSite) -> None:
    one = site()

    assert one.finish(step=Step.TRIAL).returncode == 2
    assert finish.main([]) == 2
    assert one.version == "0.1.0"


def test_an_old_program_that_does_not_end_is_left_alone(site: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    one = site()
    monkeypatch.setattr(finish, "OLD_ENDS_S", 0.0)
    with subprocess.Popen([str(one.program), str(one.log), "--stay"]) as old:
        journal.write(one.work, one.plan.now(pid=old.pid))
        assert finish.main([str(one.work)]) == 1
        old.terminate()
    assert one.told.reason == "The old program did not end."
    assert one.version == "0.1.0"
