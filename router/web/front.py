"""The node's front door: all routes of the client and control surfaces behind one guard, on this computer's sockets."""

from __future__ import annotations

import hashlib

from aiohttp import web

from router.errors import QuorumError
from router.metrics import Metrics
from router.sessions import Sessions
from router.web.answers import error_middleware, json_answer
from router.web.guard import Guard
from router.web.local import LocalRoutes
from router.web.ollama import OllamaRoutes
from router.web.openai import OpenAIRoutes
from router.web.page import Page
from router.web.server import Listener
from router.web.service import Service


class Front:
    """Listens from ``start`` to ``stop``."""

    def __init__(self, service: Service, sessions: Sessions, token: str, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics
