"""The unit and the agent: what they say, and that the system's own checker finds nothing wrong with them."""

from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from app import autostart
from app.service_units import LABEL, UNIT, LaunchAgent, SystemdUnit, command, run

ODD = ["/opt/a b/quörum", "serve", "--data-dir", '/home/x/100% "of" $HOME\\']


class Manager:
    """Stands for systemctl, loginctl and launchctl."""

    def __init__(self, **codes: int) -> None:
        self.asked: list[str] = []
        self.codes = codes
        self.said = ""

    def __call__(self, words: Sequence[str]) -> tuple[int, str]:
        self.asked.append(" ".join(words))
        return next((code for word, code in self.codes.items() if word.replace("_", "-") in words), 0), self.said


def unit(home: Path, manager: Manager, argv: Sequence[str] = ODD) -> SystemdUnit:
    return SystemdUnit(argv, {"HOME": str(home)}, manager)


@pytest.mark.parametrize("name", ["quorum", "quörum %h $x", "qu\"or'um"])
def test_systemds_own_checker_accepts_the_unit(tmp_path: Path, name: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    program = tmp_path / "a b" / name
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    made = unit(tmp_path, Manager(), [str(program), *ODD[1:]])
    made.install()

    assert verified(made.path, tmp_path) == (0, "")
    made.path.write_text(made.text().replace("NoNewPrivileges", "NoNewPrivilege"))
    assert "NoNewPrivilege" in verified(made.path, tmp_path)[1]  # it does look


def verified(path: Path, runtime: Path) -> tuple[int, str]:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", str(path)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, "".join(line for line in done.stderr.splitlines(True) if UNIT in line)


def test_every_letter_of_the_command_stands_for_itself(tmp_path: Path) -> None:
    text = unit(tmp_path, Manager()).text()

    assert 'ExecStart="/opt/a b/quörum" "serve" "--data-dir" "/home/x/100%% \\"of\\" $$HOME\\\\"' in text
    assert "WantedBy=default.target" in text
    assert "NoNewPrivileges=yes" in text
    for spoils_the_gpu in ("MemoryDenyWriteExecute", "PrivateDevices", "DevicePolicy", "SystemCallFilter"):
        assert spoils_the_gpu not in text


def test_installing_writes_enables_and_starts_and_again_changes_nothing(tmp_path: Path) -> None:
    manager = Manager()
    made = unit(tmp_path, manager)

    assert made.install() == ["It runs while you are logged in. To run it always: loginctl enable-linger"]
    first = made.path.read_bytes()
    manager.said = "yes"
    assert made.install() == []
    assert made.path.read_bytes() == first
    assert manager.asked[:3] == [
        "systemctl --user daemon-reload",
        f"systemctl --user enable {UNIT}",
        f"systemctl --user restart {UNIT}",
    ]
    assert made.status().ours
    assert [path.name for path in made.path.parent.iterdir()] == [UNIT]


def test_without_a_running_systemd_the_unit_is_written_and_the_rest_told(tmp_path: Path) -> None:
    made = unit(tmp_path, Manager(daemon_reload=1, is_active=1, is_enabled=1))

    assert made.install() == [
        f"systemd does not answer here; in a session of yours run: systemctl --user enable --now {UNIT}"
    ]
    status = made.status()
    assert (status.written, status.ours, status.enabled, status.running) == (True, True, False, False)


def test_a_refusal_is_told(tmp_path: Path) -> None:
    manager = Manager(restart=1)
    manager.said = "Job failed."

    with pytest.raises(OSError, match="Job failed"):
        unit(tmp_path, manager).install()


def test_removing_stops_it_and_twice_is_fine(tmp_path: Path) -> None:
    manager = Manager(is_active=3, is_enabled=1)
    made = unit(tmp_path, manager)
    made.install()
    made.remove()
    made.remove()

    assert f"systemctl --user disable --now {UNIT}" in manager.asked
    assert not made.status().written


def test_a_unit_of_another_command_is_seen(tmp_path: Path) -> None:
    unit(tmp_path, Manager(), ["/elsewhere/quorum", "serve"]).install()

    status = unit(tmp_path, Manager()).status()
    assert (status.written, status.ours) == (True, False)


def test_the_agent_starts_the_node_again_when_it_fails(tmp_path: Path) -> None:
    manager = Manager()
    manager.said = "state = running"
    agent = LaunchAgent(ODD, tmp_path, manager)

    assert agent.install() == ["It runs while you are logged in."]
    told = plistlib.loads(agent.path.read_bytes())
    assert (told["Label"], told["ProgramArguments"], told["KeepAlive"]) == (LABEL, ODD, {"SuccessfulExit": False})
    assert told["EnvironmentVariables"] == {"QUORUM_SERVICE": "1"}
    assert agent.status().running
    agent.remove()
    agent.remove()
    assert not agent.path.exists()
    assert any(asked.startswith("launchctl bootout gui/") for asked in manager.asked)


def test_an_agent_that_launchd_refuses_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="launchd refused it"):
        LaunchAgent(ODD, tmp_path, Manager(bootstrap=5)).install()


@pytest.mark.parametrize("usual", [False, True])
def test_the_command_serves_on_the_data_folder(tmp_path: Path, usual: bool) -> None:
    folder = autostart.usual_data_dir() if usual else tmp_path
    words = command(folder)

    assert words[-3:] == ["serve", "--data-dir", str(folder)]
    assert "--hidden" not in words
    assert run([*words[:-3], "--version"])[1].startswith("quorum ")


def test_a_tool_that_is_not_there_is_an_exit_code() -> None:
    assert run(["no-such-tool-here"]) == (127, "")
