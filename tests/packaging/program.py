"""A frozen Quorum as a person starts it: as a normal user, in an environment with nothing of a developer's in it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

BOUND_S = 60.0
QUIET = {"QUORUM_FIND_MODELS": "0", "QUORUM_ENGINES": "http://127.0.0.1:9"}

LOOK = """document.querySelector("main textarea:not(:disabled)") ? "usable" : document.body.innerText"""

BUS = """<busconfig><type>session</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/>
<allow eavesdrop="true"/></policy></busconfig>"""


class Bus:
    """A session bus of which the test, as root, may be a part beside the user."""

    def __init__(self, folder: Path) -> None:
        path = Path("/tmp") / f"quorum-bus-{os.getpid()}-{time.monotonic_ns()}"  # noqa: S108 # short, for all users
        config = folder / "bus.xml"
        config.write_text(BUS.format(path=path))
        self.address = f"unix:path={path}"
        self._path = path
        self._daemon = subprocess.Popen(
            ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address=1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._daemon.stdout is not None
        assert self._daemon.stdout.readline()
        path.chmod(0o777)

    def close(self) -> None:
        self._daemon.terminate()
        self._daemon.wait(10)
        assert self._daemon.stdout is not None
        self._daemon.stdout.close()
        self._path.unlink(missing_ok=True)


@dataclass(frozen=True)
class User:
    """A user of this machine, made for the tests."""

    name: str
    home: Path

    @classmethod
    def make(cls, name: str) -> User:
        home = Path("/home") / f"{name} 中文"
        command = ["useradd", "--badname", "--create-home", "--home-dir", str(home), name]
        subprocess.run(command, check=True, capture_output=True)
        return cls(name, home)

    def remove(self) -> None:
        # Not --remove: userdel refuses homes that it finds odd.
        subprocess.run(["userdel", self.name], check=False, capture_output=True)
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def uid(self) -> int:
        return pwd.getpwnam(self.name).pw_uid

    @property
    def command(self) -> list[str]:
        """What stands before a command that this user runs."""
        entry = pwd.getpwnam(self.name)
        return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", "--"]

    def empty_home(self) -> Path:
        """A further home of the same user, in which nothing is remembered."""
        path = self.home / f"home {time.monotonic_ns()}"
        path.mkdir()
        os.chown(path, self.uid, pwd.getpwnam(self.name).pw_gid)
        return path


@dataclass(frozen=True)
class Frozen:
    """One copy of the frozen program."""

    program: Path

    def run(
        self, *arguments: str, user: User | None = None, timeout_s: float = BOUND_S, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end with ``environ`` and nothing else in its environment."""
        command = [*(user.command if user else ()), str(self.program), *arguments]
        return subprocess.run(
            command, env=environ, cwd="/", capture_output=True, text=True, timeout=timeout_s, check=False
        )

    @contextlib.asynccontextmanager
    async def started(
        self, *arguments: str, home: Path, user: User | None = None, **environ: str
    ) -> AsyncIterator[Run]:
        """The program running, ended in order at last."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            debugging = free.getsockname()[1]
        environ = {"HOME": str(home), "QTWEBENGINE_REMOTE_DEBUGGING": f"127.0.0.1:{debugging}"} | QUIET | environ
        process = await asyncio.create_subprocess_exec(
            *(user.command if user else ()),
            str(self.program),
            "--port",
            "0",
            *arguments,
            env=environ,
            cwd="/",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        run = Run(process, home / ".local" / "share" / "quorum", debugging)
        reader = asyncio.ensure_future(run.read())
        try:
            yield run
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), 30)
            except TimeoutError:
                process.kill()
            await reader


class Run:
    """A running program and the way to its node."""

    def __init__(self, process: asyncio.subprocess.Process, data_dir: Path, debugging: int) -> None:
        self.process = process
        self.data_dir = data_dir
        self.debugging = debugging
        self.printed = ""
        self._moved = asyncio.Event()
        self._silent = False

    async def read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.printed += line.decode(errors="replace")
            self._moved.set()
        self._silent = True
        self._moved.set()

    async def says(self, text: str) -> None:
        """Wait until it has printed ``text``."""
        deadline = time.monotonic() + BOUND_S
        while text not in self.printed:
            self._moved.clear()
            assert not self._silent, f"it ended: {self.printed}"
            try:
                await asyncio.wait_for(self._moved.wait(), deadline - time.monotonic())
            except TimeoutError:
                raise AssertionError(f"it never said '{text}': {self.printed}") from None

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the control surface; the decoded answer."""
        address = urlsplit(json.loads((self.data_dir / "node.json").read_text())["address"])
        token = (self.data_dir / "control.token").read_text()
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=BOUND_S)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status < 300, content
            return json.loads(content or b"null")
        finally:
            connection.close()

    async def window_is_usable(self) -> None:
        """Wait until the page has signed in and shows where to type: Chromium's remote port tells."""
        deadline = time.monotonic() + BOUND_S
        shown = ""
        while shown != "usable":
            assert self.process.returncode is None, f"it ended: {self.printed}"
            assert time.monotonic() < deadline, f"the window shows '{shown}': {self.printed}"
            shown = await self._shown()

    async def _shown(self) -> str:
        """``usable``, or the words of the page."""
        address = f"http://127.0.0.1:{self.debugging}"
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
                async with session.get(f"{address}/json") as answer:
                    pages = await answer.json(content_type=None)
                async with session.ws_connect(next(page["webSocketDebuggerUrl"] for page in pages)) as socket:
                    await socket.send_json({"id": 1, "method": "Runtime.evaluate", "params": {"expression": LOOK}})
                    return str((await socket.receive_json())["result"]["result"].get("value"))
        # a page that is replaced closes the socket: what comes is no JSON
        except (aiohttp.ClientError, OSError, StopIteration, RuntimeError, TypeError) as error:
            return type(error).__name__

    async def node(self) -> None:
        """Wait until the node listens."""
        await self.says("listening at")

    async def until(self, path: str, true: Any) -> Any:
        """Ask ``path`` at each news of the node until ``true`` holds for its answer."""
        deadline = time.monotonic() + BOUND_S
        while True:
            answer = await asyncio.to_thread(self.call, "GET", path)
            if true(answer):
                return answer
            assert time.monotonic() < deadline, f"{path}: {answer}"
            await asyncio.to_thread(self._news)

    def _news(self) -> None:
        """Wait for the next change that the node tells its pages, or a second."""
        address = urlsplit(json.loads((self.data_dir / "node.json").read_text())["address"])
        token = (self.data_dir / "control.token").read_text()
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=1)
        try:
            connection.request("GET", "/local/v1/events", headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            for line in answer:
                if line.startswith(b"event: change"):
                    return
        except OSError:
            return
        finally:
            connection.close()
