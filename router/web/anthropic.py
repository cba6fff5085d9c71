"""The Anthropic dialect: ``/v1/messages`` and ``count_tokens``."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from router.engines.base import Kind
from router.jobs import Job, Origin
from router.web import anthropic_shapes as shapes
from router.web.answers import anthropic_error, json_answer
from router.web.anthropic_events import AnthropicStream, whole
from router.web.canonical import Checked, check
from router.web.keys import key_id, repeat_of
from router.web.service import Service
from router.web.sink import job_headers, stream_answer, whole_answer
from router.web.strict_json import decode
from router.web.turnstile import Turnstile
from router.wire import ErrorInfo

ESTIMATE = "X-Quorum-Estimate"


class AnthropicRoutes:
    """Handlers of ``/v1/messages``."""

    def __init__(self, service: Service, turnstile: Turnstile) -> None:
        self._service = service
        self._turnstile = turnstile

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_post("/v1/messages", self.messages)
        app.router.add_post("/v1/messages/count_tokens", self.count_tokens)

    async def messages(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/messages``."""
        # [1] decode to one canonical request
        await self._turnstile.enter()
        body = await request.read()
        asked = decode(body)
        checked, _ = _checked(asked)
        repeat = repeat_of(request, body)
        keep = request.headers.get("X-Quorum-Keep") == "1"

        async def make() -> Job:
            return self._service.intake.job(checked, Origin.API, keep=keep, key_id=key_id(request))

        if repeat is not None:
            job = await self._service.once.answered(repeat, make)
        else:
            job = await self._service.intake.submit(await make())
        thinking, stops = shapes.shows_thinking(asked), asked.get("stop_sequences") or []
        try:
            if checked.stream:
                dialect = AnthropicStream(job, thinking=thinking, stops=stops)
                return await stream_answer(request, job, dialect, _refuse, self._service.scheduler.survey)
            answer, error = await whole_answer(job, self._service.load)
            if error is not None:
                return _refuse(error, job)
            return json_answer(whole(answer, job, thinking=thinking, stops=stops), headers=job_headers(job))
        finally:
            self._service.intake.client_left(job)

    async def count_tokens(self, request: web.Request) -> web.Response:
        """``POST /v1/messages/count_tokens``; a count that nobody could make is estimated and says so."""
        asked = decode(await request.read())
        checked, canonical = _checked(asked, counting=True)
        await self._service.intake.check_model(checked.model)
        count = None
        if "vision" not in checked.needs:
            count = await self._service.count_tokens(checked.model, checked.body)
        if count is not None:
            return json_answer({"input_tokens": count})
        about = shapes.estimate(canonical, checked.prompt_bytes)
        return json_answer({"input_tokens": about}, headers={ESTIMATE: "1"})


def _checked(asked: dict[str, Any], *, counting: bool = False) -> tuple[Checked, dict[str, Any]]:
    canonical = shapes.to_canonical(asked, counting=counting)
    return check(Kind.CHAT, canonical, msgspec.json.encode(canonical)), canonical


def _refuse(error: ErrorInfo, job: Job) -> web.Response:
    answer = anthropic_error(error)
    answer.headers.update(job_headers(job))
    return answer
