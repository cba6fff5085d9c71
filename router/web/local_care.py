"""The control surface's routes of care: updates, disk use, export, diagnostics."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from aiohttp import web

from router import diagnostics
from router.disk_use import disk_use
from router.export import export
from router.web.answers import json_answer
from router.web.service import Service
from router.wire import Snapshot
from router.wire_peers import DoctorReport

log = logging.getLogger(__name__)

DOCTOR_S: Final = 20.0
PIECE_BYTES: Final = 1 << 20
ARCHIVE: Final = ".archive-"
Doctor = Callable[[str], Awaitable[DoctorReport]]


class CareRoutes:
    """Handlers behind the control token or the page's session."""

    def __init__(self, service: Service, doctor: Doctor) -> None:
        self._service = service
        self._updates = service.updates
        self._doctor = doctor

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_post("/local/v1/update/check", self.check)
        app.router.add_post("/local/v1/update/install", self.install)
        app.router.add_get("/local/v1/disk", self.disk)
        app.router.add_get("/local/v1/export", self.export)
        app.router.add_get("/local/v1/diagnostics", self.diagnostics)

    async def check(self, request: web.Request) -> web.Response:
        """``POST update/check``: starts it; how it goes comes as changes of the node."""
        self._updates.check()
        return json_answer(self._updates.info, status=202)

    async def install(self, request: web.Request) -> web.Response:
        """``POST update/install``: the same; the node ends when everything is prepared."""
        self._updates.install()
        return json_answer(self._updates.info, status=202)

    async def disk(self, request: web.Request) -> web.Response:
        """``GET disk``: what the data folder takes."""
        return json_answer(await asyncio.to_thread(disk_use, self._folder))

    async def export(self, request: web.Request) -> web.StreamResponse:
        """``GET export``: the archive; it lies beside the data, as private, until it is sent."""
        path = await asyncio.to_thread(_archive, self._folder)
        try:
            response = web.StreamResponse(headers=_attachment("quorum", "zip", "application/zip"))
            with await asyncio.to_thread(path.open, "rb") as file:
                with suppress(PermissionError):  # Windows keeps what is open
                    await asyncio.to_thread(path.unlink)
                response.content_length = os.fstat(file.fileno()).st_size
                await response.prepare(request)
                while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                    await response.write(piece)
            return response
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def diagnostics(self, request: web.Request) -> web.Response:
        """``GET diagnostics``: the report, after the doctor's look of at most 20 s."""
        view = self._service.view
        chats = await self._service.chats.list()
        doctor = await self._examined()
        content = await asyncio.to_thread(_report, self._folder, view.snapshot(chats), doctor)
        return web.Response(body=content, headers=_attachment("quorum-diagnostics", "json", "application/json"))

    @property
    def _folder(self) -> Path:
        return Path(self._service.info().data_dir)

    async def _examined(self) -> DoctorReport | None:
        try:
            async with asyncio.timeout(DOCTOR_S):
                return await self._doctor("")
        except Exception as error:  # a report without the doctor is better than none
            log.warning("the doctor could not be asked: %s", type(error).__name__)
            return None


def _archive(folder: Path) -> Path:
    handle, name = tempfile.mkstemp(dir=folder, prefix=ARCHIVE)
    with os.fdopen(handle, "wb") as file:
        try:
            export(folder, file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    return Path(name)


def _report(folder: Path, snapshot: Snapshot, doctor: DoctorReport | None) -> bytes:
    return diagnostics.as_json(diagnostics.report(folder, snapshot, doctor))


def _attachment(name: str, suffix: str, kind: str) -> dict[str, str]:
    dated = f"{name}-{time.strftime('%Y-%m-%d')}.{suffix}"
    return {"Content-Disposition": f'attachment; filename="{dated}"', "Content-Type": kind}
