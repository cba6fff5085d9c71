"""The OpenAI dialect: models, chat/completions, completions, embeddings. Bodies pass verbatim where nothing changed."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from router.engines.base import Kind
from router.errors import ModelNotFoundError
from router.jobs import Job, Origin
from router.web.answers import Shape, json_answer, openai_error, stream_error
from router.web.canonical import check
from router.web.keys import key_id, repeat_of
from router.web.service import Service
from router.web.sink import job_headers, stream_answer, whole_answer
from router.web.strict_json import decode
from router.web.turnstile import Turnstile
from router.wire import Ended, ErrorInfo, ModelInfo, State


class OpenAIStream:
    """The canonical form is this dialect: events pass as they are."""

    content_type = "text/event-stream"

    def content(self, events: bytes) -> bytes:
        """Verbatim."""
        return events

    def waiting(self, state: State) -> bytes:
        """A comment, which every SSE client skips."""
        return waiting_comment(state)

    def last(self, ended: Ended) -> bytes:
        """An error event instead of ``[DONE]``: the answer broke off."""
        if ended.error is None:
            return b""
        return stream_error(Shape.OPENAI, ended.error)


def waiting_comment(state: State) -> bytes:
    """``: queued place=2`` or ``: loading pct=40 node=...``."""
    facts = {"place": state.place, "eta_s": state.eta_s, "pct": state.loading_pct, "node": state.node}
    said = " ".join(f"{name}={value}" for name, value in facts.items() if value is not None)
    return f": {state.state} {said}".rstrip().encode() + b"\n\n"


class OpenAIRoutes:
    """Handlers of ``/v1``."""

    def __init__(self, service: Service, turnstile: Turnstile) -> None:
        self._service = service
        self._turnstile = turnstile

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/v1/models/{name:.+}", self.model)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/completions", self.completions)
        app.router.add_post("/v1/embeddings", self.embeddings)

    async def models(self, request: web.Request) -> web.Response:
        """``GET /v1/models``."""
        listed = {info.name: _listed(info) for info in reversed(self._service.registry.model_infos())}
        return json_answer({"object": "list", "data": list(reversed(listed.values()))})

    async def model(self, request: web.Request) -> web.Response:
        """``GET /v1/models/{id}``."""
        name = request.match_info["name"]
        for info in self._service.registry.model_infos():
            if info.name == name:
                return json_answer(_listed(info))
        raise ModelNotFoundError(name[:200])

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/chat/completions``."""
        return await self._run(request, Kind.CHAT)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/completions``."""
        return await self._run(request, Kind.COMPLETION)

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/embeddings``."""
        return await self._run(request, Kind.EMBEDDING)

    async def _run(self, request: web.Request, kind: Kind) -> web.StreamResponse:
        # [1] decode to one canonical request; the raw body is kept
        await self._turnstile.enter()
        body = await request.read()
        repeat = repeat_of(request, body)

        async def make() -> Job:
            checked = check(kind, decode(body), body)
            keep = request.headers.get("X-Quorum-Keep") == "1"
            return self._service.intake.job(checked, Origin.API, keep=keep, key_id=key_id(request))

        if repeat is None:
            job = await self._service.intake.submit(await make())
        else:
            job = await self._service.once.answered(repeat, make)
        try:
            if job.stream:
                return await stream_answer(request, job, OpenAIStream(), _refuse, self._service.scheduler.survey)
            return await self._whole(job)
        finally:
            self._service.intake.client_left(job)

    async def _whole(self, job: Job) -> web.Response:
        body, error = await whole_answer(job, self._service.load)
        if error is not None:
            return _refuse(error, job)
        return web.Response(body=body, content_type="application/json", headers=job_headers(job))


def _refuse(error: ErrorInfo, job: Job) -> web.Response:
    answer = openai_error(error)
    answer.headers.update(job_headers(job))
    return answer


def _listed(info: ModelInfo) -> dict[str, Any]:
    return {
        "id": info.name,
        "object": "model",
        "created": int(info.modified_at or 0),
        "owned_by": info.node_name,
        "quorum": {
            "engine": info.engine,
            "residency": info.residency,
            "digest": info.digest,
            "context": info.context,
            "capabilities": info.capabilities,
        },
    }
