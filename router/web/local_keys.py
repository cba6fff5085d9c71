"""The control surface's routes of API keys: ``/local/v1/keys``."""

from __future__ import annotations

import msgspec
from aiohttp import web

from router.access import Access
from router.errors import BadRequestError
from router.web.answers import json_answer
from router.web.strict_json import decode
from router.wire import NewKey


class KeyRoutes:
    """Handlers behind the control token or the page's session; an API key opens none of them."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_get("/local/v1/keys", self.list)
        app.router.add_post("/local/v1/keys", self.create)
        app.router.add_delete("/local/v1/keys/{id}", self.revoke)

    async def list(self, request: web.Request) -> web.Response:
        """``GET keys``: those in force, with what they used; never the keys themselves."""
        return json_answer(self._access.list())

    async def create(self, request: web.Request) -> web.Response:
        """``POST keys``: the one answer that shows the key."""
        try:
            asked = msgspec.convert(decode(await request.read()), NewKey)
        except msgspec.ValidationError as error:
            raise BadRequestError(f"The request is not as expected: {error}.", field="name") from error
        return json_answer(await self._access.create(asked.name), status=201)

    async def revoke(self, request: web.Request) -> web.Response:
        """``DELETE keys/{id}``: the key as it was; its jobs are cancelled."""
        return json_answer(await self._access.revoke(request.match_info["id"]))
