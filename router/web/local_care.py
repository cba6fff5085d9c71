"""The control surface's routes of care: updates, disk use, export, diagnostics."""

from __future__ import annotations

from aiohttp import web

from router.updates import Updates
from router.web.answers import json_answer


class CareRoutes:
    """Handlers behind the control token or the page's session."""

    def __init__(self, updates: Updates) -> None:
        self._updates = updates

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_post("/local/v1/update/check", self.check)
        app.router.add_post("/local/v1/update/install", self.install)

    async def check(self, request: web.Request) -> web.Response:
        """``POST update/check``: starts it; how it goes comes as changes of the node."""
        self._updates.check()
        return json_answer(self._updates.info, status=202)

    async def install(self, request: web.Request) -> web.Response:
        """``POST update/install``: the same; the node ends when everything is prepared."""
        self._updates.install()
        return json_answer(self._updates.info, status=202)
