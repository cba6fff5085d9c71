"""A node in a process of its own, which a test may kill."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).resolve().parent.parent.parent
START_S = 60.0


class NodeProcess:
    """``async with NodeProcess(folder, engine.url) as node``; ``kill`` is SIGKILL, ``start`` starts it again."""

    def __init__(self, folder: Path, *engines: str, **environ: str) -> None:
        self.data_dir = folder / "data"
        self.address = ""
        self._folder = folder
        settings = {
            "QUORUM_ENGINES": ",".join(engines) or "http://127.0.0.1:9/v1",
            "QUORUM_BUILTIN_ENGINE": "0",
            "QUORUM_FIND_MODELS": "0",
            "HOME": str(folder / "home"),
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("QUORUM_")}
        self._environ = kept | settings | environ
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it answers."""
        ports = ("--port", "0", "--peer-port", "0", "--no-discovery")
        with (self._folder / "node.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "app", "serve", *ports, "--data-dir", str(self.data_dir)),
                cwd=ROOT,
                env=self._environ,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_S):
            lines = [await self._process.stdout.readline() for _ in range(2)]
        assert lines[1], (self._folder / "node.log").read_text()
        self.address = str(json.loads((self.data_dir / "node.json").read_text())["address"])

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP freezes it, SIGCONT wakes it."""
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self) -> None:
        """End it as the power would."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def __aenter__(self) -> NodeProcess:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(START_S):
                    await self._process.wait()
            except TimeoutError:
                await self.kill()
        if self._process is not None:
            self._process._transport.close()  # type: ignore[attr-defined]


async def answer(http: aiohttp.ClientSession, method: str, url: str, **kwargs: Any) -> Any:
    """One call's JSON."""
    async with http.request(method, url, **kwargs) as reply:
        return await reply.json()
