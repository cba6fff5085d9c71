"""Server-Sent Event streams that follow something: a job's answer (re-attachable), the node's changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import HttpVersion11, web

from router.answer import Answer
from router.errors import BadRequestError
from router.events import OVERFLOW, Bus
from router.jobs import Job
from router.wire import Ended, Snapshot, State, Wire

BEAT_S = 15.0
QUEUE_MAX = 4096


def event(name: str, value: Wire) -> bytes:
    """One named event."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(value))


class _QueueReader:
    """A Reader that hands everything to one stream. One that falls far behind is cut and may re-attach."""

    keeps = False

    def __init__(self, answer: Answer) -> None:
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._answer = answer

    def _put(self, data: bytes | None) -> None:
        if self.queue.qsize() < QUEUE_MAX:
            self.queue.put_nowait(data)
        else:
            self._answer.detach(self)
            self.queue.put_nowait(None)

    def content(self, events: bytes, seq: int) -> None:
        """Each event gets its id, ``try.seq``, and keeps its data alone: other fields are this stream's own."""
        if self._answer.content_type == "application/json":
            whole = [b"\n".join(b"data: " + line for line in events.splitlines())]
        else:
            whole = [
                b"\n".join(line for line in one.split(b"\n") if line.startswith(b"data:"))
                for one in events.split(b"\n\n")[:-1]
            ]
        try_no = self._answer.try_no
        made = b"".join(b"id: %d.%d\n%b\n\n" % (try_no, no, data) for no, data in enumerate(whole, seq) if data)
        if made:
            self._put(made)

    def state(self, state: State) -> None:
        """A move."""
        self._put(event("state", state))

    def reset(self) -> None:
        """What came before is void."""
        self._put(b"event: reset\ndata: {}\n\n")

    def ended(self, ended: Ended) -> None:
        """The last event."""
        self._put(event("ended", ended))
        self._put(None)


def last_event_id(request: web.Request) -> tuple[int, int] | None:
    """The ``Last-Event-ID`` header as (try, seq). Raises BadRequestError."""
    raw = request.headers.get("Last-Event-ID", "")
    if not raw:
        return None
    left, _, right = raw.partition(".")
    if not (left.isascii() and left.isdigit() and right.isascii() and right.isdigit() and len(raw) <= 40):
        raise BadRequestError("Last-Event-ID must be an id this stream gave, such as 1.42.", field="Last-Event-ID")
    return int(left), int(right)


async def event_stream(request: web.Request) -> web.StreamResponse:
    """Open an event stream to the client of ``request``."""
    response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
    response.content_type = "text/event-stream"
    if request.version >= HttpVersion11:
        response.enable_chunked_encoding()
    else:
        response.force_close()  # as in sink.stream_answer
    await response.prepare(request)
    return response


async def follow_answer(request: web.Request, answer: Answer, job: Job | None) -> web.StreamResponse:
    """Replay what the client missed, then follow to the end."""
    after = last_event_id(request)
    reader = _QueueReader(answer)
    if job is not None:
        reader.state(job.news())
    answer.attach(reader, after)
    try:
        response = await event_stream(request)
        while (data := await _next(reader.queue)) is not None:
            await response.write(data)
        await response.write_eof()
        return response
    finally:
        answer.detach(reader)


async def _next(queue: asyncio.Queue[bytes | None]) -> bytes | None:
    """The next data, or a comment when none came for a while."""
    try:
        async with asyncio.timeout(BEAT_S):
            return await queue.get()
    except TimeoutError:
        return b": beat\n\n"


async def follow_node(
    request: web.Request, bus: Bus, snapshot: Callable[[], Awaitable[Snapshot]]
) -> web.StreamResponse:
    """A snapshot, then changes; after an overflow a new snapshot. The queue opens first, so nothing falls between."""
    with bus.queue() as queue:
        response = await event_stream(request)
        await response.write(event("snapshot", await snapshot()))
        while True:
            item: Any = None
            try:
                async with asyncio.timeout(BEAT_S):
                    item = await queue.get()
            except TimeoutError:
                await response.write(b": beat\n\n")
                continue
            if item is OVERFLOW:
                await response.write(event("snapshot", await snapshot()))
            elif item is None:
                return response
            else:
                await response.write(event("change", item))
