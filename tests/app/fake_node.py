"""A node of few lines with the real one's contract, for tests of the desktop alone."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from aiohttp import web

from router.errors import StartError
from router.settings import Settings
from router.states import NodeMode
from router.wire import NodeInfo
from router.wire_peers import PeerInfo

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>waiting</title>
<script src="/page.js"></script></head><body><h1>Quorum</h1>
<a id="elsewhere" href="http://elsewhere.invalid/page" target="_blank">elsewhere</a>
<a id="here" href="http://elsewhere.invalid/here">elsewhere, here</a></body></html>"""
SCRIPT = """window.themeAtFirst = localStorage.getItem('quorum.theme');
addEventListener('pywebviewready', async () => {
  const api = window.pywebview.api;
  window.offered = Object.keys(api).sort().join();
  const token = await api.token();
  const answer = await fetch('/token', {method: 'POST', body: String(token)});
  document.title = 'token ' + await answer.text();
});"""


class FakeNode:
    """What the desktop uses of a node; ``calls`` lists what it was asked, ``loads`` counts the page."""

    def __init__(self, options: object, *, running: int = 0, fail: str = "") -> None:
        self._dir: Path = options.data_dir  # type: ignore[attr-defined]
        self._fail = fail
        self.control_token = secrets.token_hex(32)
        self.address = ""
        self.settings = Settings(self._dir / "settings.json")
        self.on_info: Callable[[NodeInfo], None] | None = None
        self.on_peers: Callable[[list[PeerInfo]], None] | None = None
        self.on_show: Callable[[], None] | None = None
        self.on_quit: Callable[[], None] | None = None
        self.calls: list[str] = []
        self.loads = 0
        self.mode = NodeMode.RUNNING
        self.running = running
        self.guests = 0
        self.notice = ""
        self._paused_until: float | None = None

    async def start(self) -> None:
        if self._fail:
            raise StartError(self._fail, "Choose another port with --port.")
        app = web.Application()
        app.router.add_get("/", self._page)
        app.router.add_get("/page.js", self._script)
        app.router.add_post("/token", self._check)
        app.router.add_post("/local/v1/show", self._show)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.address = f"http://127.0.0.1:{port}"
        (self._dir / "control.token").write_text(self.control_token)
        (self._dir / "node.json").write_text(json.dumps({"address": self.address, "pid": os.getpid()}))

    async def stop(self) -> None:
        self.calls.append("stop")
        await self._runner.cleanup()
        (self._dir / "stopped").write_text("gracefully")

    def info(self) -> NodeInfo:
        return NodeInfo(
            id="fake",
            name="desk",
            version="0",
            mode=self.mode,
            address=self.address,
            port=int(self.address.rpartition(":")[2]),
            started_at=0.0,
            running=self.running,
            models=2,
            notice=self.notice,
            paused_until=self._paused_until,
        )

    def pause(self, for_s: float | None = None) -> None:
        self.calls.append(f"pause {for_s}")
        self._paused_until = None if for_s is None else time.time() + for_s
        self.become(NodeMode.PAUSED)

    def resume(self) -> None:
        self.calls.append("resume")
        self._paused_until = None
        self.become(NodeMode.RUNNING)

    def drain(self) -> None:
        self.calls.append("drain")
        self.become(NodeMode.DRAINING if self.running else NodeMode.DRAINED)

    def become(self, mode: str) -> None:
        self.mode = NodeMode(mode)
        self._tell()

    def running_for_others(self) -> int:
        return self.guests

    def work(self, running: int, guests: int = 0) -> None:
        self.running, self.guests = running, guests
        self._tell()

    def meet(self, *peers: dict[str, object]) -> None:
        """What the node knows of other computers, as its page is told it."""
        if self.on_peers is not None:
            self.on_peers([msgspec.convert(peer, PeerInfo) for peer in peers])

    def trouble(self, notice: str) -> None:
        self.notice = notice
        self._tell()

    def _tell(self) -> None:
        if self.on_info is not None:
            self.on_info(self.info())

    async def _page(self, request: web.Request) -> web.Response:
        self.loads += 1
        return web.Response(text=PAGE, content_type="text/html", headers={"Content-Security-Policy": POLICY})

    async def _script(self, request: web.Request) -> web.Response:
        return web.Response(text=SCRIPT, content_type="text/javascript")

    async def _check(self, request: web.Request) -> web.Response:
        return web.Response(text="right" if await request.text() == self.control_token else "wrong")

    async def _show(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self.control_token}":
            return web.Response(status=401)
        if self.on_show is None:
            return web.Response(status=409)
        self.on_show()
        return web.Response(status=204)
