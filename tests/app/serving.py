"""A real ``quorum serve`` in a process of its own, for the tests of the commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent.parent
QUIET = {"QUORUM_ENGINES": "http://127.0.0.1:9/v1", "QUORUM_FIND_MODELS": "0"}  # nothing of this computer is found


def environment(**more: str) -> dict[str, str]:
    """This environment without settings of Quorum but ``more``."""
    return {name: value for name, value in os.environ.items() if not name.startswith("QUORUM_")} | more


class Serving:
    """One node; ``quorum`` runs a command against it."""

    def __init__(self, data_dir: Path, process: subprocess.Popen[str], lines: list[str]) -> None:
        self.data_dir = data_dir
        self.process = process
        self.lines = lines

    @property
    def address(self) -> str:
        return str(json.loads((self.data_dir / "node.json").read_text())["address"])

    def quorum(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "app", *arguments, "--data-dir", str(self.data_dir)],
            cwd=ROOT,
            env=environment(),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        done = self.quorum(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


def _start(
    data_dir: Path, arguments: tuple[str, ...], environ: dict[str, str], stderr: IO[str]
) -> subprocess.Popen[str]:
    ports = ("--port", "0", "--peer-port", "0", "--no-discovery")
    return subprocess.Popen(
        [sys.executable, "-m", "app", "serve", *ports, *arguments, "--data-dir", str(data_dir)],
        cwd=ROOT,
        env=environment(**QUIET) | environ,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


@contextmanager
def serving(data_dir: Path, *arguments: str, **environ: str) -> Iterator[Serving]:
    """A node that has printed its two lines."""
    told = data_dir.parent / "serve.stderr"
    with told.open("w") as stderr:
        process = _start(data_dir, arguments, environ, stderr)
    watchdog = threading.Timer(30, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        watchdog.cancel()
        assert lines[1], told.read_text()
        yield Serving(data_dir, process, lines)
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout is not None:
            process.stdout.close()
