"""Answers that can still be fetched: of live jobs from memory, of ended ones from memory or the store."""

from __future__ import annotations

from router.answer import Answer
from router.job_row import JobRow
from router.job_rows import JobRows
from router.jobs import Job
from router.placement import Decision, HolderView
from router.records import job_of
from router.scheduler import Scheduler
from router.states import JobState
from router.wire import Ended, JobInfo

KEPT_ANSWERS = 256
KEPT_BYTES = 64 * 1024 * 1024


class Archive:
    """One door to a job, wherever it is now."""

    def __init__(self, rows: JobRows, scheduler: Scheduler) -> None:
        self._rows = rows
        self._scheduler = scheduler
        self._recent: dict[str, Answer] = {}
        self._sizes: dict[str, int] = {}
        self._size = 0

    def keep(self, job: Job) -> None:
        """Remember the answer of a job that was asked to live on and ends; the oldest ones leave memory."""
        self._remember(job.id, job.answer)
        while len(self._recent) > KEPT_ANSWERS or (self._size > KEPT_BYTES and len(self._recent) > 1):
            self._forget(next(iter(self._recent)))

    def _remember(self, job_id: str, answer: Answer) -> None:
        self._forget(job_id)
        self._recent[job_id] = answer
        self._sizes[job_id] = answer.size
        self._size += answer.size

    def _forget(self, job_id: str) -> None:
        self._recent.pop(job_id, None)
        self._size -= self._sizes.pop(job_id, 0)

    async def answer(self, job_id: str) -> Answer | None:
        """The job's answer to read or to follow; None when there is no such job or nothing of it was kept."""
        live = self._scheduler.jobs.get(job_id)
        if live is not None:
            return live.answer
        if (recent := self._recent.get(job_id)) is not None:
            return recent
        row = await self._rows.get(job_id)
        return None if row is None or row.state.live else await self._stored(row)

    async def _stored(self, row: JobRow) -> Answer:
        answer = Answer(keep=True, try_no=row.try_no, end=Ended(state=row.state, receipt=row.receipt, error=row.error))
        whole = await self._rows.read_answer(row.id)
        if whole is not None:
            body, answer.content_type = whole
            answer.chunks = [(0, body)] if body else []
        else:
            answer.chunks = await self._rows.read_chunks(row.id, row.try_no)
            answer.content_type = "text/event-stream"
        answer.events = sum(data.count(b"\n\n") or 1 for _, data in answer.chunks)
        return answer

    async def newest_of_peers(self) -> dict[str, str]:
        """The greatest id of a job that each peer has sent, by the peer's node id."""
        return await self._rows.newest_of_peers()

    async def had(self, node_id: str, job_id: str, try_no: int) -> bool:
        """Whether this try of a peer's job made a job here, in this run or an earlier one."""
        return await self._rows.by_origin(node_id, job_id, try_no) is not None

    async def job(self, job_id: str) -> Job | None:
        """The job itself, live or as it ended, with what is kept of its answer; None when there is no such job."""
        live = self._scheduler.jobs.get(job_id)
        if live is not None:
            return live
        row = await self._rows.get(job_id)
        if row is None:
            return None
        job = ended_job(row)
        job.answer = self._recent.get(job_id) or await self._stored(row)
        return job

    async def request(self, job_id: str) -> bytes | None:
        """What a job was asked, in canonical form, while it is kept."""
        return await self._rows.read_request(job_id)

    def set_asked(self, job_id: str, asked: bytes) -> None:
        """Keep what a response was asked; written with the row of a job submitted just now."""
        self._rows.set_asked(job_id, asked)

    async def promise_asked(self, job_id: str, asked: bytes) -> None:
        """The same, on the disk when this returns. Raises StoreError."""
        await self._rows.promise_asked(job_id, asked)

    async def forget(self, job_id: str) -> None:
        """Drop what a job was asked and what it said; its row stays."""
        self._forget(job_id)
        await self._rows.forget(job_id)

    def blank(self, job: Job) -> None:
        """The job just ended and what it said is not to be kept: whoever asks from now on is told how it ended."""
        if job.id in self._recent:
            end = Ended(state=job.state, receipt=job.receipt, error=job.error)
            self._remember(job.id, Answer(keep=True, try_no=job.try_no, end=end))

    def blank_all(self) -> None:
        """The same for all that have ended."""
        for job_id, answer in tuple(self._recent.items()):
            if answer.end is not None:
                self._remember(job_id, Answer(keep=True, try_no=answer.try_no, end=answer.end))

    async def recent(
        self, limit: int, state: JobState | None = None, before: str | None = None, *, key_id: str | None = None
    ) -> list[JobInfo]:
        """The newest jobs first: see ``JobRows.recent``. Those that wait say where."""
        infos = []
        for row in await self._rows.recent(limit, state, before, key_id=key_id):
            live = self._scheduler.jobs.get(row.id)
            infos.append(info_of(row) if live is None or live.state is not row.state else live.info())
        return infos

    async def ended(self, limit: int) -> list[JobInfo]:
        """The newest jobs that have ended, in the order they ended."""
        infos = [info_of(row) for row in await self._rows.ended(limit)]
        return sorted(infos, key=lambda info: info.completed_at or info.created_at)

    async def info(self, job_id: str) -> JobInfo | None:
        """The job as lists show it; None when there is no such job."""
        live = self._scheduler.jobs.get(job_id)
        if live is not None:
            self._scheduler.survey()
            return live.info()
        row = await self._rows.get(job_id)
        return None if row is None else info_of(row)


def ended_job(row: JobRow) -> Job:
    """A stored job as it was when it ended."""
    job = job_of(row, b"", 0.0)
    if (receipt := row.receipt) is not None:
        holder = HolderView(
            node=receipt.node,
            engine=receipt.engine,
            model=receipt.model,
            local=False,
            warm=False,
            in_flight=0,
            waiting=0,
            width=1,
        )
        job.decision = Decision(holder, receipt.reason, tuple(receipt.verdicts))
        job.started_mono, job.loading_s = receipt.queued_s, receipt.loading_s
    return job


def info_of(row: JobRow) -> JobInfo:
    """A stored job as lists show it."""
    return JobInfo(
        id=row.id,
        kind=row.kind,
        origin=row.origin,
        model=row.model,
        state=row.state,
        created_at=row.created_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
        attempt=row.attempt,
        tokens=(row.receipt.completion_tokens or 0) if row.receipt else 0,
        node=row.node,
        engine=row.engine,
        chat_id=row.chat_id,
        key=row.person or None,
        error=row.error,
        receipt=row.receipt,
    )
