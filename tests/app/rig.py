"""Processes the desktop tests need: an X server, a window manager, a session bus, and the desktop itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
BOUND_S = 60.0  # a bound, not a wait: what is slow on a busy computer is not wrong


class Screen:
    """An X server on a free display with a window manager; ``glx`` off is a machine whose OpenGL is broken."""

    def __init__(self, glx: bool = True, size: str = "1280x800") -> None:
        reader, writer = os.pipe()
        command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", f"{size}x24", "-nolisten", "tcp"]
        self._server = subprocess.Popen(
            [*command, *([] if glx else ["-extension", "GLX"])],
            pass_fds=[writer],
            stderr=subprocess.DEVNULL,
        )
        os.close(writer)
        with os.fdopen(reader) as told:
            self.display = f":{told.readline().strip()}"
        self._manager = subprocess.Popen(
            ["openbox"],
            env=os.environ | {"DISPLAY": self.display},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def close(self) -> None:
        for process in (self._manager, self._server):
            process.terminate()
            process.wait(10)

    def freeze(self) -> None:
        """It answers nobody from now on."""
        self._server.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._server.send_signal(signal.SIGCONT)

    def picture(self, target: Path) -> None:
        """A screenshot."""
        subprocess.run(["import", "-display", self.display, "-window", "root", str(target)], check=True, timeout=20)

    def key(self, keys: str) -> None:
        """Press keys, as ``ctrl+plus``."""
        env = os.environ | {"DISPLAY": self.display}
        subprocess.run(["xdotool", "key", "--clearmodifiers", keys], env=env, check=True, timeout=20)

    def type(self, text: str) -> None:
        """Type ``text`` and Return."""
        env = os.environ | {"DISPLAY": self.display}
        subprocess.run(["xdotool", "type", "--delay", "20", text], env=env, check=True, timeout=20)
        self.key("Return")

    def click(self, x: int, y: int) -> None:
        """Click with the left button."""
        env = os.environ | {"DISPLAY": self.display}
        command = ["xdotool", "mousemove", str(x), str(y), "click", "1"]
        subprocess.run(command, env=env, check=True, timeout=20)


class SessionBus:
    """A private session bus."""

    def __init__(self) -> None:
        self._daemon = subprocess.Popen(
            ["dbus-daemon", "--session", "--nofork", "--print-address=1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._daemon.stdout is not None
        self.address = self._daemon.stdout.readline().strip()

    def close(self) -> None:
        self._daemon.terminate()
        self._daemon.wait(10)
        assert self._daemon.stdout is not None
        self._daemon.stdout.close()


def environment(home: Path, screen: Screen | None, bus: SessionBus | None) -> dict[str, str]:
    """A user's environment with nothing of ours in it."""
    dropped = ("QUORUM_", "QT", "DBUS_", "XDG_", "DISPLAY", "WAYLAND_", "BROWSER")
    env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    env |= {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), "XDG_RUNTIME_DIR": str(home)}
    env |= {"DBUS_SESSION_BUS_ADDRESS": bus.address if bus else "disabled:", "QUORUM_BUILTIN_ENGINE": "0"}
    env |= {"QUORUM_ENGINES": "http://127.0.0.1:9", "DBUS_SYSTEM_BUS_ADDRESS": "disabled:"}
    return env | ({"DISPLAY": screen.display} if screen else {})


class Pipe:
    """A named pipe that a program started by the desktop writes to."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_NONBLOCK), "rb", buffering=0)
        self._reader = asyncio.StreamReader()

    async def open(self) -> Pipe:
        protocol = asyncio.StreamReaderProtocol(self._reader)
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, self._file)
        return self

    async def line(self) -> str:
        """The next line, without its end."""
        return (await asyncio.wait_for(self._reader.readline(), BOUND_S)).decode().strip()

    def close(self) -> None:
        self._transport.close()


class Desk:
    """A running desktop; see ``desk.py`` for what it understands."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._errors = bytearray()
        self._readers = [asyncio.ensure_future(self._read_out()), asyncio.ensure_future(self._read_errors())]

    @classmethod
    async def start(
        cls, env: dict[str, str], data_dir: Path, *, hidden: bool = False, fake: dict[str, Any] | None = None
    ) -> Desk:
        """Start a desktop with a fake node, or with the real one when ``fake`` is None."""
        told = json.dumps({"data_dir": str(data_dir), "hidden": hidden, "fake": fake})
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(ROOT / "tests" / "app" / "desk.py"),
            told,
            env=env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        return cls(process)

    async def do(self, name: str, *args: Any) -> Any:
        """Run one command inside and return its answer."""
        number = len(self._answers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([number, name, args]).encode() + b"\n")
        return await asyncio.wait_for(self._answers[number], BOUND_S)

    async def event(self, name: str) -> dict[str, Any]:
        """The next event called ``name``; others before it are forgotten."""
        return await self._event(lambda told: told == name, name)

    async def event_like(self, start: str) -> str:
        """The name of the next event that begins with ``start``."""
        return str((await self._event(lambda told: told.startswith(start), start))["event"])

    async def _event(self, fits: Callable[[str], bool], what: str) -> dict[str, Any]:
        try:
            async with asyncio.timeout(BOUND_S):
                while not fits((event := await self._events.get())["event"]):
                    assert event["event"] != "end", f"the desktop ended: {self.errors}"
                return event
        except TimeoutError:
            raise AssertionError(f"'{what}' did not happen; stderr: {self.errors}") from None

    async def element(self, selector: str) -> None:
        """Wait until the page has an element that ``selector`` finds."""
        mark = f"test saw {selector}"
        await self.do(
            "js",
            f"""(() => {{
              const say = () => document.title = {json.dumps(mark)};
              const look = () => document.querySelector({json.dumps(selector)}) && say();
              if (!look()) {{
                const watch = new MutationObserver(() => look() && watch.disconnect());
                watch.observe(document, {{subtree: true, childList: true, attributes: true}});
              }}
            }})()""",
        )
        await self.event(f"title {mark}")

    @property
    def errors(self) -> str:
        """What it wrote to stderr so far."""
        return self._errors.decode(errors="replace")

    async def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        code = await asyncio.wait_for(self.process.wait(), BOUND_S)
        await asyncio.gather(*self._readers)
        return code

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def send_to_all(self, number: signal.Signals) -> None:
        """To its children too, as a terminal does."""
        os.killpg(self.process.pid, number)

    async def close(self) -> None:
        """End it in any case."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await asyncio.gather(*self._readers)
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def _read_out(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            try:
                told = json.loads(line)
            except ValueError:
                continue  # what the program prints for people
            if "event" in told:
                self._events.put_nowait(told)
            elif "error" in told:
                self._answers[told["answer"]].set_exception(AssertionError(told["error"]))
            else:
                self._answers[told["answer"]].set_result(told["value"])
        self._events.put_nowait({"event": "end"})

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        while part := await self.process.stderr.read(4096):
            self._errors += part
