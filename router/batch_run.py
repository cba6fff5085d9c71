"""The life of one batch: its file is checked, its lines run as jobs a few at a time, its results become files."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from router.aio import Clock
from router.archive import Archive
from router.batch_lines import RESPONSES, Reading, answered, body_of, checked, refused
from router.batch_results import finish
from router.batch_rows import BatchRow, BatchRows, Line
from router.errors import BadRequestError, ModelNotFoundError, QuorumError, StoreError, failure
from router.files import Files
from router.intake import Intake
from router.jobs import Job, Origin
from router.responses import Responses
from router.rounds import HOLDER_KEPT_S
from router.scheduler import Scheduler
from router.states import JobState
from router.web.canonical import Checked
from router.web.responses_events import Translator
from router.web.responses_shapes import kept, response_of
from router.wire import Ended, State

log = logging.getLogger(__name__)

WINDOW: Final = 256
WINDOW_BYTES: Final = 64 * 1024 * 1024
AGAIN_S: Final = 5.0
WRITE_AGAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Tools:
    """What a batch needs of the node. ``admits`` says whether all batches together may run one more line."""

    rows: BatchRows
    files: Files
    intake: Intake
    scheduler: Scheduler
    archive: Archive
    responses: Responses
    clock: Clock
    admits: Callable[[], bool]


class _Live:
    """A line that runs: a Reader that collects its answer. ``asked`` is a response's request, else None."""

    keeps = True

    def __init__(self, run: BatchRun, line: Line, job: Job, asked: dict[str, Any] | None) -> None:
        self.line = line
        self.job = job
        self.asked = asked
        self._run = run
        self._parts: list[bytes] = []

    def content(self, events: bytes, seq: int) -> None:
        """Collect."""
        self._parts.append(events)

    def state(self, state: State) -> None:
        """Nobody is told."""

    def reset(self) -> None:
        """Another try answers from the start."""
        self._parts.clear()

    def ended(self, ended: Ended) -> None:
        """The last call, in the same turn as the job's own last row: both are written together."""
        self._run.line_ended(self, ended, b"".join(self._parts))


class BatchRun:
    """One unfinished batch. ``row`` is the batch as it is shown; its counts are of results that are on the disk."""

    def __init__(self, row: BatchRow, tools: Tools) -> None:
        self.row = row
        self.live: dict[int, _Live] = {}
        self._tools = tools
        self._changed = asyncio.Event()
        self._pending: deque[Line] = deque()
        self._writing: set[int] = set()
        self._taken_up = False
        self._ran: set[str] = set()
        self._missing: dict[str, float] = {}
        self._after = 0
        self._all_taken = False

    @property
    def cancelling(self) -> bool:
        """Whether its end was asked for."""
        return self.row.cancelling_at is not None

    async def cancel(self) -> None:
        """Run no more lines and end those that run; once it has its results, nothing happens. Raises StoreError."""
        if self.row.status in ("validating", "in_progress"):
            await self._save(status="cancelling", cancelling_at=self._tools.clock.wall())
            for live in tuple(self.live.values()):
                self._tools.scheduler.cancel(live.job.id)
            self._changed.set()

    async def _save(self, **changes: Any) -> None:
        """Change the batch, on the disk when this returns. Raises StoreError; then it is as it was."""
        before = {name: getattr(self.row, name) for name in changes}
        for name, value in changes.items():
            setattr(self.row, name, value)
        try:
            await self._tools.rows.save(self.row)
        except StoreError:
            for name, value in before.items():
                setattr(self.row, name, value)
            raise

    async def run(self) -> None:
        """To its end, through failures of the disk."""
        while self.row.unfinished:
            try:
                await self._go_on()
            except StoreError as error:
                log.warning("a batch waits for the disk: %s", error.message)
                await self._wait(AGAIN_S)

    async def _go_on(self) -> None:
        """One step of its life; called again after a failure of the disk."""
        if self.row.status == "validating":
            await self._validate()
        if self.row.status in ("in_progress", "cancelling"):
            await self._take_up()
            await self._work()
        if self.row.status in ("finalizing", "cancelling"):
            self.row = await finish(self._tools.rows, self._tools.files, self.row, self._tools.clock.wall())
        await self._tools.rows.drop_lines(self.row.row_id)

    # -- the input file

    def _input(self) -> Path:
        return self._tools.files.place_of(self.row.input_file)

    async def _validate(self) -> None:
        """Check every line before the first one runs; a crash in between begins anew."""
        rows, row = self._tools.rows, self.row
        await rows.drop_lines(row.row_id)
        reading = Reading(row.endpoint)
        try:
            file = await asyncio.to_thread(self._input().open, "rb")
        except OSError:
            await self._fail([{"code": "invalid_file", "message": "The input file can't be read."}])
            return
        try:
            while not reading.over and not self.cancelling:
                lines = await asyncio.to_thread(reading.block, file)
                if lines and not reading.errors:
                    await rows.add_lines(row.row_id, lines)
        finally:
            await asyncio.to_thread(file.close)
        if reading.faults():
            await self._fail(reading.errors)
            return
        row.total = reading.count
        if row.status == "validating":
            await self._save(status="in_progress", in_progress_at=self._tools.clock.wall())

    async def _fail(self, errors: list[dict[str, Any]]) -> None:
        await self._save(status="failed", errors=errors, failed_at=self._tools.clock.wall())

    # -- lines

    async def _take_up(self) -> None:
        """What an earlier run of the node left: counts, and the jobs of the lines that ran."""
        if self._taken_up:
            return
        rows, row_id = self._tools.rows, self.row.row_id
        await rows.save(self.row)  # no line runs while the disk could still say that none was checked
        self.row.completed, self.row.failed = await rows.counts(row_id)
        found: list[Line] = []
        while lines := await rows.lines(row_id, ("running",), found[-1].number if found else 0):
            found += lines
        self._ran |= await rows.models(row_id)
        self._taken_up = True
        for line in found:
            await self._attach(line)

    async def _attach(self, line: Line) -> None:
        """Follow the job of a line again; without it, or without its answer, the line runs anew."""
        job = await self._tools.archive.job(line.job_id or "")
        if job is None or (job.state is JobState.DONE and not job.answer.chunks):
            self._pending.append(line)
            return
        asked = None
        if self.row.endpoint == RESPONSES:
            asked = kept(body_of(await asyncio.to_thread(_read, self._input(), line)))
        live = self.live[line.number] = _Live(self, line, job, asked)
        job.answer.attach(live)
        if self.cancelling:
            self._tools.scheduler.cancel(job.id)

    async def _work(self) -> None:
        """Until every line has its result, or the batch is cancelled and nothing of it runs."""
        delay_s: float | None = None
        while True:
            if not self.cancelling:
                delay_s = await self._admit()
            taken = self.cancelling or (self._all_taken and not self._pending)
            if taken and not self.live and not self._writing:
                break
            await self._wait(delay_s)
        if self.row.status == "in_progress":
            await self._save(status="finalizing", finalizing_at=self._tools.clock.wall())

    async def _wait(self, limit_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._changed.wait()
        self._changed.clear()

    async def _admit(self) -> float | None:
        """Let lines run as long as there is room; the seconds to wait when the queue takes no more, or nobody runs it.

        Raises StoreError.
        """
        while not self.cancelling and self._has_room() and await self._more():
            line = self._pending.popleft()
            try:
                await self._start(line)
            except QuorumError as error:
                if self._passes(error):
                    self._pending.appendleft(line)
                    return error.retry_after_s or AGAIN_S
                param = error.field if isinstance(error, BadRequestError) else None
                self._record(line, "failed", refused(self.row.id, line, "", error.info(), param))
            except OSError as error:
                told = failure("internal", f"The input file can't be read: {error.strerror}.")
                self._record(line, "failed", refused(self.row.id, line, "", told))
        return None

    def _passes(self, error: QuorumError) -> bool:
        """Whether a line that can't become a job now may do so later: a model that ran others is only away."""
        if isinstance(error, ModelNotFoundError) and error.name in self._ran:
            now = self._tools.clock.mono()
            return now - self._missing.setdefault(error.name, now) < HOLDER_KEPT_S
        return error.status >= 500 or error.status == 429

    def _has_room(self) -> bool:
        used = sum(len(live.job.body) for live in self.live.values())
        return not self.live or (len(self.live) < WINDOW and used < WINDOW_BYTES and self._tools.admits())

    async def _more(self) -> bool:
        """Read on in the list of lines; False at its end."""
        if not self._pending and not self._all_taken:
            lines = await self._tools.rows.lines(self.row.row_id, ("waiting",), self._after)
            self._pending += lines
            self._after = lines[-1].number if lines else self._after
            self._all_taken = not lines
        return bool(self._pending)

    async def _start(self, line: Line) -> None:
        """One line becomes a job. Raises QuorumError, OSError."""
        body = body_of(await asyncio.to_thread(_read, self._input(), line))
        request, asked = await self._request(body)
        job = self._tools.intake.job(request, Origin.JOBS, key_id=self.row.key_id)
        job.batch = True
        live = _Live(self, line, job, asked)
        job.answer.attach(live)
        self.live[line.number] = live
        try:
            await self._tools.intake.submit(job)
        except BaseException:
            del self.live[line.number]
            raise
        self._ran.add(job.model)
        self._missing.pop(job.model, None)
        self._tools.rows.assign(self.row.row_id, line, job.id)
        if self.cancelling:
            self._tools.scheduler.cancel(job.id)

    async def _request(self, body: dict[str, Any]) -> tuple[Checked, dict[str, Any] | None]:
        if self.row.endpoint != RESPONSES:
            return checked(self.row.endpoint, body), None
        return await self._tools.responses.checked(body, self.row.key_id)

    # -- results

    def line_ended(self, live: _Live, ended: Ended, said: bytes) -> None:
        """A job of this batch has ended; what it said is the line's result, unless the batch itself ended it."""
        error, line, job = ended.error, live.line, live.job
        if error is None:
            said = said if live.asked is None else _as_response(job, live.asked, said, ended)
            self._record(line, "completed", answered(self.row.id, line, job.id, said))
        elif error.code == "cancelled" and self.cancelling:
            del self.live[line.number]
            self._changed.set()
        else:
            self._record(line, "failed", refused(self.row.id, line, job.id, error))

    def _record(self, line: Line, state: str, result: bytes) -> None:
        """The line has its result; it counts once that is on the disk."""
        self.live.pop(line.number, None)
        self._writing.add(line.number)
        self._write(line, state, result)

    def _write(self, line: Line, state: str, result: bytes) -> None:
        def written(done: asyncio.Future[Any]) -> None:
            if done.cancelled():
                return
            if done.exception() is not None:  # the disk refuses: again until it takes it
                asyncio.get_running_loop().call_later(WRITE_AGAIN_S, self._write, line, state, result)
                return
            self._writing.discard(line.number)
            self.row.completed += state == "completed"
            self.row.failed += state == "failed"
            self._changed.set()

        with contextlib.suppress(StoreError):  # the node has stopped: at its next start the line runs anew
            self._tools.rows.record(self.row.row_id, line, state, result).add_done_callback(written)


def _read(path: Path, line: Line) -> bytes:
    with path.open("rb") as file:
        file.seek(line.start)
        return file.read(line.length)


def _as_response(job: Job, asked: dict[str, Any], said: bytes, ended: Ended) -> bytes:
    """A chat completion as the Response object that the endpoint gives."""
    translator = Translator(response_of(job.id, asked | {"store": False}, job.created_at), job.id)
    translator.whole(said)
    translator.end(ended, job.completed_at)
    return msgspec.json.encode(translator.response)
