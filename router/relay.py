"""One attempt: send the canonical request to one engine, copy its answer to the readers, report an Outcome.

Streams pass in whole events. Until the first content (the commit point) every event is read; afterwards chunks are
copied as they come, and only their tail is looked at. Failures are values; only cancellation leaves as an exception.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from router.aio import Clock
from router.chunks import NOT_JSON, Facts, error_sentence, has_content, last_facts, numbers, sentence, stream_error
from router.engines.base import Call, Engine, Reply
from router.errors import EngineFault, failure
from router.jobs import Job, Outcome, Result
from router.states import JobState
from router.wire import ErrorInfo, Receipt, State

FIRST_CONTENT_S = 120.0
BETWEEN_CONTENT_S = 30.0
LOADING_S = 300.0  # of a load on another computer that comes no further
WHOLE_JOB_S = 1800.0
EVENT_MAX_BYTES = 8 * 1024 * 1024
BODY_MAX_BYTES = 64 * 1024 * 1024
KEPT_MAX_BYTES = 64 * 1024 * 1024  # of the answer of a job that lives on; any other is passed on and forgotten
ERROR_MAX_BYTES = 64 * 1024
REST_S = 0.05
TAIL_CHUNKS = 4
LOOKS = 30

_DONE = b"data: [DONE]\n\n"
_DONE_LINES = (b"data: [DONE]", b"data:[DONE]")
_BLANK_LINES = re.compile(rb"\n{3,}")
_MEASURED = ("prompt_tokens", "cached_tokens", "completion_tokens", "prefill_per_s", "tokens_per_s")
_TERMINAL = frozenset({400, 413, 415, 422})


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds one attempt may take: to its first content, between contents, in all."""

    first_content_s: float = FIRST_CONTENT_S
    between_content_s: float = BETWEEN_CONTENT_S
    whole_s: float = WHOLE_JOB_S


class Relay:
    """The state of one attempt. ``hung``: it was given up because nothing that counts came for too long."""

    def __init__(self, job: Job, clock: Clock, limits: Limits) -> None:
        self.hung = False
        self._job = job
        self._answer = job.answer
        self._clock = clock
        self._limits = limits
        self._began = clock.mono()
        self._committed = False
        self._last = self._began
        self._ttft_s: float | None = None
        self._held = bytearray()
        self._tail: deque[bytes] = deque(maxlen=TAIL_CHUNKS)
        self._events = 0
        self._carry = bytearray()
        self._end: Outcome | None = None
        self._there: JobState | None = None
        self._loaded_pct: int | None = None
        self._load_mono = 0.0

    def heard(self, state: State) -> None:
        """Another computer tells how the job stands there: while it waits or loads, no content is awaited.

        Once it works there the wait is over, whatever is told later: words alone never move the limit.
        """
        if self._there is JobState.WORKING or self._committed:
            return
        now = self._clock.mono()
        if state.state is JobState.LOADING and (
            self._there is not JobState.LOADING or (state.loading_pct or 0) > (self._loaded_pct or 0)
        ):
            self._load_mono, self._loaded_pct = now, state.loading_pct
        if self._waits_there:
            self._last = now
        self._there = state.state

    @property
    def _waits_there(self) -> bool:
        if self._there is JobState.LOADING:
            return self._clock.mono() - self._load_mono < LOADING_S
        return self._there is JobState.QUEUED

    async def run(self, engine: Engine, call: Call) -> Outcome:
        """Make the attempt; returns how it ended. Cancelling it stops the generation."""
        try:
            async with asyncio.timeout(self._limits.whole_s) as whole:
                watch = _Watch(whole, self)
                try:
                    async with engine.call(call) as reply:
                        if reply.status != 200:
                            return await self._refused(reply)
                        if call.stream:
                            return await self._stream(reply)
                        return await self._body(reply)
                finally:
                    watch.cancel()
        except EngineFault as fault:
            outcome = self._broken(fault.info(), retryable=fault.retryable)
            return replace(outcome, crashed=fault.crashed, lasting=fault.lasting)
        except TimeoutError:
            if self._end is not None:
                return self._end
            self.hung = not self._spent()
            return self._broken(failure("deadline_exceeded", self._silence()), retryable=self.hung)

    # -- ends

    def _broken(self, error: ErrorInfo, *, retryable: bool) -> Outcome:
        """A failure: after content was sent it is an interruption, before that somebody else may try.

        Content of a job that nobody follows was sent to nobody: it may be said anew.
        """
        if self._committed and (self._answer.heard or not retryable):
            return self._outcome(Result.INTERRUPTED, failure("interrupted", f"The answer broke off. {error.message}"))
        return self._outcome(Result.FAILED if retryable else Result.REJECTED, error)

    def _spent(self) -> bool:
        return self._clock.mono() - self._began >= self._limits.whole_s

    def _silence(self) -> str:
        if self._spent():
            return f"The job took longer than {self._limits.whole_s:g} s."
        limit = self._limits.between_content_s if self._committed else self._limits.first_content_s
        return f"The engine said nothing for {limit:g} s."

    async def _refused(self, reply: Reply) -> Outcome:
        """The engine's own error: its sentence is passed on, its shape is not."""
        body = b""
        async for chunk in reply.chunks:
            body += chunk
            if len(body) > ERROR_MAX_BYTES:
                break
        said = error_sentence(body) or f"The engine answered {reply.status}."
        if reply.status in _TERMINAL:
            code = "payload_too_large" if reply.status == 413 else "bad_request"
            return self._outcome(Result.REJECTED, failure(code, said))
        return self._outcome(Result.FAILED, failure("engine_failed", said))

    def _outcome(self, result: Result, error: ErrorInfo | None = None, facts: dict[str, Any] | None = None) -> Outcome:
        duration_s = self._clock.mono() - self._began
        counts = numbers(facts or {})
        completion = counts.get("completion_tokens")
        if completion is None and self._events:
            completion = self._events
        rate = counts.get("tokens_per_s")
        if rate is None and completion and self._ttft_s is not None and duration_s > self._ttft_s:
            rate = completion / (duration_s - self._ttft_s)
        return Outcome(
            result=result,
            error=error,
            ttft_s=self._ttft_s,
            duration_s=duration_s,
            tokens=completion or 0,
            prompt_tokens=counts.get("prompt_tokens"),
            cached_tokens=counts.get("cached_tokens"),
            completion_tokens=completion,
            prefill_per_s=counts.get("prefill_per_s"),
            tokens_per_s=round(rate, 2) if rate else None,
        )

    # -- a whole body

    async def _body(self, reply: Reply) -> Outcome:
        parts = []
        size = 0
        async for chunk in reply.chunks:
            parts.append(chunk)
            size += len(chunk)
            if size > BODY_MAX_BYTES:
                return self._outcome(Result.FAILED, failure("engine_failed", "The engine's answer is too long."))
        body = b"".join(parts)
        try:
            facts = msgspec.json.decode(body, type=Facts)
        except NOT_JSON:
            return self._outcome(Result.FAILED, failure("engine_failed", "The engine's answer is not a JSON object."))
        if facts.error is not None:
            said = sentence(facts.error) or "The engine reports an error."
            return self._outcome(Result.FAILED, failure("engine_failed", said))
        self._committed = True
        self._answer.content_type = "application/json"
        self._answer.feed(body, 1)
        done = self._outcome(Result.DONE, facts={"usage": facts.usage, "timings": facts.timings})
        return _with_facts(done, reply.facts)

    # -- a stream

    async def _stream(self, reply: Reply) -> Outcome:
        """Copy events until ``[DONE]``; an end without it is a broken stream."""
        self._answer.content_type = "text/event-stream"
        self._answer.gate = reply
        try:
            await reply.each(self._came)
            if self._end is None and bytes(self._carry).strip() in _DONE_LINES:
                self._end = self._events_came(_DONE)
            if self._end is None:
                error = failure("engine_failed", "The engine closed the stream before its end.")
                return self._broken(error, retryable=True)
            if self._end.result is Result.DONE:
                await _rest(reply)
                return _with_facts(self._end, reply.facts)
            return self._end
        finally:
            self._answer.gate = None

    def _came(self, chunk: bytes) -> bool:
        """Bytes came: pass whole events on, keep the rest. True when the stream has ended."""
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r", b"")
        if self._carry:
            self._carry += chunk
            if b"\n" not in chunk:
                return self._endless()
            chunk = bytes(self._carry)
        elif chunk.startswith(b"\n"):
            chunk = chunk.lstrip(b"\n")
        if b"\n\n\n" in chunk:
            chunk = _BLANK_LINES.sub(b"\n\n", chunk)
        cut = chunk.rfind(b"\n\n") + 2
        if cut == 1:
            self._carry = bytearray(chunk)
            return self._endless()
        if cut == len(chunk):
            self._carry.clear()
            self._end = self._events_came(chunk)
        else:
            self._carry = bytearray(chunk[cut:])
            self._end = self._events_came(chunk[:cut])
        return self._end is not None

    def _endless(self) -> bool:
        if len(self._carry) > EVENT_MAX_BYTES:
            error = failure("engine_failed", "The engine sent an endless line.")
            self._end = self._broken(error, retryable=True)
        return self._end is not None

    def _events_came(self, events: bytes) -> Outcome | None:
        """Whole events; returns the outcome when they end the stream."""
        done = False
        if b"[DONE]" in events:
            events, done = _up_to_done(events)
        if b'"error"' in events and (found := stream_error(events)) is not None:
            before, error = found
            if self._committed and before:
                self._feed(before)
            return self._broken(error, retryable=True)
        now = self._clock.mono()
        if not self._committed:
            self._held += events
            if not done and not has_content(events):
                if len(self._held) > EVENT_MAX_BYTES:
                    return self._broken(failure("engine_failed", "The engine sends no content."), retryable=True)
                return None
            events, self._held = bytes(self._held), bytearray()
            self._committed = True
            self._there = JobState.WORKING
            self._ttft_s = round(now - self._began, 5)
            self._last = now
        elif now - self._last > self._limits.between_content_s / LOOKS and has_content(events):
            self._last = now  # only content counts, and looking once in a while is enough
        if self._answer.keep and self._answer.size + len(events) > KEPT_MAX_BYTES:
            return self._broken(failure("engine_failed", "It grew longer than what is kept of one."), retryable=False)
        self._feed(events)
        if done:
            self._events = max(0, self._events - 3)  # role, finish reason, [DONE]
            return self._outcome(Result.DONE, facts=last_facts(b"".join(self._tail)))
        return None

    def _feed(self, events: bytes) -> None:
        count = events.count(b"\n\n")
        self._answer.feed(events, count)
        self._events += count
        self._tail.append(events)


def _up_to_done(events: bytes) -> tuple[bytes, bool]:
    """``events`` up to the first ``[DONE]`` line, and whether there is one; text may say the word."""
    start = 0
    for line in events.split(b"\n"):
        if line.rstrip() in _DONE_LINES:
            return events[:start] + _DONE, True
        start += len(line) + 1
    return events, False


def _with_facts(done: Outcome, facts: Receipt | None) -> Outcome:
    """What the answer itself did not say, as the computer that ran the job measured it."""
    if facts is None:
        return done
    told = {name: getattr(facts, name) for name in _MEASURED}
    missing = {
        name: value for name, value in told.items() if value is not None and value >= 0 and getattr(done, name) is None
    }
    queued_s, loading_s = max(0.0, facts.queued_s), max(0.0, facts.loading_s)
    return replace(done, queued_there_s=queued_s, loading_there_s=loading_s, **missing)


async def _rest(reply: Reply) -> None:
    """Read the little that may follow the last event, so that the connection can serve again."""
    with contextlib.suppress(TimeoutError, EngineFault):
        async with asyncio.timeout(REST_S):
            async for _ in reply.chunks:
                return


class _Watch:
    """Moves the attempt's deadline up when nothing comes. One timer an attempt, not one a chunk."""

    def __init__(self, whole: asyncio.Timeout, relay: Relay) -> None:
        self._whole = whole
        self._relay = relay
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        if relay._job.stream:
            self._again(relay._limits.first_content_s)

    def _again(self, delay_s: float) -> None:
        """Content may come meanwhile: from then on the next one is awaited, which is shorter."""
        self._handle = self._loop.call_later(min(delay_s, self._relay._limits.between_content_s), self._look)

    def _look(self) -> None:
        relay = self._relay
        if relay._answer.blocked or relay._waits_there:  # the client is slow, or the job waits elsewhere
            relay._last = relay._clock.mono()
        limit = relay._limits.between_content_s if relay._committed else relay._limits.first_content_s
        left = limit - (relay._clock.mono() - relay._last)
        if left > 0.001:
            self._again(left)
        elif not self._whole.expired():
            self._whole.reschedule(self._loop.time())

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
