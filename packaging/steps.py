"""Steps of dev.py: each done once, one line on the screen, its output in a log, a stamp after success only.

Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

MADE = {"node_modules", "__pycache__"}
Make = Callable[[IO[str]], object]


class StepError(Exception):
    """A step can't be done; ``hint`` says what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def digest_of(*parts: str | Path) -> str:
    """One digest over texts, files and folders (without what is made in them); a file that is absent counts so."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(f"text {part}\n".encode())
            continue
        files = sorted(p for p in part.rglob("*") if not MADE.intersection(p.parts)) if part.is_dir() else [part]
        for file in files:
            if file.is_file():
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                digest.update(f"file {file.relative_to(part)} {content}\n".encode())
    return digest.hexdigest()


class Steps:
    """Runs the steps that are not done yet; stamps and logs lie in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stamps = folder / "stamps"
        self.logs = folder / "log"

    def fresh(self, name: str, digest: str) -> bool:
        """Whether the step ``name`` succeeded for ``digest`` last."""
        stamp = self.stamps / name
        return stamp.is_file() and stamp.read_text("utf-8") == digest

    def write(self, name: str, digest: str) -> None:
        """Note that ``name`` is done for ``digest``."""
        self.stamps.mkdir(parents=True, exist_ok=True)
        temporary = self.stamps / f".{name}"
        temporary.write_text(digest, "utf-8")
        temporary.replace(self.stamps / name)

    def drop(self, *names: str) -> None:
        """Forget that ``names`` were done."""
        for name in names:
            (self.stamps / name).unlink(missing_ok=True)

    def do(
        self, name: str, title: str, digest: str, make: Make, ready: Callable[[], bool] = lambda: True
    ) -> bool:  # fmt: skip
        """Do the step unless its stamp shows ``digest`` and it is ``ready``; True when it was done now."""
        if self.fresh(name, digest) and ready():
            return False
        self.drop(name)
        self.run(name, title, make)
        self.write(name, digest)
        return True

    def run(self, name: str, title: str, make: Make) -> None:
        """Do a step without a stamp. Raises SystemExit that says what failed, what to do, and where the log lies."""
        self.logs.mkdir(parents=True, exist_ok=True)
        path = self.logs / f"{name}.log"
        print(f"  {title} ...", end="", flush=True)
        started = time.monotonic()
        try:
            with path.open("w", encoding="utf-8") as log:
                make(log)
        except (StepError, OSError) as error:
            tail = "".join(f"    {line}\n" for line in path.read_text("utf-8", "replace").splitlines()[-12:])
            hint = getattr(
                error, "hint", "Check the space on the disk and the rights on this folder, then start again."
            )
            print(f" failed after {time.monotonic() - started:.1f} s\n{tail}", flush=True)
            raise SystemExit(f"{title} failed: {error}\nWhat to do: {hint}\nFull output: {path}") from error
        print(f" {time.monotonic() - started:.1f} s", flush=True)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """One set-up at a time in this clone; a second one waits and says so."""
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            if os.name == "posix":
                import fcntl

                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    print("  another dev.py is at work in this clone; waiting for it", flush=True)
                    fcntl.flock(lock, fcntl.LOCK_EX)
            else:
                _wait_for_lock_of_windows(lock)
            yield


def _wait_for_lock_of_windows(lock: IO[str]) -> None:
    msvcrt: Any = importlib.import_module("msvcrt")
    told = False
    while True:
        try:
            msvcrt.locking(lock.fileno(), msvcrt.LK_LOCK, 1)  # gives up after 10 s
        except OSError:
            if not told:
                print("  another dev.py is at work in this clone; waiting for it", flush=True)
            told = True
        else:
            return


def clean_environment(**more: str) -> dict[str, str]:
    """This environment without what would lead pip or Python elsewhere."""
    astray = {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "VIRTUAL_ENV"}
    kept = {name: value for name, value in os.environ.items() if name not in astray}
    return kept | {"PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"} | more


def call(
    command: Sequence[str | Path],
    log: IO[str],
    hint: str,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run ``command`` with its output in ``log``. Raises StepError."""
    log.write(f"$ {' '.join(map(str, command))}\n")
    log.flush()
    done = subprocess.run(
        list(map(str, command)),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=dict(env or clean_environment()),
        cwd=cwd,
        check=False,
    )
    if done.returncode != 0:
        raise StepError(f"{Path(command[0]).name} ended with code {done.returncode}", hint)


def output_of(*command: str | Path) -> str:
    """What ``command`` prints; empty when it fails."""
    try:
        return subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=True, env=os.environ | {"LC_ALL": "C"}
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
