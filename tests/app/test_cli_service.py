"""``quorum service`` with the real command line, and a systemctl that writes down what it is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.serving import ROOT, environment, serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")


def quorum(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    tools = home / "bin"
    tools.mkdir(exist_ok=True)
    for name in ("systemctl", "loginctl"):
        (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >> "{home}/asked"\n')
        (tools / name).chmod(0o755)
    own = {"HOME": str(home), "XDG_CONFIG_HOME": "", "PATH": f"{tools}:{os.environ['PATH']}"}
    return subprocess.run(
        [sys.executable, "-m", "app", "service", *words, "--data-dir", str(home / "data")],
        cwd=ROOT,
        env=environment(**own),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_installed_shown_and_removed(tmp_path: Path) -> None:
    path = tmp_path / ".config" / "systemd" / "user" / "quorum.service"

    assert quorum(tmp_path, "status").stdout == "The service is not installed.\n"
    done = quorum(tmp_path, "install")
    assert done.returncode == 0, done.stderr
    assert f"The service is installed, enabled, running: {path}" in done.stdout
    assert "loginctl enable-linger" in done.stdout
    assert f'"serve" "--data-dir" "{tmp_path / "data"}"' in path.read_text()
    told = json.loads(quorum(tmp_path, "status", "--json").stdout)
    assert told == {"path": str(path), "written": True, "ours": True, "enabled": True, "running": True}
    assert quorum(tmp_path, "remove").stdout == "The service is not installed.\n"
    assert not path.exists()
    assert "systemctl --user disable --now quorum.service" in (tmp_path / "asked").read_text()


def test_a_running_quorum_comes_first(tmp_path: Path) -> None:
    with serving(tmp_path / "data", QUORUM_BUILTIN_ENGINE="0"):
        done = quorum(tmp_path, "install")
    assert done.returncode == 1
    assert "already runs" in done.stderr
    assert "quorum quit" in done.stderr


@pytest.mark.parametrize("words", [(), ("start",)])
def test_wrong_usage(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert quorum(tmp_path, *words).returncode == 2
