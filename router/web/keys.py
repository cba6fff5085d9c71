"""Who asked: the API key that the guard found good, as the routes read it."""

from __future__ import annotations

from aiohttp import web

KEY_ID = web.RequestKey("key_id", str)


def key_id(request: web.Request) -> str | None:
    """The id of the key this request came with, if it came with one."""
    return request.get(KEY_ID)
