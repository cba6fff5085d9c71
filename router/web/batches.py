"""OpenAI's ``/v1/batches``."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from router.batch_lines import ENDPOINTS
from router.batch_rows import BatchRow
from router.batches import told
from router.errors import BadRequestError, QuorumError
from router.web.answers import json_answer
from router.web.files import keep_s
from router.web.keys import key_id, repeat_of
from router.web.paging import listed, number
from router.web.prompt import wrong
from router.web.responses_shapes import check_metadata
from router.web.service import Service
from router.web.strict_json import decode


class BatchRoutes:
    """Handlers of ``/v1/batches``. A request with an API key sees the batches of that key, one without sees all."""

    def __init__(self, service: Service) -> None:
        self._batches = service.kept.batches
        self._files = service.kept.files

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_post("/v1/batches", self.create)
        app.router.add_get("/v1/batches", self.list)
        app.router.add_get("/v1/batches/{id}", self.retrieve)
        app.router.add_post("/v1/batches/{id}/cancel", self.cancel)

    async def create(self, request: web.Request) -> web.Response:
        """``POST /v1/batches``: on the disk when it answers."""
        body = await request.read()
        asked = decode(body)
        if asked.get("endpoint") not in ENDPOINTS:
            wrong("endpoint", f"one of {', '.join(ENDPOINTS)}")
        if asked.get("completion_window") != "24h":
            wrong("completion_window", "24h")
        check_metadata(asked.get("metadata"))
        repeat = repeat_of(request, body)

        async def make() -> BatchRow:
            return await self._batches.create(
                await self._input(asked, key_id(request)),
                endpoint=asked["endpoint"],
                metadata=asked.get("metadata") or {},
                key_id=key_id(request),
                keep_output_s=_keep_output_s(asked.get("output_expires_after")),
                repeat=repeat,
            )

        return json_answer(told(await (make() if repeat is None else self._batches.once(repeat, make))))

    async def _input(self, asked: dict[str, Any], key: str | None) -> Any:
        file_id = asked.get("input_file_id")
        file = await self._files.get(file_id, key) if isinstance(file_id, str) else None
        if file is None or file.purpose != "batch":
            raise BadRequestError(
                "'input_file_id' is not the id of a file uploaded with the purpose batch.",
                "Upload it with POST /v1/files.",
                field="input_file_id",
            )
        return file

    async def list(self, request: web.Request) -> web.Response:
        """``GET /v1/batches``, the newest first."""
        limit = number(request, "limit", 1, 100, 20)
        rows = await self._batches.page(key_id(request), request.query.get("after"), limit + 1)
        return json_answer(listed([told(row) for row in rows[:limit]], more=len(rows) > limit))

    async def _found(self, request: web.Request) -> BatchRow:
        row = await self._batches.get(request.match_info["id"], key_id(request))
        if row is None:
            raise QuorumError("not_found", "There is no such batch here.", "GET /v1/batches lists them.")
        return row

    async def retrieve(self, request: web.Request) -> web.Response:
        """``GET /v1/batches/{id}``."""
        return json_answer(told(await self._found(request)))

    async def cancel(self, request: web.Request) -> web.Response:
        """``POST /v1/batches/{id}/cancel``: what was answered until then is in its files."""
        return json_answer(told(await self._batches.cancel(await self._found(request))))


def _keep_output_s(value: object) -> float | None:
    if value is None:
        return None
    given = value if isinstance(value, dict) else {}
    return keep_s(given.get("anchor"), given.get("seconds"), "output_expires_after")
