"""The Ollama dialect: chat, generate, tags, ps, show, version, embed. Clients of Ollama need no change."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from router import __version__
from router.chunks import NOT_JSON
from router.engines.base import Kind
from router.errors import BadRequestError, ModelNotFoundError, failure
from router.jobs import Job, Origin
from router.web import ollama_shapes as shapes
from router.web.answers import json_answer, ollama_error
from router.web.canonical import Checked, check
from router.web.keys import key_id, repeat_of
from router.web.service import Service
from router.web.sink import job_headers, stream_answer, whole_answer
from router.web.strict_json import decode
from router.web.turnstile import Turnstile
from router.wire import ErrorInfo, ModelInfo

SPEAKS = "0.12.0"
"""The version of Ollama's API that is spoken; clients compare it."""


class OllamaRoutes:
    """Handlers of ``/api``."""

    def __init__(self, service: Service, turnstile: Turnstile) -> None:
        self._service = service
        self._turnstile = turnstile

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_get("/api/version", self.version)
        app.router.add_get("/api/tags", self.tags)
        app.router.add_get("/api/ps", self.running)
        app.router.add_post("/api/show", self.show)
        app.router.add_post("/api/chat", self.chat)
        app.router.add_post("/api/generate", self.generate)
        app.router.add_post("/api/embed", self.embed)
        app.router.add_post("/api/embeddings", self.embeddings)

    async def version(self, request: web.Request) -> web.Response:
        """``GET /api/version``."""
        return json_answer({"version": SPEAKS, "quorum": __version__})

    async def tags(self, request: web.Request) -> web.Response:
        """``GET /api/tags``: every model once."""
        return json_answer({"models": [shapes.tag(info) for info in self._once()]})

    async def running(self, request: web.Request) -> web.Response:
        """``GET /api/ps``: the models in memory."""
        warm = [info for info in self._service.registry.model_infos() if info.residency == "warm"]
        return json_answer({"models": [_running(info) for info in warm]})

    async def show(self, request: web.Request) -> web.Response:
        """``POST /api/show``."""
        asked = decode(await request.read())
        name = asked.get("model") or asked.get("name")
        info = next((info for info in self._once() if info.name == _tagless(name, info.name)), None)
        if info is None:
            raise ModelNotFoundError(str(name)[:200])
        architecture = info.family or "unknown"
        capabilities = [{"chat": "completion"}.get(word, word) for word in info.capabilities]
        return json_answer(
            {
                "modelfile": "",
                "parameters": "",
                "template": "",
                "details": shapes.details(info),
                "model_info": {
                    "general.architecture": architecture,
                    f"{architecture}.context_length": info.context or 0,
                },
                "capabilities": capabilities,
                "modified_at": shapes.stamp(info.modified_at or 0.0),
            }
        )

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """``POST /api/chat``."""
        return await self._run(request, chat=True)

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """``POST /api/generate``."""
        return await self._run(request, chat=False)

    async def embed(self, request: web.Request) -> web.Response:
        """``POST /api/embed``: one vector an input."""
        asked = decode(await request.read())
        answer, job = await self._embed(request, asked, asked.get("input"))
        if isinstance(answer, ErrorInfo):
            return _refuse(answer, job)
        vectors = [entry.embedding for entry in answer.data]
        count = answer.usage.get("prompt_tokens", 0)
        return json_answer({"model": job.model, "embeddings": vectors, "prompt_eval_count": count})

    async def embeddings(self, request: web.Request) -> web.Response:
        """``POST /api/embeddings``: the older form, one prompt."""
        asked = decode(await request.read())
        answer, job = await self._embed(request, asked, asked.get("prompt"))
        if isinstance(answer, ErrorInfo):
            return _refuse(answer, job)
        return json_answer({"embedding": answer.data[0].embedding if answer.data else []})

    async def _embed(
        self, request: web.Request, asked: dict[str, Any], text: object
    ) -> tuple[_Embedded | ErrorInfo, Job]:
        canonical = {"model": asked.get("model"), "input": text}
        job = await self._submit(request, check(Kind.EMBEDDING, canonical, msgspec.json.encode(canonical)), asked)
        try:
            body, error = await whole_answer(job, self._service.load)
        finally:
            self._service.intake.client_left(job)
        if error is not None:
            return error, job
        try:
            answer = msgspec.json.decode(body, type=_Embedded)
        except NOT_JSON:
            return failure("engine_failed", "The engine's answer holds no vectors."), job
        return answer, job

    async def _run(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        await self._turnstile.enter()
        asked = decode(await request.read())
        if not (asked.get("messages") if chat else asked.get("prompt")):
            return await self._only_load(asked, chat=chat)
        canonical = shapes.to_canonical(asked, chat=chat)
        job = await self._submit(request, check(Kind.CHAT, canonical, msgspec.json.encode(canonical)), asked)
        try:
            if job.stream:
                return await stream_answer(
                    request, job, shapes.OllamaStream(job, chat=chat), _refuse, self._service.scheduler.survey
                )
            body, error = await whole_answer(job, self._service.load)
            if error is not None:
                return _refuse(error, job)
            answer = json_answer(shapes.whole(body, job, chat=chat))
            answer.headers.update(job_headers(job))
            return answer
        finally:
            self._service.intake.client_left(job)

    async def _submit(self, request: web.Request, checked: Checked, asked: dict[str, Any]) -> Job:
        repeat = repeat_of(request, await request.read())

        async def make() -> Job:
            return self._service.intake.job(
                checked,
                Origin.API,
                keep=request.headers.get("X-Quorum-Keep") == "1",
                key_id=key_id(request),
                keep_alive_s=shapes.keep_alive_s(asked.get("keep_alive")),
            )

        if repeat is None:
            return await self._service.intake.submit(await make())
        return await self._service.once.answered(repeat, make)

    async def _only_load(self, asked: dict[str, Any], *, chat: bool) -> web.Response:
        """A request without a prompt loads the model, or unloads it with ``keep_alive: 0``."""
        name = asked.get("model")
        if not isinstance(name, str) or not name:
            raise BadRequestError("'model' is missing.", field="model")
        await self._service.intake.check_model(name)
        keep_alive_s = shapes.keep_alive_s(asked.get("keep_alive"))
        if keep_alive_s == 0:
            await self._service.unload(name, "")
            reason = "unload"
        else:
            self._service.load(name, "", keep_alive_s)
            reason = "load"
        made: dict[str, Any] = {"message": {"role": "assistant", "content": ""}} if chat else {"response": ""}
        return json_answer({"model": name, "created_at": shapes.now(), "done": True, "done_reason": reason} | made)

    def _once(self) -> list[ModelInfo]:
        infos: dict[str, ModelInfo] = {}
        for info in self._service.registry.model_infos():
            infos.setdefault(info.name, info)
        return list(infos.values())


class _Vector(msgspec.Struct):
    embedding: list[float]


class _Embedded(msgspec.Struct):
    """What is needed of an OpenAI embeddings answer."""

    data: list[_Vector]
    usage: dict[str, Any] = {}


def _tagless(asked: object, name: str) -> str:
    """Ollama's clients add ``:latest`` where no tag was given."""
    return name if isinstance(asked, str) and asked.removesuffix(":latest") == name.removesuffix(":latest") else ""


def _running(info: ModelInfo) -> dict[str, Any]:
    return shapes.tag(info) | {
        "expires_at": shapes.stamp(info.expires_at or 0.0),
        "size_vram": 0,
        "context_length": info.context or 0,
    }


def _refuse(error: ErrorInfo, job: Job) -> web.Response:
    answer = ollama_error(error)
    answer.headers.update(job_headers(job))
    return answer
