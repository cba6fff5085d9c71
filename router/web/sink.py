"""From a job's answer to one HTTP client: headers are held until the first content, then chunks go out as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec
from aiohttp import HttpVersion11, web

from router.errors import QuorumError
from router.jobs import Job
from router.states import JobState
from router.wire import Ended, ErrorInfo, State

HOLD_S = 5.0
NEWS_S = 5.0
BLOCK_BYTES = 256 * 1024
DROP_BYTES = 8 * 1024 * 1024
LOOK_AGAIN_S = 0.05
STALL_S = 30.0
LOADING_PATIENCE_S = 60.0

_encode = msgspec.json.Encoder().encode


class Dialect(Protocol):
    """How one API says things in a stream. One object a request; it may keep state."""

    content_type: str

    def content(self, events: bytes) -> bytes:
        """Canonical events (OpenAI's SSE) in this dialect; may be empty."""

    def waiting(self, state: State) -> bytes:
        """A sign of life that clients of this dialect ignore."""

    def last(self, ended: Ended) -> bytes:
        """The end after content: empty when ``content`` already said it, the error event when it broke off."""


def job_headers(job: Job) -> dict[str, str]:
    """What is known of a job when its answer begins; it names the holder that really serves."""
    chosen = job.decision.chosen if job.decision else None
    return {
        "X-Quorum-Job": job.id,
        "X-Quorum-Node": chosen.node if chosen else "",
        "X-Quorum-Reason": job.decision.reason if job.decision else "",
        "X-Quorum-Attempts": str(max(1, job.try_no)),
        "X-Quorum-Queued-Ms": str(round(job.queued_s * 1000)),
    }


class StreamSink:
    """A Reader that writes to one client. After ``open`` every chunk is one write on the transport."""

    keeps = False

    def __init__(self, job: Job, dialect: Dialect) -> None:
        loop = asyncio.get_running_loop()
        self.began: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[Ended] = loop.create_future()
        self.pending: list[bytes] = []
        self._job = job
        self._dialect = dialect
        self._transport: asyncio.Transport | None = None
        self._chunked = True
        self._blocked_looks = 0

    def content(self, events: bytes, seq: int) -> None:
        """Write, or keep until the headers are out."""
        data = self._dialect.content(events)
        if self._transport is None:
            self.pending.append(data)
            self._begin()
        elif data:
            self._write(data)

    def state(self, state: State) -> None:
        """Moves are told by the waiting loop."""

    def reset(self) -> None:
        """Nothing was sent yet, or this try could not have begun."""
        self.pending.clear()

    def ended(self, ended: Ended) -> None:
        """The last call."""
        if not self.done.done():
            self.done.set_result(ended)
        self._begin()

    def _begin(self) -> None:
        if not self.began.done():
            self.began.set_result(None)

    def open(self, transport: asyncio.Transport, *, chunked: bool) -> None:
        """From now on content goes straight to ``transport``, whose head and first chunk are written."""
        self._transport = transport
        self._chunked = chunked
        for data in self.pending:
            self._write(data)
        self.pending.clear()

    def _write(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        size = transport.get_write_buffer_size()
        if size > BLOCK_BYTES:
            self._slow_client(size)

    def _slow_client(self, size: int) -> None:
        """A job of its own goes on without its reader; any other waits for its client, at most 30 s."""
        if self._job.keep:
            if size > DROP_BYTES and self._transport is not None:
                self._transport.abort()
        elif self not in self._job.answer.blocked:
            self._job.answer.block(self)
            self._blocked_looks = 0
            self._look_later()

    def _look_later(self) -> None:
        asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._look)

    def _look(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size() < BLOCK_BYTES // 4:
            self._job.answer.unblock(self)
            return
        self._blocked_looks += 1
        if self._blocked_looks * LOOK_AGAIN_S >= STALL_S:
            transport.abort()
            self._job.answer.unblock(self)
            return
        self._look_later()


async def stream_answer(
    request: web.Request,
    job: Job,
    dialect: Dialect,
    refuse: Callable[[ErrorInfo, Job], web.Response],
    survey: Callable[[], None],
) -> web.StreamResponse:
    """Send one job's answer as a stream. A failure before the first content gets its own status through ``refuse``."""
    sink = StreamSink(job, dialect)
    job.answer.attach(sink)
    try:
        # [4] the commit point: headers wait for content, an end, or 5 s
        await _within(sink.began, HOLD_S)
        if sink.done.done() and not sink.pending and (error := sink.done.result().error) is not None:
            return refuse(error, job)
        response = web.StreamResponse()
        response.content_type = dialect.content_type
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Accel-Buffering"] = "no"
        response.headers.update(job_headers(job) if sink.began.done() else {"X-Quorum-Job": job.id})
        chunked = request.version >= HttpVersion11
        if chunked:
            response.enable_chunked_encoding()
        else:
            response.force_close()  # only the end of the connection tells HTTP/1.0 where the body ends
        await response.prepare(request)
        while not sink.began.done():
            survey()
            await response.write(dialect.waiting(job.news()))
            await _within(sink.began, NEWS_S)
        first = b"".join(sink.pending)
        sink.pending.clear()
        await response.write(first)
        transport = request.transport
        if transport is None:
            return response
        sink.open(transport, chunked=chunked)
        ended = await sink.done
        if last := dialect.last(ended) + _receipt(request, dialect, ended):
            await response.write(last)
        await response.write_eof()
        return response
    finally:
        job.answer.detach(sink)


def _receipt(request: web.Request, dialect: Dialect, ended: Ended) -> bytes:
    """What is only known at the end, as a comment for who asked for it; nothing where a stream has no comments."""
    asked = request.headers.get("X-Quorum-Receipt") == "1" and dialect.content_type == "text/event-stream"
    return b": receipt %b\n\n" % _encode(ended.receipt) if asked and ended.receipt is not None else b""


async def _within(future: asyncio.Future[None], limit_s: float) -> None:
    """Wait for ``future``, at most ``limit_s`` seconds; its result is not taken."""
    if not future.done():
        await asyncio.wait((future,), timeout=limit_s)


class WholeSink:
    """A Reader that waits for the whole answer; after a minute of loading it gives up with ``model_loading``."""

    keeps = False

    def __init__(self, job: Job) -> None:
        self.parts: list[bytes] = []
        self.done: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._job = job
        self._patience: asyncio.TimerHandle | None = None

    def content(self, events: bytes, seq: int) -> None:
        """Keep it."""
        self.parts.append(events)

    def state(self, state: State) -> None:
        """The clock of the load runs while it loads."""
        if state.state is not JobState.LOADING:
            self.close()
        elif self._patience is None:
            self._patience = asyncio.get_running_loop().call_later(LOADING_PATIENCE_S, self._give_up)

    def _give_up(self) -> None:
        if not self.done.done():
            percent = self._job.loading_pct or 1
            left_s = LOADING_PATIENCE_S * (100 - percent) / percent
            error = QuorumError(
                "model_loading",
                f"'{self._job.model}' is still being loaded ({percent} %).",
                retry_after_s=min(300.0, max(5.0, left_s)),
            )
            self.done.set_exception(error)

    def reset(self) -> None:
        """Another try answers from the start."""
        self.parts.clear()

    def ended(self, ended: Ended) -> None:
        """The last call."""
        self.close()
        if not self.done.done():
            self.done.set_result(ended)

    def close(self) -> None:
        """Stop the clock."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


async def whole_answer(job: Job, go_on_loading: Callable[[str, str], None]) -> tuple[bytes, ErrorInfo | None]:
    """Wait for the end of a job: its body, or the error it ended with.

    Raises QuorumError (``model_loading``) after a minute of loading; the load then goes on for whoever comes back.
    """
    sink = WholeSink(job)
    job.answer.attach(sink)
    sink.state(job.news())
    try:
        ended = await sink.done
    except QuorumError:
        go_on_loading(job.model, "")
        raise
    finally:
        sink.close()
        job.answer.detach(sink)
    return b"".join(sink.parts), ended.error
