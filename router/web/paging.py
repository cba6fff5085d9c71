"""Lists in pages, as OpenAI's API has them."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from router.errors import BadRequestError


def number(request: web.Request, name: str, low: int, high: int, usual: int) -> int:
    """The whole number ``name`` of the query. Raises BadRequestError."""
    raw = request.query.get(name)
    if raw is None:
        return usual
    digits = raw.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 18 and low <= int(raw) <= high):
        raise BadRequestError(f"'{name}' must be a whole number from {low:,} to {high:,}.", field=name)
    return int(raw)


def listed(shown: list[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    """One page; ``more`` says whether others follow it."""
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": more,
    }


def page(items: list[dict[str, Any]], request: web.Request, usual: int, most: int) -> dict[str, Any]:
    """The page of ``items`` that ``limit`` and ``after`` ask for. Raises BadRequestError."""
    after = request.query.get("after")
    if after is not None:
        place = next((place for place, item in enumerate(items) if item["id"] == after), None)
        if place is None:
            raise BadRequestError("'after' is not the id of something in this list.", field="after")
        items = items[place + 1 :]
    limit = number(request, "limit", 1, most, usual)
    return listed(items[:limit], more=len(items) > limit)
