"""An answer is picked up again by the page itself: its node is killed in the middle of it, or the connection drops.

The node is a program of its own; the engine and what lies between browser and node belong to the test.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, ProxySettings, expect

from tests.fakes import BOUND_S, ScriptedEngine, Wait, chunk, free_port, head, stream
from tests.ui.conftest import Watch

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parent.parent.parent
AGAIN = "The answer began anew; what came before is not part of it."
LOST = "Connection lost. The answer goes on; reading it again…"


class Served:
    """``quorum serve`` on one port and data folder, started as often as the test likes."""

    def __init__(self, engine: ScriptedEngine, folder: Path) -> None:
        self.port = free_port()
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("QUORUM_")}
        self._environment |= {
            "HOME": str(folder / "home"),
            "QUORUM_ENGINES": engine.url,
            "QUORUM_BUILTIN_ENGINE": "0",
            "QUORUM_FIND_MODELS": "0",
        }
        self._data_dir = folder / "data"
        self._process: Process | None = None

    async def start(self) -> str:
        """Start it; the address of its page, with the key, once it answers."""
        ports = ("--port", str(self.port), "--peer-port", "0", "--no-discovery", "--data-dir", str(self._data_dir))
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", "serve", *ports, cwd=ROOT, env=self._environment, stdout=PIPE, stderr=DEVNULL
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(BOUND_S):
            while (line := await self._process.stdout.readline()) and not line.startswith(b"Page: "):
                pass
        return line.decode().removeprefix("Page: ").strip()

    async def kill(self) -> None:
        """As ``kill -9``: nothing is finished, nothing is tidied up."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@pytest.fixture
async def served(engine: ScriptedEngine, tmp_path: Path) -> AsyncIterator[Served]:
    node = Served(engine, tmp_path)
    yield node
    await node.kill()


class Line:
    """A wire between browser and node that can be cut; connections during a cut are refused.

    It is a SOCKS proxy, because the node takes only requests for its own address.
    """

    def __init__(self) -> None:
        self.address = f"socks5://127.0.0.1:{free_port()}"
        self._server: asyncio.Server | None = None
        self._carried: set[asyncio.Task[None]] = set()

    async def mend(self) -> None:
        """Let connections through."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", int(self.address.rpartition(":")[2]))

    async def cut(self) -> None:
        """Break every connection and take no new one."""
        assert self._server is not None
        self._server.close()
        for carried in self._carried:
            carried.cancel()
        await asyncio.gather(*self._carried, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._carry(reader, writer))
        self._carried.add(task)
        task.add_done_callback(self._carried.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            there, back = await asyncio.open_connection("127.0.0.1", await self._asked(reader, writer))
            ends.append(back)
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            for end in ends:
                end.transport.abort()

    @staticmethod
    async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        """The greeting without a password, and the port that is asked for."""
        _, methods = await reader.readexactly(2)
        await reader.readexactly(methods)
        writer.write(b"\x05\x00")
        _, _, _, kind = await reader.readexactly(4)
        size = 4 if kind == 1 else (await reader.readexactly(1))[0]
        await reader.readexactly(size)
        port = int.from_bytes(await reader.readexactly(2), "big")
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        return port

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    wire = Line()
    await wire.mend()
    yield wire
    await wire.cut()


Enter = Callable[..., Awaitable[Page]]


@pytest.fixture
async def enter(browser: Browser, watch: Watch) -> AsyncIterator[Enter]:
    """Open a printed address. Lost connections show on the console; anything else there fails the test."""

    async def enter_it(address: str, line: Line | None = None) -> Page:
        proxy = None if line is None else ProxySettings(server=line.address, bypass="<-loopback>")
        page = await (await browser.new_context(proxy=proxy)).new_page()
        page.set_default_timeout(BOUND_S * 1000)
        watch.refused = 1000
        watch.attend(page, address.partition("/#")[0])
        await page.goto(address)
        return page

    yield enter_it
    assert not watch.errors
    assert not watch.foreign


async def ask(page: Page, text: str) -> None:
    await page.get_by_role("textbox", name="Message").fill(text)
    await page.keyboard.press("Enter")


async def shown(page: Page) -> str:
    """The text of the one answer that the page shows."""
    answer = page.get_by_role("log").get_by_role("article", name="parrot")
    await expect(answer).to_have_count(1)
    return await answer.locator(".markdown").inner_text()


async def test_a_node_killed_in_mid_answer_gives_the_whole_answer_anew_and_once(
    served: Served, engine: ScriptedEngine, enter: Enter
) -> None:
    go_on = asyncio.Event()
    engine.play(head(), chunk("Stale words "), chunk("of the first try"), Wait(asyncio.Event()))
    engine.play(head(), chunk("A whole "), Wait(go_on), stream("new answer."))
    page = await enter(await served.start())
    await ask(page, "Tell me")
    await expect(page.get_by_text("Stale words of the first try")).to_be_visible()

    await served.kill()
    await expect(page.get_by_text(LOST)).to_be_visible()
    await expect(page.get_by_text("Connection lost, reconnecting…")).to_be_visible()
    await expect(page.get_by_text("Stale words of the first try")).to_be_visible()
    await served.start()

    await expect(page.get_by_text(AGAIN)).to_be_visible()
    await expect(page.get_by_text("Connection lost")).to_have_count(0)
    await expect(page.get_by_text("Stale")).to_have_count(0)
    assert await shown(page) == "A whole"
    go_on.set()
    await expect(page.get_by_title("Show the receipt")).to_be_visible()
    assert await shown(page) == "A whole new answer."
    assert len(engine.asked) == 2
    await page.reload()
    await expect(page.get_by_title("Show the receipt")).to_be_visible()
    assert await shown(page) == "A whole new answer."


async def test_a_dropped_connection_costs_no_word_and_doubles_none(
    served: Served, engine: ScriptedEngine, enter: Enter, line: Line
) -> None:
    words = [f"word{number} " for number in range(30)]
    steps = [asyncio.Event() for _ in range(3)]
    engine.play(
        head(),
        *map(chunk, words[:10]),
        Wait(steps[0]),
        *map(chunk, words[10:20]),
        Wait(steps[1]),
        *map(chunk, words[20:]),
        Wait(steps[2]),
        stream("end"),
    )
    page = await enter(await served.start(), line)
    await ask(page, "Tell me")
    await expect(page.get_by_text("word9")).to_be_visible()

    await line.cut()
    await expect(page.get_by_text(LOST)).to_be_visible()
    steps[0].set()
    await line.mend()
    await expect(page.get_by_text("word19")).to_be_visible()
    await expect(page.get_by_text("Connection lost")).to_have_count(0)
    assert await shown(page) == "".join(words[:20]).strip()

    await line.cut()
    steps[1].set()
    steps[2].set()
    await line.mend()
    await expect(page.get_by_title("Show the receipt")).to_be_visible()
    assert await shown(page) == "".join(words) + "end"
    assert await page.get_by_text(AGAIN).count() == 0
    assert len(engine.asked) == 1
