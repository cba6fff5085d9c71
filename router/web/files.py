"""OpenAI's ``/v1/files``: what batches read and write. Uploads go to the disk as they come."""

from __future__ import annotations

import re
from typing import Any, Final

from aiohttp import BodyPartReader, web
from aiohttp.helpers import content_disposition_header
from aiohttp.http_exceptions import HttpProcessingError

from router.errors import BadRequestError, QuorumError
from router.files import KEPT_S, Draft, FileRow
from router.web.answers import json_answer
from router.web.guard import FILE_BYTES
from router.web.keys import key_id
from router.web.paging import listed, number
from router.web.service import Service

CHUNK_BYTES: Final = 64 * 1024
FIELD_BYTES: Final = 1024
PARTS_MAX: Final = 16
_SECONDS: Final = re.compile(r"\d{1,9}")
_BROKEN: Final = (ValueError, RuntimeError, AssertionError, HttpProcessingError)  # what aiohttp's reader raises


class FileRoutes:
    """Handlers of ``/v1/files``. A request with an API key sees the files of that key, one without sees all."""

    def __init__(self, service: Service) -> None:
        self._files = service.kept.files
        self._batches = service.kept.batches

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_post("/v1/files", self.upload)
        app.router.add_get("/v1/files", self.list)
        app.router.add_get("/v1/files/{id}", self.retrieve)
        app.router.add_get("/v1/files/{id}/content", self.content)
        app.router.add_delete("/v1/files/{id}", self.delete)

    async def upload(self, request: web.Request) -> web.Response:
        """``POST /v1/files``, multipart: ``file`` and ``purpose``."""
        draft = self._files.draft(FILE_BYTES)
        try:
            filename, fields = await _received(request, draft)
            if fields.get("purpose") != "batch":
                raise BadRequestError(
                    "'purpose' must be batch.", "Other purposes belong to services of OpenAI's.", field="purpose"
                )
            keep_s = _keep_s(fields)
            row = await self._files.keep(
                draft, filename=filename, purpose="batch", key_id=key_id(request), keep_s=keep_s
            )
        finally:
            await draft.discard()
        return json_answer(told(row))

    async def list(self, request: web.Request) -> web.Response:
        """``GET /v1/files``, the newest first unless ``order=asc``."""
        limit = number(request, "limit", 1, 10_000, 10_000)
        query = request.query
        rows = await self._files.page(
            key_id(request),
            purpose=query.get("purpose"),
            after=query.get("after"),
            limit=limit + 1,
            ascending=query.get("order") == "asc",
        )
        return json_answer(listed([told(row) for row in rows[:limit]], more=len(rows) > limit))

    async def _found(self, request: web.Request) -> FileRow:
        row = await self._files.get(request.match_info["id"], key_id(request))
        if row is None:
            raise QuorumError(
                "not_found", "There is no such file here, or it has expired.", "GET /v1/files lists them."
            )
        return row

    async def retrieve(self, request: web.Request) -> web.Response:
        """``GET /v1/files/{id}``."""
        return json_answer(told(await self._found(request)))

    async def content(self, request: web.Request) -> web.StreamResponse:
        """``GET /v1/files/{id}/content``."""
        row = await self._found(request)
        disposition = content_disposition_header("attachment", filename=row.filename)
        headers = {"Content-Type": "application/octet-stream", "Content-Disposition": disposition}
        return web.FileResponse(self._files.place_of(row.id), headers=headers)

    async def delete(self, request: web.Request) -> web.Response:
        """``DELETE /v1/files/{id}``; one that a batch still reads stays."""
        row = await self._found(request)
        if row.id in self._batches.reading():
            raise QuorumError("conflict", "A batch still reads this file.", "Cancel the batch, or wait for its end.")
        await self._files.delete(row)
        return json_answer({"id": row.id, "object": "file", "deleted": True})


def told(row: FileRow) -> dict[str, Any]:
    """A file as this API shows it."""
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.size,
        "created_at": int(row.created_at),
        "expires_at": None if row.expires_at is None else int(row.expires_at),
        "filename": row.filename,
        "purpose": row.purpose,
        "status": "processed",
    }


async def _received(request: web.Request, draft: Draft) -> tuple[str, dict[str, str]]:
    """Name and fields of an upload, its content in ``draft``. Raises BadRequestError, StoreError."""
    filename: str | None = None
    fields: dict[str, str] = {}
    try:
        reader = await request.multipart()
        for _ in range(PARTS_MAX):
            part = await reader.next()
            if part is None:
                break
            if not isinstance(part, BodyPartReader) or part.name is None:
                raise BadRequestError("Each part of the upload must have a name and no parts of its own.")
            if part.name == "file":
                if filename is not None:
                    raise BadRequestError("One upload is one file.", field="file")
                filename = _name(part.filename)
                while chunk := await part.read_chunk(CHUNK_BYTES):
                    await draft.write(chunk)
            else:
                fields[part.name] = await _field(part)
        else:
            raise BadRequestError("The upload has too many parts.")
    except _BROKEN as error:
        raise BadRequestError("The upload is not well-formed multipart/form-data.") from error
    if filename is None:
        raise BadRequestError("'file' is missing.", "Send the file as multipart/form-data.", field="file")
    return filename, fields


async def _field(part: BodyPartReader) -> str:
    value = b""
    while chunk := await part.read_chunk(CHUNK_BYTES):
        value += chunk
        if len(value) > FIELD_BYTES:
            raise BadRequestError("A field of the upload is too long.")
    return value.decode("utf-8", "replace")


def _name(given: str | None) -> str:
    """What the client calls the file: shown again, never a path here."""
    name = (given or "").replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(letter for letter in name if letter.isprintable())[:255] or "file.jsonl"


def _keep_s(fields: dict[str, str]) -> float:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return KEPT_S
    return keep_s(anchor, int(seconds) if seconds is not None and _SECONDS.fullmatch(seconds) else None)


def keep_s(anchor: object, seconds: object, field: str = "expires_after") -> float:
    """How long a file is kept, in seconds. Raises BadRequestError."""
    if anchor != "created_at" or type(seconds) is not int or not 3600 <= seconds <= KEPT_S:
        raise BadRequestError(f"'{field}' must have the anchor created_at and 3,600 to 2,592,000 seconds.", field=field)
    return float(seconds)
