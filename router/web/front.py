"""The node's front door: all routes of the client and control surfaces behind one guard, on this computer's sockets."""

from __future__ import annotations

import asyncio

from aiohttp import web

from router.aio import Tasks
from router.errors import StartError, failure
from router.metrics import Metrics
from router.web.answers import json_answer, openai_error
from router.web.anthropic import AnthropicRoutes
from router.web.batches import BatchRoutes
from router.web.files import FileRoutes
from router.web.guard import Guard, Sessions
from router.web.jobs import JobRoutes
from router.web.local import LocalRoutes
from router.web.local_care import CareRoutes
from router.web.local_keys import KeyRoutes
from router.web.local_peers import PeerRoutes, Peers
from router.web.network import Network
from router.web.ollama import OllamaRoutes
from router.web.openai import OpenAIRoutes
from router.web.page import Page
from router.web.responses import ResponsesRoutes
from router.web.server import Listener
from router.web.service import Service
from router.web.turnstile import Turnstile


class Front:
    """Listens from ``start`` to ``stop``."""

    def __init__(
        self, service: Service, sessions: Sessions, token: str, metrics: Metrics, tasks: Tasks, peers: Peers
    ) -> None:
        self._service = service
        self._peers = peers
        self._tasks = tasks
        self._metrics = metrics
        self._sessions = sessions
        self._token = token
        self._listener: Listener | None = None
        self._network: Network | None = None
        self._accepting = False

    @property
    def port(self) -> int:
        """The port in use; 0 before ``start``."""
        return self._listener.port if self._listener else 0

    @property
    def address(self) -> str:
        """Where everything on this computer finds the node."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def refused(self) -> list[str]:
        """Which of the addresses that the settings ask for could not be had, as sentences."""
        return [*(self._listener.refused if self._listener else ()), *(self._network.refused if self._network else ())]

    @property
    def network(self) -> list[str]:
        """Where other computers reach this one, with a key."""
        return self._network.addresses if self._network else []

    def own_addresses(self) -> frozenset[tuple[str, int]]:
        """The sockets of this node, which are never probed as engines."""
        return frozenset(self._listener.addresses) if self._listener else frozenset()

    async def start(self) -> None:
        """Build the routes and listen. Raises StartError."""
        page = await asyncio.to_thread(Page)
        guard = Guard(self._service.settings, self._token, self._sessions, self._service.access)
        app = web.Application()
        app.router.add_get("/healthz", self.alive)
        app.router.add_get("/readyz", self.ready)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_post("/local/v1/session", guard.open_session)
        turnstile = Turnstile()
        OpenAIRoutes(self._service, turnstile).add_to(app)
        ResponsesRoutes(self._service, turnstile).add_to(app)
        FileRoutes(self._service).add_to(app)
        BatchRoutes(self._service).add_to(app)
        AnthropicRoutes(self._service, turnstile).add_to(app)
        OllamaRoutes(self._service, turnstile).add_to(app)
        JobRoutes(self._service, turnstile).add_to(app)
        LocalRoutes(self._service).add_to(app)
        KeyRoutes(self._service.access).add_to(app)
        CareRoutes(self._service, self._peers.examine).add_to(app)
        PeerRoutes(self._peers).add_to(app)
        page.add_to(app)
        self._listener = Listener(app, guard)
        settings = self._service.settings
        await self._listener.start(settings["port"], _addresses(settings["also_listen"]))
        self._network = Network(self._listener, settings, lambda: self._service.view.changed("node"))
        await self._network.start(self._tasks)

    def accept(self) -> None:
        """The engines have been looked at: say ready."""
        self._accepting = True

    async def stop(self) -> None:
        """Take no more requests and end those that run."""
        if self._network is not None:
            await self._network.stop()
        if self._listener is not None:
            await self._listener.stop()

    async def alive(self, request: web.Request) -> web.Response:
        """``GET /healthz``: the process answers."""
        return json_answer({"status": "ok"})

    async def ready(self, request: web.Request) -> web.Response:
        """``GET /readyz``: a request could be served now."""
        if not self._accepting:
            return openai_error(failure("no_holder_available", "Quorum is starting.", retry_after_s=1))
        if not self._service.scheduler.mode.takes_work:
            mode = self._service.scheduler.mode
            return openai_error(failure("paused", f"This node is {mode}."))
        if not any(snapshot.ready and snapshot.models for snapshot in self._service.registry.snapshots.values()):
            return openai_error(failure("no_holder_available", "No engine has a model yet.", retry_after_s=5))
        return json_answer({"status": "ready"})

    async def metrics(self, request: web.Request) -> web.Response:
        """``GET /metrics``, for Prometheus."""
        text, kind = self._metrics.text()
        return web.Response(body=text, headers={"Content-Type": kind})


def _addresses(text: str) -> list[tuple[str, int]]:
    """The setting ``also_listen``: host:port, comma-separated. Raises StartError."""
    found = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        host, _, port = part.rpartition(":")
        if not host or not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536):
            raise StartError(f"'{part}' in the setting 'also_listen' is no address.", "Write host:port.")
        found.append((host.strip("[]"), int(port)))
    return found
