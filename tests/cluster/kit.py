"""What is done on the computers of a test: pair them, ask, see who answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.cluster.net import Computer
from tests.fakes import BOUND_S

BODY = {"model": "llama", "messages": [{"role": "user", "content": "hello"}], "stream": True}


async def pair(one: Computer, other: Computer) -> None:
    """``other`` shows the digits, ``one`` types them; each may use the other's models."""
    showing = await other.spawn("pair", "--yes", "--json")
    assert showing.stdout is not None
    async with asyncio.timeout(3 * BOUND_S):
        code = json.loads(await showing.stdout.readline())["code"]
    await one.quorum("pair", f"{code}@{other.address}")
    async with asyncio.timeout(3 * BOUND_S):
        out, err = await showing.communicate()
    assert showing.returncode == 0, f"{err.decode()}\n{other.log}"
    assert json.loads(out)["peer_name"] == one.name


class Asking:
    """One streamed request, and afterwards what it got."""

    def __init__(self, computer: Computer, body: dict[str, Any] | None = None) -> None:
        self._computer = computer
        self._body = body or BODY
        self.status = 0
        self.headers: dict[str, str] = {}
        self.got = b""
        self.begun = asyncio.Event()

    async def __call__(self) -> Asking:
        async with self._computer.http.post("/v1/chat/completions", json=self._body) as reply:
            self.status, self.headers = reply.status, dict(reply.headers)
            async for piece in reply.content.iter_any():
                self.got += piece
                self.begun.set()
        return self

    @property
    def text(self) -> str:
        """What the user reads."""
        said = ""
        for line in self.got.splitlines():
            if line.startswith(b"data: {"):
                for choice in json.loads(line[6:]).get("choices", ()):
                    said += choice["delta"].get("content") or ""
        return said

    async def receipt(self) -> dict[str, Any]:
        async with self._computer.http.get(f"/jobs/{self.headers['X-Quorum-Job']}") as reply:
            told: dict[str, Any] = (await reply.json())["receipt"]
            return told


async def ask(computer: Computer) -> Asking:
    return await Asking(computer)()


async def first_asked(*computers: Computer) -> Computer:
    """Which of them gets a request; the others have none."""
    waiting = {asyncio.ensure_future(one.engine.request(len(one.engine.asked))): one for one in computers}
    done, rest = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    return waiting[done.pop()]
