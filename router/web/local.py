"""The control surface ``/local/v1``: what the page and the commands read and do. The contract is in ``DESIGN.md``."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from aiohttp import web
from aiohttp.helpers import content_disposition_header

from router.errors import BadRequestError, QuorumError
from router.web.answers import json_answer
from router.web.follow import follow_answer, follow_node
from router.web.service import Service
from router.web.strict_json import decode
from router.wire import (
    AddModel,
    ChatPatch,
    ModelAction,
    NewChat,
    NewMessage,
    PauseRequest,
    Regenerate,
    Snapshot,
    Wire,
)

T = TypeVar("T", bound=Wire)
WEEK_S = 604_800.0


class LocalRoutes:
    """Handlers of ``/local/v1``. The guard has checked the token or the cookie."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        base = "/local/v1"
        app.router.add_get(f"{base}/events", self.events)
        app.router.add_get(f"{base}/status", self.status)
        app.router.add_post(f"{base}/pause", self.pause)
        app.router.add_post(f"{base}/resume", self.resume)
        app.router.add_post(f"{base}/drain", self.drain)
        app.router.add_post(f"{base}/show", self.show)
        app.router.add_post(f"{base}/quit", self.quit)
        app.router.add_get(f"{base}/settings", self.settings)
        app.router.add_patch(f"{base}/settings", self.change_settings)
        app.router.add_get(f"{base}/models", self.models)
        app.router.add_post(f"{base}/models/load", self.load)
        app.router.add_post(f"{base}/models/unload", self.unload)
        app.router.add_post(f"{base}/models/add", self.add_models)
        app.router.add_get(f"{base}/jobs", self.jobs)
        app.router.add_delete(f"{base}/jobs/{{id}}", self.cancel)
        app.router.add_post(f"{base}/jobs/{{id}}/front", self.to_front)
        app.router.add_get(f"{base}/jobs/{{id}}/events", self.follow)
        app.router.add_get(f"{base}/chats", self.chats)
        app.router.add_post(f"{base}/chats", self.new_chat)
        app.router.add_get(f"{base}/chats/{{id}}", self.chat)
        app.router.add_patch(f"{base}/chats/{{id}}", self.patch_chat)
        app.router.add_delete(f"{base}/chats/{{id}}", self.delete_chat)
        app.router.add_get(f"{base}/chats/{{id}}/export", self.export)
        app.router.add_post(f"{base}/chats/{{id}}/messages", self.ask)
        app.router.add_post(f"{base}/chats/{{id}}/regenerate", self.ask_again)

    # -- the node

    async def _snapshot(self) -> Snapshot:
        return self._service.view.snapshot(await self._service.chats.list())

    async def events(self, request: web.Request) -> web.StreamResponse:
        """``GET events``."""
        return await follow_node(request, self._service.bus, self._snapshot)

    async def status(self, request: web.Request) -> web.Response:
        """``GET status``."""
        return json_answer(await self._snapshot())

    async def pause(self, request: web.Request) -> web.Response:
        """``POST pause``."""
        asked = await _body(request, PauseRequest)
        if asked.for_s is not None and not 0 < asked.for_s <= WEEK_S:
            raise BadRequestError("'for_s' must lie between 0 and a week.", field="for_s")
        self._service.pause(asked.for_s)
        return json_answer(self._service.info())

    async def resume(self, request: web.Request) -> web.Response:
        """``POST resume``."""
        self._service.resume()
        return json_answer(self._service.info())

    async def drain(self, request: web.Request) -> web.Response:
        """``POST drain``."""
        self._service.drain()
        return json_answer(self._service.info())

    async def show(self, request: web.Request) -> web.Response:
        """``POST show``."""
        if not self._service.show():
            raise QuorumError("conflict", "This node has no window.", "Open its address in a browser.", status=409)
        return web.Response(status=204)

    async def quit(self, request: web.Request) -> web.Response:
        """``POST quit``: it ends in order, as after a signal."""
        if not self._service.quit():
            raise QuorumError("conflict", "This node is part of another program.", "Quit that one.", status=409)
        return web.Response(status=202)

    async def settings(self, request: web.Request) -> web.Response:
        """``GET settings``."""
        return json_answer(self._service.settings.infos())

    async def change_settings(self, request: web.Request) -> web.Response:
        """``PATCH settings``."""
        self._service.settings.update(decode(await request.read()))
        return json_answer(self._service.settings.infos())

    # -- models

    async def models(self, request: web.Request) -> web.Response:
        """``GET models``."""
        return json_answer(self._service.registry.shown_infos())

    async def load(self, request: web.Request) -> web.Response:
        """``POST models/load``: starts it; the end comes as a change."""
        asked = await _body(request, ModelAction)
        self._service.load(asked.name, asked.engine)
        return json_answer({}, status=202)

    async def unload(self, request: web.Request) -> web.Response:
        """``POST models/unload``."""
        asked = await _body(request, ModelAction)
        await self._service.unload(asked.name, asked.engine)
        return json_answer({}, status=202)

    async def add_models(self, request: web.Request) -> web.Response:
        """``POST models/add``."""
        return json_answer(await self._service.add_models((await _body(request, AddModel)).path))

    # -- jobs

    async def jobs(self, request: web.Request) -> web.Response:
        """``GET jobs``."""
        raw = request.query.get("limit", "500")
        if not (raw.isascii() and raw.isdigit() and 0 < int(raw[:9]) <= 10_000):
            raise BadRequestError("'limit' must be a number from 1 to 10,000.", field="limit")
        return json_answer(self._service.view.jobs(int(raw)))

    async def cancel(self, request: web.Request) -> web.Response:
        """``DELETE jobs/{id}``: the same answer again for one that has ended."""
        job_id = request.match_info["id"]
        job = self._service.scheduler.cancel(job_id)
        info = job.info() if job else await self._service.archive.info(job_id)
        if info is None:
            raise _no_job()
        return json_answer(info)

    async def to_front(self, request: web.Request) -> web.Response:
        """``POST jobs/{id}/front``: the waiting job is next."""
        job_id = request.match_info["id"]
        if not self._service.scheduler.to_front(job_id):
            raise QuorumError("conflict", "That job does not wait in a line.", "Only waiting jobs can be moved.")
        self._service.view.changed("node")
        return json_answer(await self._service.archive.info(job_id), status=202)

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """``GET jobs/{id}/events``."""
        job_id = request.match_info["id"]
        answer = await self._service.archive.answer(job_id)
        if answer is None:
            raise _no_job()
        self._service.scheduler.survey()
        return await follow_answer(request, answer, self._service.scheduler.jobs.get(job_id))

    # -- conversations

    async def chats(self, request: web.Request) -> web.Response:
        """``GET chats``."""
        return json_answer(await self._service.chats.list(request.query.get("q", "")[:200]))

    async def new_chat(self, request: web.Request) -> web.Response:
        """``POST chats``."""
        asked = await _body(request, NewChat)
        info = await self._service.chats.create(asked)
        self._service.view.chat(info)
        return json_answer(info)

    async def chat(self, request: web.Request) -> web.Response:
        """``GET chats/{id}``."""
        return json_answer(await self._service.chats.get(request.match_info["id"]))

    async def patch_chat(self, request: web.Request) -> web.Response:
        """``PATCH chats/{id}``."""
        info = await self._service.chats.patch(request.match_info["id"], await _body(request, ChatPatch))
        self._service.view.chat(info)
        return json_answer(info)

    async def delete_chat(self, request: web.Request) -> web.Response:
        """``DELETE chats/{id}``."""
        chat_id = request.match_info["id"]
        for job in [job for job in self._service.scheduler.jobs.values() if job.chat_id == chat_id]:
            self._service.scheduler.cancel(job.id)
        await self._service.chats.delete(chat_id)
        self._service.view.gone(chat_id)
        return web.Response(status=204)

    async def export(self, request: web.Request) -> web.Response:
        """``GET chats/{id}/export``."""
        form = request.query.get("format", "md")
        if form not in ("md", "json"):
            raise BadRequestError("'format' must be md or json.", field="format")
        name, kind, content = await self._service.chats.export(request.match_info["id"], form)
        headers = {"Content-Disposition": content_disposition_header("attachment", filename=name), "Content-Type": kind}
        return web.Response(body=content, headers=headers)

    async def ask(self, request: web.Request) -> web.Response:
        """``POST chats/{id}/messages``."""
        asked = await _body(request, NewMessage)
        return json_answer(await self._service.conversations.ask(request.match_info["id"], asked))

    async def ask_again(self, request: web.Request) -> web.Response:
        """``POST chats/{id}/regenerate``."""
        asked = await _body(request, Regenerate)
        return json_answer(await self._service.conversations.again(request.match_info["id"], asked))


async def _body(request: web.Request, kind: type[T]) -> T:
    """The request's body as ``kind``. Raises BadRequestError naming the field."""
    try:
        return msgspec.convert(decode(await request.read()), kind)
    except msgspec.ValidationError as error:
        raise BadRequestError(f"The request is not as expected: {error}.") from error


def _no_job() -> QuorumError:
    return QuorumError("not_found", "There is no such job, or it ended long ago.", "See the Queue page.")
