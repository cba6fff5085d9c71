"""Computers of a test: network namespaces on one bridge, in each a real node and a scripted engine.

The engines run in the test's own loop; only their sockets lie in the namespaces.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
import psutil
import pytest

from tests.fakes import ScriptedEngine

ROOT = Path(__file__).resolve().parent.parent.parent
START_S = 60.0
STOP_S = 20.0
SEEN_S = 20.0
PORT = 7411
PEER_PORT = 7412
T = TypeVar("T")


def why_not() -> str:
    """Why this computer can't have namespaces; empty when it can."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "there is no 'ip': apt-get install iproute2"
    probe = f"qtry{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return f"no network namespaces here: {made.stderr.strip()}"
    run("ip", "netns", "del", probe)
    return ""


def needs_nft() -> None:
    """Skip by name where packets can't be dropped."""
    if shutil.which("nft") is None:
        pytest.skip("there is no 'nft': apt-get install nftables")


def run(*words: str) -> str:
    """One command of the system; what it prints."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


def inside(namespace: str, make: Callable[[], T]) -> T:
    """Run ``make`` on a thread that has entered ``namespace``: sockets it makes stay there."""
    made: list[T] = []
    failed: list[BaseException] = []

    def enter() -> None:
        try:
            with Path(f"/var/run/netns/{namespace}").open("rb") as file:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(file.fileno(), 0) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(make())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


class EngineInside(ScriptedEngine):
    """A scripted engine on the loopback of a namespace."""

    def __init__(self, namespace: str, *models: str) -> None:
        super().__init__(*models)
        self._namespace = namespace

    async def __aenter__(self) -> EngineInside:
        listening = inside(self._namespace, lambda: socket.create_server(("127.0.0.1", 0)))
        self._server = await asyncio.start_server(self._serve, sock=listening)
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        return self


class Computer:
    """One namespace with one node; ``engine`` is the only one it knows."""

    def __init__(self, net: Net, name: str, number: int, engine: ScriptedEngine, folder: Path) -> None:
        self.name = name
        self.namespace = f"{net.prefix}{number}"
        self.address = f"10.77.0.{number}"
        self.engine = engine
        self.data_dir = folder / "data"
        self._folder = folder
        self._net = net
        self._link = f"{net.prefix}l{number}"
        self._process: asyncio.subprocess.Process | None = None
        self._http: aiohttp.ClientSession | None = None
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith(("QUORUM_", "DBUS_"))}
        self._environ |= {
            "QUORUM_ENGINES": engine.url,
            "QUORUM_BUILTIN_ENGINE": "0",
            "QUORUM_FIND_MODELS": "0",
            "HOME": str(folder / "home"),
            "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
        }

    # -- its node

    async def start(self, *arguments: str, **environ: str) -> None:
        """Start the node and wait until it answers."""
        with (self._folder / "node.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *("ip", "netns", "exec", self.namespace, sys.executable, "-m", "app", "serve"),
                *("--data-dir", str(self.data_dir), "--name", self.name, *arguments),
                cwd=ROOT,
                env=self._environ | environ,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_S):
            lines = [await self._process.stdout.readline() for _ in range(2)]
        assert lines[1], self.log
        if self._http is None:
            connector = aiohttp.TCPConnector(
                socket_factory=lambda info: inside(self.namespace, lambda: _plain(*info[:3])), force_close=True
            )
            self._http = aiohttp.ClientSession(f"http://127.0.0.1:{PORT}", connector=connector, trust_env=False)

    @property
    def log(self) -> str:
        return (self._folder / "node.log").read_text()

    def signal(self, number: signal.Signals) -> None:
        """As ``kill`` does: SIGKILL is the power cut, SIGSTOP the freeze."""
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self) -> None:
        """End it without a word."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        await self._process.wait()

    async def stop(self) -> None:
        """End it in order, or without when it does not."""
        if self._process is not None and self._process.returncode is None:
            self.signal(signal.SIGCONT)
            self._process.terminate()
            try:
                async with asyncio.timeout(STOP_S):
                    await self._process.wait()
            except TimeoutError:
                await self.kill()

    async def close(self) -> None:
        """The node ends, and the test's connections to it."""
        await self.stop()
        if self._process is not None:
            self._process._transport.close()  # type: ignore[attr-defined]
        if self._http is not None:
            await self._http.close()

    # -- its cable

    def cut(self) -> None:
        """The cable is out."""
        run("ip", "-n", self._net.switch, "link", "set", self._link, "down")

    def mend(self) -> None:
        """The cable is in again."""
        run("ip", "-n", self._net.switch, "link", "set", self._link, "up")

    def filter(self, *rules: str) -> None:
        """What it does with packets that come in from now on, as nftables says it; nothing: it takes all."""
        said = "table inet faults {}\ndelete table inet faults\n"
        if rules:
            lines = "".join(f"    {rule}\n" for rule in rules)
            said += f"""table inet faults {{
  chain in {{
    type filter hook input priority 0; policy accept;
    iif lo accept
{lines}  }}
}}
"""
        command = ["ip", "netns", "exec", self.namespace, "nft", "-f", "-"]
        done = subprocess.run(command, input=said, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def join(self, switch: str, device: str, address: str) -> None:
        """Another network card, in the network ``switch`` of the same test."""
        link = f"{self._link}{device[:2]}"
        run(*f"ip -n {self._net.switch} link add {link} type veth peer name {device} netns {self.namespace}".split())
        run(*f"ip -n {self._net.switch} link set {link} master {switch} up".split())
        run(*f"ip -n {self.namespace} addr add {address}/24 dev {device}".split())
        run(*f"ip -n {self.namespace} link set {device} up".split())

    @property
    def memory_bytes(self) -> int:
        """What its node takes."""
        assert self._process is not None
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def move(self, address: str) -> None:
        """The network gives it another address."""
        run("ip", "-n", self.namespace, "addr", "del", f"{self.address}/24", "dev", "eth0")
        run("ip", "-n", self.namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        self.address = address

    # -- what people and programs do on it

    async def quorum(self, *arguments: str, stdin: str = "") -> str:
        """One command that must succeed; its stdout."""
        code, out, err = await self.command(*arguments, stdin=stdin)
        assert code == 0, f"quorum {' '.join(arguments)}: {out}{err}\n{self.log}"
        return out

    async def command(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """One command; its exit code, stdout and stderr."""
        process = await self.spawn(*arguments)
        async with asyncio.timeout(START_S):
            out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def spawn(self, *arguments: str) -> asyncio.subprocess.Process:
        """One command that goes on."""
        return await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", self.namespace, sys.executable, "-m", "app", *arguments),
            *("--data-dir", str(self.data_dir)),
            cwd=ROOT,
            env=self._environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def json(self, *arguments: str) -> Any:
        return json.loads(await self.quorum(*arguments, "--json"))

    @property
    def http(self) -> aiohttp.ClientSession:
        """Programs on this computer."""
        assert self._http is not None
        return self._http

    @property
    def control(self) -> dict[str, str]:
        """The headers of its page."""
        return {"Authorization": f"Bearer {(self.data_dir / 'control.token').read_text()}"}

    async def look(self, path: str) -> Any:
        """One read of the control surface."""
        async with self.http.get(f"/local/v1/{path}", headers=self.control) as reply:
            assert reply.status == 200, await reply.text()
            return await reply.json()

    async def until(self, holds: Callable[[dict[str, Any]], bool], within_s: float = SEEN_S) -> dict[str, Any]:
        """Follow what its page is told until ``holds`` is true of it."""
        seen: dict[str, Any] = {}
        try:
            async with asyncio.timeout(within_s), self.http.get("/local/v1/events", headers=self.control) as reply:
                async for line in reply.content:
                    if line.startswith(b"data: "):
                        told = json.loads(line[6:])
                        seen |= {part: value for part, value in told.items() if value is not None}
                        if holds(seen):
                            return seen
        except TimeoutError:
            raise AssertionError(f"not within {within_s:g} s: {json.dumps(seen.get('peers'))}\n{self.log}") from None
        raise AssertionError(f"its events ended\n{self.log}")

    async def peer_is(self, other: Computer, state: str, within_s: float = SEEN_S) -> dict[str, Any]:
        """Wait until this computer says that of ``other``."""

        def says(seen: dict[str, Any]) -> bool:
            return any(peer["name"] == other.name and peer["state"] == state for peer in seen.get("peers", ()))

        seen = await self.until(says, within_s)
        return next(peer for peer in seen["peers"] if peer["name"] == other.name and peer["state"] == state)

    async def offers(self, model: str, node_name: str, within_s: float = SEEN_S) -> None:
        """Wait until ``model`` at that computer can be asked for here."""
        await self.until(
            lambda seen: any(
                m["name"].startswith(model) and m["node_name"] == node_name and not m["problem"]
                for m in seen.get("models", ())
            ),
            within_s,
        )


def _plain(family: int, kind: int, protocol: int) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    return made


class Net:
    """A bridge in a namespace of its own and the computers on it."""

    def __init__(self, folder: Path) -> None:
        self.prefix = f"q{os.getpid() % 100_000}n"
        self.switch = f"{self.prefix}0"
        self._folder = folder
        self._namespaces: list[str] = []
        self._stack = AsyncExitStack()
        self._computers: list[Computer] = []

    async def __aenter__(self) -> Net:
        self._add_namespace(self.switch)
        run("ip", "-n", self.switch, "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0")
        run("ip", "-n", self.switch, "link", "set", "bridge", "up")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(computer.close() for computer in self._computers))
        await self._stack.aclose()
        for namespace in reversed(self._namespaces):
            run("ip", "netns", "del", namespace)

    def another(self, switch: str) -> str:
        """One more network, to which nobody belongs yet."""
        run("ip", "-n", self.switch, "link", "add", switch, "type", "bridge", "mcast_snooping", "0")
        run("ip", "-n", self.switch, "link", "set", switch, "up")
        return switch

    def _add_namespace(self, name: str) -> None:
        run("ip", "netns", "add", name)
        self._namespaces.append(name)
        run("ip", "-n", name, "link", "set", "lo", "up")

    async def computer(self, name: str, *models: str) -> Computer:
        """A new computer whose engine has ``models``; its node is not started."""
        number = len(self._computers) + 1
        namespace, link = f"{self.prefix}{number}", f"{self.prefix}l{number}"
        self._add_namespace(namespace)
        run(*f"ip -n {self.switch} link add {link} type veth peer name eth0 netns {namespace}".split())
        run(*f"ip -n {self.switch} link set {link} master bridge up".split())
        run(*f"ip -n {namespace} addr add 10.77.0.{number}/24 dev eth0".split())
        run(*f"ip -n {namespace} link set eth0 up".split())
        engine = await self._stack.enter_async_context(EngineInside(namespace, *models))
        folder = self._folder / name
        (folder / "home").mkdir(parents=True)
        made = Computer(self, name, number, engine, folder)
        self._computers.append(made)
        return made


@asynccontextmanager
async def network(folder: Path) -> AsyncIterator[Net]:
    """A bridge without computers; skips by name where that can't be."""
    if reason := why_not():
        pytest.skip(reason)
    async with Net(folder) as net:
        yield net
