"""OpenAI's ``/v1/responses`` on the same jobs: create, retrieve, stream again from a number, cancel, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any, Final

from aiohttp import web

from router.answer import Answer
from router.errors import StoreError
from router.idempotency import Repeat
from router.jobs import Job, Origin
from router.responses import Found, not_found
from router.states import JobState
from router.web.answers import JSON, json_answer, openai_error
from router.web.follow import event_stream
from router.web.keys import key_id, repeat_of
from router.web.openai import waiting_comment
from router.web.paging import number, page
from router.web.responses_events import Event, Translator
from router.web.responses_shapes import input_items
from router.web.service import Service
from router.web.sink import job_headers, stream_answer, whole_answer
from router.web.strict_json import decode
from router.web.turnstile import Turnstile
from router.wire import Ended, ErrorInfo, State

BEAT_S: Final = 5.0
QUEUE_MAX: Final = 4096
PIECE_BYTES: Final = 16 * 1024
AT_ONCE_BYTES: Final = 64 * 1024  # a longer answer is put together in a thread
_BEAT: Final = b": beat\n\n"


class ResponsesStream:
    """The dialect: canonical chunks as this API's events."""

    content_type = "text/event-stream"

    def __init__(self, translator: Translator, job: Job) -> None:
        self._translator = translator
        self._job = job

    def content(self, events: bytes) -> bytes:
        """Events of chunks; one of JSON comes from an engine that answered whole."""
        if self._job.stream:
            return _joined(self._translator.events(events))
        return _joined(self._translator.whole(events))

    def waiting(self, state: State) -> bytes:
        """What comes before all content, once; then comments."""
        return _joined(self._translator.opening()) + waiting_comment(state)

    def last(self, ended: Ended) -> bytes:
        """The end of what is open, and how it ended."""
        return _joined(self._translator.end(ended, self._job.completed_at))


class ResponsesRoutes:
    """Handlers of ``/v1/responses``."""

    def __init__(self, service: Service, turnstile: Turnstile) -> None:
        self._service = service
        self._responses = service.kept.responses
        self._turnstile = turnstile

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_post("/v1/responses", self.create)
        app.router.add_get("/v1/responses/{id}", self.retrieve)
        app.router.add_delete("/v1/responses/{id}", self.delete)
        app.router.add_post("/v1/responses/{id}/cancel", self.cancel)
        app.router.add_get("/v1/responses/{id}/input_items", self.input_items)

    async def create(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/responses``."""
        await self._turnstile.enter()
        body = await request.read()
        asked = decode(body)
        repeat = repeat_of(request, body)
        found = await self._accepted(request, asked, repeat)
        job, background = found.job, bool(found.asked.get("background"))
        lives_on = background or repeat is not None or _keeps(request)
        try:
            if asked.get("stream"):
                dialect = ResponsesStream(found.translator(), job)
                return await stream_answer(request, job, dialect, _refuse, self._service.scheduler.survey)
            if background:
                told = found.now() if repeat is not None else found.now() | {"status": "queued", "output": []}
                return json_answer(told, headers={"X-Quorum-Job": job.id})
            return await self._whole(job, found.translator())
        finally:
            if not lives_on and not self._service.scheduler.stopping:
                self._service.scheduler.cancel(job.id)

    async def _accepted(self, request: web.Request, asked: dict[str, Any], repeat: Repeat | None) -> Found:
        """The response of a request, its job submitted; what was promised to be there later is on the disk."""
        checked, remembered = await self._responses.checked(asked, key_id(request))
        intake, stored = self._service.intake, bool(remembered["store"])
        keep = stored or _keeps(request)

        async def make() -> Job:
            return intake.job(checked, Origin.API, keep=keep, key_id=key_id(request))

        if repeat is not None:
            job = await self._service.once.answered(repeat, make)
            if stored:
                await self._responses.promise(job, remembered)
            before = await self._responses.find(f"resp_{job.id}", key_id(request))
            return Found(job, remembered, before.restarts if before else 0)
        if remembered.get("background"):
            job = await intake.accept(await make())
            try:
                await self._responses.promise(job, remembered)
            except (StoreError, asyncio.CancelledError):
                self._service.scheduler.cancel(job.id)
                raise
        else:
            job = await intake.submit(await make())
            if stored:
                self._responses.remember(job, remembered)
        return Found(job, remembered, 0)

    async def _whole(self, job: Job, translator: Translator) -> web.Response:
        body, error = await whole_answer(job, self._service.load)
        if error is not None:
            return _refuse(error, job)
        translator.whole(body)
        translator.end(Ended(state=JobState.DONE, receipt=job.receipt), job.completed_at)
        return json_answer(translator.response, headers=job_headers(job))

    async def _found(self, request: web.Request) -> Found:
        found = await self._responses.find(request.match_info["id"], key_id(request))
        if found is None:
            raise not_found()
        return found

    async def retrieve(self, request: web.Request) -> web.StreamResponse:
        """``GET /v1/responses/{id}``, as it stands or as the stream of its events."""
        found = await self._found(request)
        if request.query.get("stream", "").lower() not in ("true", "1"):
            return json_answer(await _now(found), headers={"X-Quorum-Job": found.job.id})
        after = number(request, "starting_after", -1, 2**53, -1)
        return await follow_response(request, found, after)

    async def delete(self, request: web.Request) -> web.Response:
        """``DELETE /v1/responses/{id}``; what still runs is cancelled."""
        found = await self._found(request)
        self._service.scheduler.cancel(found.job.id)
        await self._responses.forget(found)
        return json_answer({"id": request.match_info["id"], "object": "response", "deleted": True})

    async def cancel(self, request: web.Request) -> web.Response:
        """``POST /v1/responses/{id}/cancel``; one that has ended stays as it is."""
        found = await self._found(request)
        self._service.scheduler.cancel(found.job.id)
        return json_answer(await _now(found), headers={"X-Quorum-Job": found.job.id})

    async def input_items(self, request: web.Request) -> web.Response:
        """``GET /v1/responses/{id}/input_items``, the newest first unless ``order=asc``."""
        found = await self._found(request)
        items = input_items(found.job.id, found.asked["input"])
        if request.query.get("order", "desc") != "asc":
            items.reverse()
        return json_answer(page(items, request, 20, 100))


def _keeps(request: web.Request) -> bool:
    return request.headers.get("X-Quorum-Keep") == "1"


async def _now(found: Found) -> dict[str, Any]:
    if sum(len(data) for _, data in found.job.answer.chunks) <= AT_ONCE_BYTES:
        return found.now()
    return await asyncio.to_thread(found.now)


def _joined(events: Iterable[Event]) -> bytes:
    return b"".join(data for _, data in events)


def _refuse(error: ErrorInfo, job: Job) -> web.Response:
    answer = openai_error(error)
    answer.headers.update(job_headers(job))
    return answer


class _Follower:
    """A Reader that hands everything to one stream. One that falls far behind is cut and may come again."""

    keeps = False

    def __init__(self, answer: Answer) -> None:
        self.queue: asyncio.Queue[bytes | State | Ended | None] = asyncio.Queue()
        self._answer = answer

    def content(self, events: bytes, seq: int) -> None:
        """Told in this API's words by the stream."""
        self._put(events)

    def state(self, state: State) -> None:
        """A comment."""
        self._put(state)

    def reset(self) -> None:
        """Another try begins before anything was said."""

    def ended(self, ended: Ended) -> None:
        """The last call."""
        self._put(ended)

    def _put(self, item: bytes | State | Ended) -> None:
        if self.queue.qsize() < QUEUE_MAX:
            self.queue.put_nowait(item)
        else:
            self._answer.detach(self)
            self.queue.put_nowait(None)


async def follow_response(request: web.Request, found: Found, after: int) -> web.StreamResponse:
    """The events of a response whose number is above ``after``, those of now and those to come."""
    answer, translator = found.job.answer, found.translator()
    follower = _Follower(answer)
    answer.attach(follower)
    try:
        response = await event_stream(request)
        await response.write(_above(after, translator.opening()))
        while (item := await _next(follower.queue)) is not None:
            match item:
                case State():
                    await response.write(waiting_comment(item))
                case Ended():
                    await response.write(_above(after, translator.end(item, found.job.completed_at)))
                    break
                case bytes() if item is _BEAT:
                    await response.write(item)
                case _ if answer.content_type == JSON:
                    await response.write(_above(after, translator.whole(item)))
                case _:
                    for piece in _pieces(item):
                        await response.write(_above(after, translator.events(piece)))
                        await asyncio.sleep(0)  # a long answer told again must not hold up the loop
        await response.write_eof()
        return response
    finally:
        answer.detach(follower)


def _above(after: int, events: list[Event]) -> bytes:
    return b"".join(data for number, data in events if number > after)


def _pieces(events: bytes) -> Iterator[bytes]:
    """Whole events, about ``PIECE_BYTES`` at a time."""
    start = 0
    while start < len(events):
        end = events.find(b"\n\n", start + PIECE_BYTES) + 2
        end = len(events) if end == 1 else end
        yield events[start:end]
        start = end


async def _next(queue: asyncio.Queue[bytes | State | Ended | None]) -> bytes | State | Ended | None:
    try:
        async with asyncio.timeout(BEAT_S):
            return await queue.get()
    except TimeoutError:
        return _BEAT
