"""The node's front door: all routes of the client and control surfaces behind one guard, on this computer's sockets."""

from __future__ import annotations

from aiohttp import web

from router.metrics import Metrics
from router.sessions import Sessions
from router.web.answers import errors, json_answer
from router.web.local import LocalRoutes
from router.web.ollama import OllamaRoutes
from router.web.openai import OpenAIRoutes
from router.web.service import Service


class Front:
    """Listens from ``start`` to ``stop``."""

    def __init__(self, service: Service, sessions: Sessions, token: str, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics

    async def start(self) -> None:
        app = web.Application(middlewares=[errors], client_max_size=32 << 20)
        OpenAIRoutes(self._service).add_to(app)
        OllamaRoutes(self._service).add_to(app)
        LocalRoutes(self._service).add_to(app)

        async def ok(request: web.Request) -> web.Response:
            return json_answer({"ok": True})

        app.router.add_get("/readyz", ok)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await self._runner.setup()
        self.port = self._service.settings["port"]
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.address = f"http://127.0.0.1:{self.port}"

    def own_addresses(self) -> frozenset[tuple[str, int]]:
        return frozenset({("127.0.0.1", self.port)})

    async def stop(self) -> None:
        await self._runner.cleanup()
