"""Who asked: the API key that the guard found good, as the routes read it; and whether they asked before."""

from __future__ import annotations

from aiohttp import web

from router.idempotency import HEADER, Repeat

KEY_ID = web.RequestKey("key_id", str)


def key_id(request: web.Request) -> str | None:
    """The id of the key this request came with, if it came with one."""
    return request.get(KEY_ID)


def repeat_of(request: web.Request, body: bytes) -> Repeat | None:
    """The request's Idempotency-Key, if it has one. Raises BadRequestError."""
    if HEADER not in request.headers:
        return None
    return Repeat.of(request.headers.getall(HEADER), key_id(request), request.path, body)
