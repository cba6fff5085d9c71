"""``quorum export``, ``diagnostics`` and ``reset`` as a person types them, and disk use in ``status``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.app.serving import ROOT, environment, serving


def quorum(folder: Path, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "app", *words, "--data-dir", str(folder)],
        cwd=ROOT,
        env=environment(),
        input=None if stdin is None else stdin.encode(),
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        timeout=90,
        check=False,
    )


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a node that ran once."""
    folder = tmp_path_factory.mktemp("used") / "data"
    with serving(folder, QUORUM_BUILTIN_ENGINE="0"):
        pass
    return folder


def test_export_into_a_file_and_to_stdout_while_it_runs(tmp_path: Path) -> None:
    target = tmp_path / "all.zip"
    with serving(tmp_path / "data", QUORUM_BUILTIN_ENGINE="0") as node:
        done = node.quorum("export", str(target))
        piped = quorum(node.data_dir, "export", "-")
        shown = node.quorum("status").stdout

    assert done.returncode == 0, done.stderr
    assert "keep it private" in done.stdout
    assert target.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(target) as archive:
        assert "quorum.db" in archive.namelist()
    (tmp_path / "piped.zip").write_bytes(piped.stdout)
    assert zipfile.ZipFile(tmp_path / "piped.zip").testzip() is None
    assert "free; the data takes" in shown


def test_a_file_that_is_there_and_a_folder_that_is_not_are_told(used: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.zip").write_text("mine")
    done = quorum(used, "export", str(tmp_path / "mine.zip"))
    assert (done.returncode, b"is there already" in done.stderr) == (1, True)
    assert (tmp_path / "mine.zip").read_text() == "mine"

    done = quorum(used, "export", str(tmp_path / "no" / "x.zip"))
    assert (done.returncode, b"can't be written" in done.stderr) == (1, True)
    done = quorum(tmp_path / "nothing", "export", str(tmp_path / "x.zip"))
    assert (done.returncode, b"nothing of Quorum" in done.stderr) == (1, True)
    assert not (tmp_path / "x.zip").exists()


def test_diagnostics_of_a_running_and_a_stopped_node(used: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "data", QUORUM_BUILTIN_ENGINE="0") as node:
        live = json.loads(quorum(node.data_dir, "diagnostics", "-").stdout)
    done = quorum(used, "diagnostics", str(tmp_path / "r.json"))

    assert live["node"]["mode"] == "running"
    assert b"Read it before you send it." in done.stdout
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["node"] is None
    assert told["log"]


def test_reset_asks_and_refuses_while_quorum_runs(tmp_path: Path) -> None:
    with serving(tmp_path / "data", QUORUM_BUILTIN_ENGINE="0") as node:
        done = node.quorum("reset", "--yes")
        assert (done.returncode, "quorum quit" in done.stderr) == (1, True)
    folder = tmp_path / "data"
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / "a.gguf").write_text("x")

    unasked = quorum(folder, "reset")
    assert (unasked.returncode, b"Add --yes" in unasked.stderr) == (1, True)
    assert (folder / "quorum.db").exists()

    done = quorum(folder, "reset", "--yes", "--keep-models", "--keep-identity")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["instance.lock", "models", "node.crt", "node.key"]
    assert b"models, node.crt, node.key" in done.stdout
    assert quorum(folder, "reset", "--yes").returncode == 0
    assert [path.name for path in folder.iterdir()] == ["instance.lock"]
    assert b"nothing of Quorum" in quorum(folder, "reset", "--yes").stdout


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of POSIX is opened")
@pytest.mark.parametrize(("word", "gone"), [("reset", True), ("yes", False)])
def test_only_the_word_itself_agrees(used: Path, tmp_path: Path, word: str, gone: bool) -> None:
    folder = tmp_path / "data"
    shutil.copytree(used, folder)
    ours, theirs = os.openpty()
    os.write(ours, f"{word}\n".encode())
    done = subprocess.run(
        [sys.executable, "-m", "app", "reset", "--data-dir", str(folder)],
        cwd=ROOT,
        env=environment(),
        stdin=theirs,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(ours)
    os.close(theirs)

    assert done.returncode == (0 if gone else 1)
    assert "quorum.db" in done.stdout
    assert (folder / "quorum.db").exists() != gone
