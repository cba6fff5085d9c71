"""``quorum selftest``: everything that is there is tried, on a folder that is gone afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from router import __version__
from tests.app.serving import QUIET, ROOT, environment


def selftest(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", "selftest", *arguments],
        cwd=ROOT,
        env=environment(**QUIET, **environ),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.mark.engine
def test_a_complete_computer_passes_and_leaves_nothing_behind(tmp_path: Path, starter_model: Path) -> None:
    done = selftest("--json", QUORUM_STARTER_MODEL=str(starter_model), TMPDIR=str(tmp_path))

    told = json.loads(done.stdout)
    parts = {part["name"]: part for part in told["parts"]}
    assert [name for name, part in parts.items() if part["state"] == "failed"] == [], done.stdout + done.stderr
    assert done.returncode == 0
    assert (told["ok"], told["version"]) == (True, __version__)
    assert set(parts) == {"node", "page", "store", "mdns", "model", "window", "tray", "stop"}
    assert [path for path in tmp_path.iterdir() if path.name.startswith("quorum-")] == []


def test_an_unusable_model_fails_by_name_while_the_rest_is_tried(tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03")
    done = selftest(QUORUM_STARTER_MODEL=str(tmp_path / "cut.gguf"), DISPLAY="", WAYLAND_DISPLAY="")

    assert done.returncode == 1
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "failed" in lines["model"]
    assert "starter model is not there" in lines["model"]
    assert "ok" in lines["store"]
    assert "absent" in lines["tray"]
    assert done.stdout.endswith("Something failed; see above.\n")


def test_the_probe_of_the_tray_answers_off_screen() -> None:
    pytest.importorskip("PySide6.QtWidgets")
    done = subprocess.run(
        [sys.executable, "-m", "app", "--window-probe", "tray"],
        cwd=ROOT,
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert json.loads(done.stdout) == {"present": False}, done.stderr
