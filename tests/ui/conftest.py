"""A real browser on the built page of a real node in this process, with engines that do as they are told."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Request, ViewportSize, async_playwright

from router.node import Node
from router.settings import NodeOptions, Value
from router.web.page import DIRECTORY
from tests.fakes import BOUND_S, ScriptedEngine

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
DESK: ViewportSize = {"width": 1280, "height": 800}

MakeNode = Callable[..., Awaitable[Node]]
OpenPage = Callable[..., Awaitable[Page]]


@pytest.fixture(scope="session")
def chromium() -> str:
    """The distribution's browser; skips by name without one, or without a built page."""
    if not (DIRECTORY / "index.html").is_file():
        pytest.skip("the page is not built: run 'python3 dev.py setup'")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium on this computer: run 'apt-get install chromium'")
    return found


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield running
        await running.close()


class Watch:
    """What the page must not do: errors on its console, calls to anybody but its node."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self.refused = 0
        """How many refusals of the node the test provokes; the browser reports each on the console."""

    def attend(self, page: Page, address: str) -> None:
        home = urlsplit(address).netloc

        def said(message: ConsoleMessage) -> None:
            if message.type != "error":
                return
            if message.text.startswith("Failed to load resource") and self.refused > 0:
                self.refused -= 1
                return
            self.errors.append(message.text)

        def asked(request: Request) -> None:
            parts = urlsplit(request.url)
            if parts.scheme not in ("data", "blob") and parts.netloc != home:
                self.foreign.append(request.url)

        page.on("console", said)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", asked)


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    """An OpenAI-compatible engine with one model, ``parrot``."""
    async with ScriptedEngine("parrot") as scripted:
        yield scripted


@pytest.fixture
async def make_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MakeNode]:
    """Start nodes; all are stopped afterwards. ``await make_node(engine, setting=value)``."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    nodes: list[Node] = []

    async def make(*engines: ScriptedEngine, **settings: Value) -> Node:
        overrides: dict[str, Value] = {"port": 0, "builtin_engine": False, "find_models": False}
        overrides["engines"] = ",".join(engine.url for engine in engines) or "http://127.0.0.1:9/v1"
        node = Node(NodeOptions(tmp_path / "data", overrides | settings, discovery=False, log_level="warning"))
        await node.start()
        nodes.append(node)
        await node.ready()
        return node

    yield make
    for node in nodes:
        await node.stop()


@pytest.fixture
async def open_page(browser: Browser, watch: Watch) -> AsyncIterator[OpenPage]:
    """Open the printed address of a node. What ``watch`` saw is checked at the end of the test."""

    async def open_it(
        node: Node, path: str = "", *, viewport: ViewportSize = DESK, dark: bool = False, signed_in: bool = True
    ) -> Page:
        context = await browser.new_context(viewport=viewport, color_scheme="dark" if dark else "light")
        page = await context.new_page()
        page.set_default_timeout(BOUND_S * 1000)
        watch.attend(page, node.address)
        token = f"#token={node.control_token}" if signed_in else ""
        await page.goto(f"{node.address}/{token}")
        if signed_in:
            await page.wait_for_selector("nav", state="attached")
        if path:
            await page.goto(f"{node.address}/{path}")
        return page

    yield open_it
    assert not watch.errors
    assert not watch.foreign
