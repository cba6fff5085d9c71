"""Engines of paper over real sockets: a scripted HTTP server, a raw one for broken bytes, and Ollama's API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class FakeClock:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now

    def mono(self) -> float:
        return self.now


@asynccontextmanager
async def serving(routes: dict[str, Handler | Any], port: int = 0) -> AsyncIterator[str]:
    """A server whose routes are handlers or JSON values; gives its address. Everything else is 404."""
    app = web.Application(client_max_size=2**26)
    for path, answer in routes.items():
        app.router.add_route("*", path, answer if callable(answer) else _saying(answer))
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    assert site._server is not None
    try:
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
    finally:
        await runner.cleanup()


def _saying(answer: Any) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.json_response(answer)

    return handle


@asynccontextmanager
async def talking(talk: Talk) -> AsyncIterator[str]:
    """A raw TCP server; ``talk`` gets each connection after its request's headers were read."""

    talks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.ensure_future(handle(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in talks:
            task.cancel()
        ends = await asyncio.gather(*talks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end


class FakeOllama:
    """Ollama's API: tags, ps, show, version, generate (load and unload), embed, chat, and the ``/v1`` beside it."""

    def __init__(self) -> None:
        self.loaded: set[str] = set()
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.shows = 0
        self.tags = [
            _tag("llama3.2:3b", "a" * 64),
            _tag("nomic-embed-text:latest", "b" * 64),
            {**_tag("gpt-oss:120b-cloud", "c" * 64), "remote_host": "elsewhere"},
        ]
        self.lines = [
            {"message": {"role": "assistant", "content": "", "thinking": "Hm."}, "done": False},
            {"message": {"role": "assistant", "content": "Hel"}, "done": False},
            {"message": {"role": "assistant", "content": "lo"}, "done": False},
            {
                "message": {"role": "assistant", "content": ""},
                "done": True,
                "done_reason": "stop",
                "prompt_eval_count": 10,
                "prompt_eval_duration": 100_000_000,
                "eval_count": 2,
                "eval_duration": 50_000_000,
            },
        ]
        self.cut_after: int | None = None

    def routes(self) -> dict[str, Handler | Any]:
        async def hello(request: web.Request) -> web.StreamResponse:
            return web.Response(text="Ollama is running")

        return {
            "/": hello,
            "/api/version": {"version": "0.12.6"},
            "/api/tags": self._tags,
            "/api/ps": self._ps,
            "/api/show": self._show,
            "/api/generate": self._generate,
            "/api/embed": self._generate,
            "/api/chat": self._chat,
            "/v1/chat/completions": self._openai,
            "/v1/models": {"object": "list", "data": [{"id": "llama3.2:3b", "owned_by": "library"}]},
        }

    async def _tags(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"models": self.tags})

    async def _ps(self, request: web.Request) -> web.StreamResponse:
        extra = {"expires_at": "2318-06-04T14:38:31.837531234-07:00", "context_length": 4096, "size": 3_000_000_000}
        return web.json_response({"models": [{**tag, **extra} for tag in self.tags if tag["name"] in self.loaded]})

    async def _show(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        self.shows += 1
        embedder = "embed" in asked["model"]
        return web.json_response(
            {
                "modelfile": f"# generated\nFROM /usr/share/ollama/models/blobs/sha256-{'d' * 64}\nTEMPLATE x\n",
                "model_info": {"general.architecture": "llama", "llama.context_length": 131072},
                "capabilities": ["embedding"] if embedder else ["completion", "tools", "insert"],
            }
        )

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        self.asked.append((request.path, asked))
        if asked["model"] not in {tag["name"] for tag in self.tags}:
            return web.json_response({"error": f"model '{asked['model']}' not found"}, status=404)
        if asked.get("keep_alive") == 0:
            self.loaded.discard(asked["model"])
        else:
            self.loaded.add(asked["model"])
        return web.json_response({"done": True})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        self.asked.append((request.path, asked))
        if not asked["stream"]:
            last = dict(self.lines[-1])
            last["message"] = {"role": "assistant", "content": "Hello", "thinking": "Hm."}
            return web.json_response(last)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for line in self.lines[: self.cut_after]:
            await response.write(json.dumps(line).encode() + b"\n")
        return response

    async def _openai(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, await request.json()))
        return web.json_response({"choices": [{"message": {"role": "assistant", "content": "Hello"}}]})


def _tag(name: str, digest: str) -> dict[str, Any]:
    return {
        "name": name,
        "model": name,
        "digest": digest,
        "size": 2_000_000_000,
        "modified_at": "2025-06-04T14:38:31.837531234-07:00",
        "details": {"family": "llama", "parameter_size": "3.2B", "quantization_level": "Q4_K_M"},
    }
