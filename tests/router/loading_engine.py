"""An engine with Ollama's API that has room for one model, and writes down what it loaded and answered."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

from tests.fakes import BOUND_S, stream


class LoadingEngine:
    """Answers each chat with its last message. ``loads`` and ``chats`` are what it was asked, in order.

    ``hang_at`` is the number (from 1) of a chat that says one word and then waits for ``go``; ``load_gate`` and
    ``look_gate`` hold up loads and looks.
    """

    def __init__(self, *models: str) -> None:
        self.models = models
        self.loads: list[str] = []
        self.chats: list[str] = []
        self.finished: list[str] = []
        self.cut: list[str] = []
        self.cut_loads = 0
        self.resident: str | None = None
        self.hang_at = 0
        self.go = asyncio.Event()
        self.load_gate = asyncio.Event()
        self.load_gate.set()
        self.look_gate = asyncio.Event()
        self.look_gate.set()
        self.url = ""
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> LoadingEngine:
        app = web.Application()
        app.router.add_get("/", self._root)
        app.router.add_get("/api/{what}", self._look)
        app.router.add_post("/api/show", self._show)
        app.router.add_post("/api/generate", self._load)
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for gate in (self.go, self.load_gate, self.look_gate):
            gate.set()
        await self._runner.cleanup()

    async def until(self, what: Any) -> None:
        """Wait until ``what()`` is true."""
        async with asyncio.timeout(BOUND_S), self._changed:
            await self._changed.wait_for(what)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _root(self, request: web.Request) -> web.Response:
        return web.Response(text="Ollama is running")

    async def _look(self, request: web.Request) -> web.Response:
        await self.look_gate.wait()
        names = self.models if request.match_info["what"] == "tags" else [self.resident] if self.resident else []
        if request.match_info["what"] == "version":
            return web.json_response({"version": "0.12.0"})
        return web.json_response({"models": [{"name": name, "digest": name, "size": 1} for name in names]})

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response({"capabilities": ["completion"], "model_info": {}, "modelfile": ""})

    async def _load(self, request: web.Request) -> web.Response:
        model = (await request.json())["model"]
        self.loads.append(model)
        await self._tell()
        try:
            await self.load_gate.wait()
        except asyncio.CancelledError:
            self.cut_loads += 1
            asyncio.get_running_loop().call_soon(asyncio.ensure_future, self._tell())
            raise
        self.resident = model
        return web.json_response({"model": model, "done": True})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if asked["model"] != self.resident:  # as Ollama does when nobody asked for the load
            self.loads.append(asked["model"])
            self.resident = asked["model"]
        said = asked["messages"][-1]["content"]
        self.chats.append(said)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        events = stream(said, usage={"prompt_tokens": 1, "completion_tokens": 1})
        begin = events.index(b"\n\n", events.index(b"\n\n") + 2) + 2
        await response.write(events[:begin])
        await self._tell()
        try:
            if len(self.chats) == self.hang_at:
                await self.go.wait()
            await response.write(events[begin:])
            await response.write_eof()
        except (ConnectionError, asyncio.CancelledError):
            self.cut.append(said)
            asyncio.get_running_loop().call_soon(asyncio.ensure_future, self._tell())
            raise
        self.finished.append(said)
        await self._tell()
        return response


def words(result: Any) -> str:
    """The text of a whole answer."""
    return str(json.loads(json.dumps(result))["choices"][0]["message"]["content"])
