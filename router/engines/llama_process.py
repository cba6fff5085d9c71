"""One child process of the built-in engine as its parent sees it: started, listened to, asked for health, ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import secrets
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from pathlib import Path
from typing import Final

from yarl import URL

from router.aio import Tasks
from router.engines.llama_child import Orders, Word
from router.engines.transport import Transport
from router.errors import EngineFault

log = logging.getLogger(__name__)

ROOT: Final = Path(__file__).resolve().parents[2]
LOG_LINES: Final = 400
LOG_CHARACTERS: Final = 256
HEALTH_INTERVAL_S: Final = 5.0
HEALTH_TIMEOUT_S: Final = 3.0
HEALTH_MISSES: Final = 3
END_S: Final = 2.0

# Once a model serves, lines of other forms may quote what users wrote or the model answered.
_HARMLESS: Final = re.compile(
    r"(print_timing|release|launch_slot_|get_availabl|\blistening on\b|cleaning up|update_slots: all slots are idle"
    r"|GGML_ASSERT|ggml_abort|out of memory|CUDA error|terminate called|Invalid API Key|n_past)"
)
_STAMP: Final = re.compile(r"^[0-9.]{5,20} [IWED] ")
_REASON: Final = re.compile(r"(?:error loading model|error): (?P<reason>.+)$")


def child_argv() -> list[str]:
    """The command that starts a child: the program itself when frozen, else this module's neighbour."""
    if getattr(sys, "frozen", False):
        return [sys.executable, "--engine-child"]
    return [sys.executable, "-m", "router.engines.llama_child"]


def new_key() -> str:
    """A key for one start of one child."""
    return secrets.token_urlsafe(32)


class Child:
    """One running child. ``ended`` is set as soon as the process is gone, for whatever reason."""

    def __init__(self, name: str, tasks: Tasks, transport: Transport) -> None:
        self.name = name
        self.ended = asyncio.Event()
        self.expected = False  # whether its end was asked for
        self.crashed = False  # it ended on its own, without saying why
        self.frozen = False
        self.address = ""
        self.headers: dict[str, str] = {}
        self.lines: deque[str] = deque(maxlen=LOG_LINES)
        self._tasks = tasks
        self._transport = transport
        self._process: Process | None = None
        self._word: asyncio.Future[Word] = asyncio.get_running_loop().create_future()
        self._serving = False

    @property
    def pid(self) -> int:
        """Process id; 0 before the start."""
        return self._process.pid if self._process else 0

    async def start(self, orders: Orders) -> None:
        """Start the process and give it its orders. Raises EngineFault."""
        self.headers = {"Authorization": f"Bearer {orders['key']}"}
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *child_argv(),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                cwd=None if getattr(sys, "frozen", False) else ROOT,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            raise EngineFault(f"The engine's process can't be started: {error.strerror}.") from error
        self._tasks.spawn(f"log of {self.name}", self._read_log(process))
        self._tasks.spawn(f"words of {self.name}", self._read_words(process))
        assert process.stdin is not None  # noqa: S101 - PIPE was asked for; this tells the type checker
        with contextlib.suppress(OSError):
            process.stdin.write(json.dumps(orders).encode() + b"\n")
            await process.stdin.drain()

    async def ready(self) -> None:
        """Wait until it serves. Raises EngineFault when it can't load, or ended instead."""
        word = await asyncio.shield(self._word)
        if word.get("event") != "ready":
            said = word.get("event") == "failed"
            raise EngineFault(f"The model '{self.name}' can't be loaded: {self._reason(word)}.", lasting=said)
        self.address = word["address"]
        self._serving = True

    def url(self, path: str) -> URL:
        """An address of the child's server."""
        return URL(f"{self.address}/{path}", encoded=True)

    async def watch(self, interval_s: float = HEALTH_INTERVAL_S, timeout_s: float = HEALTH_TIMEOUT_S) -> None:
        """Ask for its health until it ends; kill it when it is frozen."""
        misses = 0
        while not self.ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), interval_s if misses == 0 else timeout_s / 4)
            if self.ended.is_set():
                return
            try:
                status, _ = await self._transport.json("GET", self.url("health"), timeout_s=timeout_s)
                misses = 0 if status == 200 else misses + 1
            except EngineFault:
                misses += 1
            if misses >= HEALTH_MISSES and not self.ended.is_set():
                log.warning("the engine of %s does not answer: its process is ended", self.name)
                self.frozen = True
                self.kill()
                return

    def kill(self) -> None:
        """End the process at once; ``ended`` follows."""
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if sys.platform == "win32":
                self._process.kill()
            else:  # Process.kill() first asks for the exit status and so takes it away from the loop
                os.kill(self._process.pid, signal.SIGKILL)

    async def close(self) -> None:
        """Ask the process to end, then make it end; at most about 2 s."""
        self.expected = True
        if self._process is None:
            self.ended.set()
            return
        assert self._process.stdin is not None  # noqa: S101 - see start
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self.ended.wait(), END_S)
        except TimeoutError:
            self.kill()
            await self.ended.wait()

    def how(self) -> str:
        """How the process ended, for people."""
        code = self._process.returncode if self._process else None
        if self.frozen:
            return "it did not answer any more and was ended"
        if code is not None and code < 0:
            return f"it was ended by {_signal(-code)}"
        return f"it ended with code {code}"

    async def _read_words(self, process: Process) -> None:
        assert process.stdout is not None  # noqa: S101 - see start
        try:
            while line := await process.stdout.readline():
                if not self._word.done():
                    self._word.set_result(json.loads(line))
            await asyncio.wait_for(process.wait(), END_S)
        except (ValueError, TimeoutError):  # it speaks otherwise, or lives on without a voice
            self.kill()
            await process.wait()
        finally:
            if process.returncode is None:
                self.kill()
            said = self._word.result().get("event") if self._word.done() else "ended"
            self.crashed = not self.expected and said != "failed"
            self.ended.set()
            if not self._word.done():
                self._word.set_result({"event": "ended"})

    async def _read_log(self, process: Process) -> None:
        assert process.stderr is not None  # noqa: S101 - see start
        rest = b""
        while data := await process.stderr.read(2**16):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-4096:]
            for line in lines:
                self._log(line)
        self._log(rest)

    def _log(self, raw: bytes) -> None:
        text = raw[: 4 * LOG_CHARACTERS].decode("utf-8", "replace").strip()
        if not text:
            return
        if self._serving and not _HARMLESS.search(text):
            stamp = _STAMP.match(text)
            text = f"{stamp[0] if stamp else ''}(a line of the engine, withheld)"
        line = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)[:LOG_CHARACTERS]
        self.lines.append(line)
        log.debug("engine %s: %s", self.name, line)

    def _reason(self, word: Word) -> str:
        if word.get("event") == "ended":
            return self.how()
        found = [match["reason"] for line in self.lines if (match := _REASON.search(line))]
        return (found[0] if found else word.get("message") or "the engine gives no reason").rstrip(".")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
