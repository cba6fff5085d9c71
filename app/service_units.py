"""Quorum as a service of one user: a systemd user unit on Linux, a LaunchAgent on macOS."""

from __future__ import annotations

import os
import plistlib
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from app import autostart
from app.others import environment

UNIT: Final = "quorum.service"
LABEL: Final = "io.github.quorum.service"
MANAGER_S: Final = 60.0

Run = Callable[[Sequence[str]], tuple[int, str]]
"""Run a command of the system; its exit code and what it said. 127 where there is none."""


@dataclass(frozen=True)
class Status:
    """``written``: the file is there; ``ours``: it starts this very program on this data folder."""

    path: Path
    written: bool
    ours: bool
    enabled: bool
    running: bool


class Manager(Protocol):
    """One system's services. Methods may raise OSError."""

    def status(self) -> Status: ...

    def install(self) -> list[str]:
        """Write, enable and start it; what is left for the user to do, as sentences."""

    def remove(self) -> None:
        """Stop it and take it away; one that isn't there is fine."""


def command(data_dir: Path) -> list[str]:
    """What starts this very program as a node on ``data_dir``."""
    return [*autostart.program(), "serve", "--data-dir", str(data_dir)]


def run(words: Sequence[str]) -> tuple[int, str]:
    """As ``Run`` says."""
    try:
        done = subprocess.run(  # noqa: S603 # the system's own tools with fixed words
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
            timeout=MANAGER_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 127, ""
    return done.returncode, done.stdout.strip()


class SystemdUnit:
    """``~/.config/systemd/user/quorum.service``."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], run: Run = run) -> None:
        self._argv = argv
        self._run = run
        home = Path(environ.get("HOME") or Path.home())
        self.path = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "systemd" / "user" / UNIT

    def text(self) -> str:
        """The unit. Nothing in it keeps an engine from the graphics card or from compiling for it."""
        return f"""\
[Unit]
Description=Quorum: the models on all your computers behind one address
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
ExecStart={_exec_line(self._argv)}
Environment=QUORUM_SERVICE=1
Restart=on-failure
RestartSec=2
TimeoutStopSec=30
KillMode=mixed
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK

[Install]
WantedBy=default.target
"""

    def status(self) -> Status:
        """As systemd tells it."""
        try:
            found = self.path.read_text("utf-8")
        except FileNotFoundError:
            found = ""
        return Status(
            self.path,
            bool(found),
            found == self.text(),
            self._says("is-enabled"),
            bool(found) and self._says("is-active"),
        )

    def install(self) -> list[str]:
        """Writes the unit also where no systemd answers (a container, a login without a session)."""
        _write(self.path, self.text().encode())
        if self._systemctl("daemon-reload")[0] != 0:
            return [f"systemd does not answer here; in a session of yours run: systemctl --user enable --now {UNIT}"]
        code, said = self._systemctl("enable", UNIT)
        if code == 0:
            code, said = self._systemctl("restart", UNIT)
        if code != 0:
            raise OSError(0, said or "systemd refused it", str(self.path))
        if self._run(("loginctl", "show-user", str(_uid()), "--property=Linger", "--value"))[1] == "yes":
            return []
        return ["It runs while you are logged in. To run it always: loginctl enable-linger"]

    def remove(self) -> None:
        """Also where no systemd answers."""
        self._systemctl("disable", "--now", UNIT)
        self.path.unlink(missing_ok=True)
        self._systemctl("daemon-reload")

    def _systemctl(self, *words: str) -> tuple[int, str]:
        return self._run(("systemctl", "--user", *words))

    def _says(self, question: str) -> bool:
        return self._systemctl("--quiet", question, UNIT)[0] == 0


class LaunchAgent:
    """``~/Library/LaunchAgents/io.github.quorum.service.plist``. Proven on macOS only by its own workflow's runs."""

    def __init__(self, argv: Sequence[str], home: Path, run: Run = run) -> None:
        self._argv = list(argv)
        self._run = run
        self.path = home / "Library" / "LaunchAgents" / f"{LABEL}.plist"

    def content(self) -> bytes:
        """The property list."""
        return plistlib.dumps(
            {
                "Label": LABEL,
                "ProgramArguments": self._argv,
                "EnvironmentVariables": {"QUORUM_SERVICE": "1"},
                "RunAtLoad": True,
                "KeepAlive": {"SuccessfulExit": False},
                "ThrottleInterval": 10,
                "ExitTimeOut": 30,
                "Umask": 0o077,
                "ProcessType": "Interactive",  # another kind gets less of the processor
            }
        )

    def status(self) -> Status:
        """As launchd tells it."""
        written = self.path.is_file()
        code, said = self._run(("launchctl", "print", f"{self._domain}/{LABEL}"))
        ours = written and self.path.read_bytes() == self.content()
        return Status(self.path, written, ours, code == 0, code == 0 and "state = running" in said)

    def install(self) -> list[str]:
        """Loaded anew, so that a changed command counts."""
        _write(self.path, self.content())
        self._run(("launchctl", "bootout", f"{self._domain}/{LABEL}"))
        code, said = self._run(("launchctl", "bootstrap", self._domain, str(self.path)))
        if code != 0:
            raise OSError(0, said or "launchd refused it", str(self.path))
        return ["It runs while you are logged in."]

    def remove(self) -> None:
        """Unloaded first."""
        self._run(("launchctl", "bootout", f"{self._domain}/{LABEL}"))
        self.path.unlink(missing_ok=True)

    @property
    def _domain(self) -> str:
        return f"gui/{_uid()}"


def _uid() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _exec_line(argv: Sequence[str]) -> str:
    """The words of ExecStart, each standing for itself: systemd takes no quotes in a program, and ``$`` only there."""
    if any(letter in argv[0] for letter in "\"'\\"):
        argv = ["/usr/bin/env", *argv]
    program, *words = (_quoted(word) for word in argv)
    return " ".join([program, *(word.replace("$", "$$") for word in words)])


def _quoted(word: str) -> str:
    for letter in '\\"':
        word = word.replace(letter, f"\\{letter}")
    return f'"{word.replace("%", "%%")}"'.replace("\n", "\\n")


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".quorum-")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(temporary).chmod(0o644)
    Path(temporary).replace(path)
