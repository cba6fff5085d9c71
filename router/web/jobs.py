"""Jobs that outlive their request: ``/jobs``. Acknowledged once they are on the disk, followed and fetched later."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

import msgspec
from aiohttp import web

from router.chunks import assemble
from router.errors import BadRequestError, QuorumError, StoreError
from router.jobs import Job, Origin
from router.states import JobState
from router.web.answers import json_answer
from router.web.follow import follow_answer
from router.web.hosts import is_loopback
from router.web.job_request import encoded, read
from router.web.keys import key_id, repeat_of
from router.web.service import Service
from router.web.turnstile import Turnstile
from router.webhooks import Hook
from router.wire import JobInfo

INLINE_BYTES: Final = 256 * 1024
LIST_MAX: Final = 1000
LIST_USUAL: Final = 50
AT_ONCE_BYTES: Final = 64 * 1024  # a longer answer is put together in a thread

JSON: Final = "application/json"
STREAM: Final = "text/event-stream"
ARTIFACTS: Final = {"request.json": JSON, "answer.json": JSON, "answer.sse": STREAM}


class JobRoutes:
    """Handlers of ``/jobs``. A request with an API key sees the jobs of that key, one without sees all."""

    def __init__(self, service: Service, turnstile: Turnstile) -> None:
        self._service = service
        self._turnstile = turnstile

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_post("/jobs", self.submit)
        app.router.add_get("/jobs", self.jobs)
        app.router.add_get("/jobs/{id}", self.job)
        app.router.add_delete("/jobs/{id}", self.cancel)
        app.router.add_get("/jobs/{id}/events", self.events)
        app.router.add_get("/jobs/{id}/artifacts/{name}", self.artifact)

    # -- making

    async def submit(self, request: web.Request) -> web.Response:
        """``POST /jobs``: 202 once the job is on the disk."""
        # [1] decode to one canonical request
        await self._turnstile.enter()
        body = await request.read()
        repeat = repeat_of(request, body)

        async def make() -> Job:
            return await self._make(request, body)

        if repeat is None:
            job = await self._service.intake.accept(await make())
        else:
            job = await self._service.once.job(repeat, make)
        told: dict[str, Any] = {"job_id": job.id, "state": job.state, "links": _links(job.id)}
        if job.webhook is not None and _hook(job.webhook).secret is None:
            told["webhook_secret"] = self._service.webhooks.secret_of(job.key_id)
        return json_answer(told, 202, {"Location": f"/jobs/{job.id}", "X-Quorum-Job": job.id})

    async def _make(self, request: web.Request, body: bytes) -> Job:
        async def address(url: str) -> tuple[str, bool]:
            loopback = _is_local(request)
            return await self._service.webhooks.check(url, loopback=loopback), loopback

        asked = await read(body, address)
        job = self._service.intake.job(asked.checked, Origin.JOBS, keep=True, key_id=key_id(request))
        job.batch = asked.batch
        job.max_attempts = asked.max_attempts or job.max_attempts
        job.deadline_s = asked.deadline_s
        job.webhook = encoded(asked.hook) if asked.hook is not None else None
        return job

    # -- looking

    async def jobs(self, request: web.Request) -> web.Response:
        """``GET /jobs``: the newest first; ``before`` is the id where the page before ended."""
        limit, state = _limit(request.query.get("limit")), _state(request.query.get("state"))
        self._service.scheduler.survey()
        infos = await self._service.archive.recent(limit, state, request.query.get("before"), key_id=key_id(request))
        more = infos[-1].id if len(infos) == limit else None
        return json_answer({"jobs": [_told(info) for info in infos], "next": more})

    async def job(self, request: web.Request) -> web.Response:
        """``GET /jobs/{id}``: where it stands; once it ended, what it answered."""
        job = await self._own(request)
        self._service.scheduler.survey()
        told = _told(job.info()) | {"links": _links(job.id)}
        whole = await self._artifacts(job)
        inline = {name: _inline(name, data) for name, data in whole.items() if len(data) <= INLINE_BYTES}
        told["result"] = inline.get("answer.json") if job.state is JobState.DONE else None
        told["artifacts"] = {
            name: {"type": ARTIFACTS[name], "bytes": len(data), "href": f"/jobs/{job.id}/artifacts/{name}"}
            | ({"content": inline[name]} if name in inline and name != "answer.json" else {})
            for name, data in whole.items()
        }
        if job.webhook is not None:
            deliveries = await self._service.webhooks.deliveries(job.id)
            told["webhook"] = {"url": _hook(job.webhook).url, "deliveries": deliveries}
        return json_answer(told)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """``GET /jobs/{id}/events``: what was missed since ``Last-Event-ID``, then the rest to the end."""
        job = await self._own(request)
        return await follow_answer(request, job.answer, job if job.state.live else None)

    async def artifact(self, request: web.Request) -> web.Response:
        """``GET /jobs/{id}/artifacts/{name}``: one of ``ARTIFACTS``, as long as it is kept."""
        job, name = await self._own(request), request.match_info["name"]
        data = (await self._artifacts(job)).get(name) if name in ARTIFACTS else None
        if data is None:
            raise QuorumError(
                "not_found",
                "That job has no such artifact, or it is not kept any more.",
                f"There are {', '.join(ARTIFACTS)}, 24 h long.",
            )
        headers = {"Content-Type": ARTIFACTS[name], "Content-Disposition": f'attachment; filename="{job.id}-{name}"'}
        return web.Response(body=data, headers=headers)

    # -- ending

    async def cancel(self, request: web.Request) -> web.Response:
        """``DELETE /jobs/{id}``: it ends now; one that has ended stays as it is and gives the same answer again."""
        job = await self._own(request)
        self._service.scheduler.cancel(job.id)
        with suppress(StoreError):
            job = await self._own(request)  # from the store, where the next call will find it, too
        return json_answer(_told(job.info()) | {"links": _links(job.id)})

    # -- parts

    async def _own(self, request: web.Request) -> Job:
        """The job that the request names and may see."""
        caller = key_id(request)
        job = await self._service.archive.job(request.match_info["id"])
        if job is None or (caller is not None and job.key_id != caller):
            raise QuorumError("not_found", "There is no such job, or it ended long ago.", "See GET /jobs.")
        return job

    async def _artifacts(self, job: Job) -> dict[str, bytes]:
        """What there is of a job, by the names of ``ARTIFACTS``. Answers are there once it ended."""
        request = job.body or await self._service.archive.request(job.id)
        found = {"request.json": request} if request else {}
        if job.state.live:
            return found
        answer = b"".join(data for _, data in job.answer.chunks)
        if not answer:
            return found
        if job.answer.content_type == JSON:
            return found | {"answer.json": answer}
        found["answer.sse"] = answer
        if job.state is JobState.DONE:
            small = len(answer) <= AT_ONCE_BYTES
            whole = assemble(answer) if small else await asyncio.to_thread(assemble, answer)
            found["answer.json"] = msgspec.json.encode(whole)
        return found


def _told(info: JobInfo) -> dict[str, Any]:
    """A job as it is listed."""
    told = {name: getattr(info, name) for name in JobInfo.__struct_fields__ if name not in ("id", "chat_id", "key")}
    return {"job_id": info.id} | told


def _links(job_id: str) -> dict[str, str]:
    return {"self": f"/jobs/{job_id}", "events": f"/jobs/{job_id}/events"}


def _inline(name: str, data: bytes) -> Any:
    return msgspec.Raw(data) if ARTIFACTS[name] == JSON else data.decode("utf-8", "replace")


def _hook(text: str) -> Hook:
    return msgspec.json.decode(text, type=Hook)


def _limit(raw: str | None) -> int:
    if raw is None:
        return LIST_USUAL
    if not (raw.isascii() and raw.isdigit() and 0 < int(raw[:9]) <= LIST_MAX):
        raise BadRequestError(f"'limit' must be a number from 1 to {LIST_MAX:,}.", field="limit")
    return int(raw)


def _state(raw: str | None) -> JobState | None:
    if raw is None:
        return None
    if raw not in list(JobState):
        raise BadRequestError(f"'state' must be one of {', '.join(JobState)}.", field="state")
    return JobState(raw)


def _is_local(request: web.Request) -> bool:
    """Whether the request came from this computer."""
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return name is not None and is_loopback(str(name[0]).partition("%")[0])
