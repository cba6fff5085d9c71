"""Jobs into the store as they move, and back out of it at the next start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from router.aio import Clock
from router.answer import Answer
from router.chunk_log import ChunkLog
from router.engines.base import Kind
from router.errors import failure
from router.job_row import JobRow
from router.job_rows import JobRows
from router.jobs import Job, Origin
from router.runner import JobMoved
from router.states import JobState

_KINDS = {kind.name.lower(): kind for kind in Kind}


class Records:
    """Listens to moves and keeps each live job's row. Rows are written behind, in group commits."""

    def __init__(self, rows: JobRows, boot_id: str, forget: Callable[[], bool]) -> None:
        self._rows = rows
        self._boot_id = boot_id
        self._forget = forget
        self._live: dict[str, JobRow] = {}
        self.interrupted: list[JobMoved] = []

    def moved(self, event: JobMoved) -> None:
        """Save the job as it stands; the newest row wins when several wait for one commit."""
        job = event.job
        row = self._live.get(job.id)
        if row is None:
            if event.old is not None:
                return  # the store refused its row
            row = self._live[job.id] = self._row(job)
            if not job.held:
                self._rows.save(row, None if job.origin is Origin.PEER else job.body)
            if row.keep:
                job.answer.readers.insert(0, ChunkLog(self._rows, job.id, job.answer))
        else:
            self._update(row, job)
            if row.keep and not job.state.live and self._forget():
                row.keep = False
                self._rows.drop_chunks(job.id)
            self._rows.save(row)
        if not job.state.live:
            del self._live[job.id]
            if row.keep and job.state is JobState.DONE:
                self._rows.set_answer(job.id, b"".join(data for _, data in job.answer.chunks), job.answer.content_type)

    def committed(self, job: Job) -> asyncio.Future[None]:
        """A future that ends when the job, just submitted, is on the disk. It fails with StoreError."""
        return self._rows.save_durable(self._live[job.id], job.body if job.held else None)

    def refused(self, job: Job) -> None:
        """``committed`` failed: nothing of the job is written from now on."""
        self._live.pop(job.id, None)

    def _row(self, job: Job) -> JobRow:
        node, peer_job, peer_try = job.peer_try or (None, None, None)
        row = JobRow(
            row_id=job.seq,
            id=job.id,
            kind=job.kind.name.lower(),
            origin=job.origin,
            person=job.person,
            key_id=job.key_id,
            chat_id=job.chat_id,
            model=job.model,
            max_attempts=job.max_attempts,
            boot_id=self._boot_id,
            crashes=job.crashes,
            priority=int(job.batch),
            stream=job.stream,
            keep=job.keep and not self._forget(),
            idempotency_key=job.idempotency_key,
            request_hash=job.request_hash,
            webhook=job.webhook,
            origin_node=node,
            origin_job=peer_job,
            origin_try=peer_try,
            created_at=job.created_at,
            deadline_s=job.deadline_s,
            keep_alive_s=job.keep_alive_s,
        )
        self._update(row, job)
        return row

    @staticmethod
    def _update(row: JobRow, job: Job) -> None:
        chosen = job.decision.chosen if job.decision else None
        row.state = job.state
        row.attempt = job.attempt
        row.try_no = job.try_no
        row.digest = job.digest
        row.node = chosen.node if chosen else None
        row.engine = chosen.engine if chosen else None
        row.receipt = job.receipt
        row.error = job.error
        row.updated_at = job.updated_at
        row.started_at = job.started_at
        row.completed_at = job.completed_at

    async def resumed(self, clock: Clock) -> list[Job]:
        """The jobs an earlier run left behind, oldest first. One found running counts a crash; its answer is kept.

        ``interrupted`` are the moves that this meant, to be published.
        """
        jobs = []
        for row, body in await self._rows.live():
            if row.origin == Origin.PEER:
                self._lost(row, clock.wall())
                continue
            found = row.state
            row.crashes += found.running
            row.state = JobState.QUEUED  # the one move that exists for boot alone
            row.boot_id, row.updated_at = self._boot_id, clock.wall()
            row.keep = True
            self._live[row.id] = row
            self._rows.save(row)
            job = job_of(row, body, clock.mono())
            job.try_no += 1  # the newest try may have reached its readers before the disk: its number is not used again
            job.answer.attach(ChunkLog(self._rows, job.id, job.answer))
            jobs.append(job)
            if found.running:
                self.interrupted.append(JobMoved(job, found))
        return jobs

    def _lost(self, row: JobRow, now: float) -> None:
        """A peer's job ends with the run of this node: the peer has its request, and asks again by itself."""
        row.state = JobState.FAILED
        row.error = failure("interrupted", "Quorum was stopped while the job ran.")
        row.updated_at = row.completed_at = now
        self._rows.save(row)


def job_of(row: JobRow, body: bytes, mono: float) -> Job:
    """The job that ``row`` says; ``mono`` is when its waiting begins."""
    return Job(
        id=row.id,
        seq=row.row_id,
        kind=_KINDS[row.kind],
        origin=Origin(row.origin),
        model=row.model,
        body=body,
        stream=row.stream,
        created_at=row.created_at,
        created_mono=mono,
        person=row.person,
        key_id=row.key_id,
        chat_id=row.chat_id,
        keep=True,
        batch=bool(row.priority),
        max_attempts=row.max_attempts,
        deadline_s=row.deadline_s,
        keep_alive_s=row.keep_alive_s,
        idempotency_key=row.idempotency_key,
        request_hash=row.request_hash,
        webhook=row.webhook,
        digest=row.digest,
        state=row.state,
        attempt=row.attempt,
        try_no=row.try_no,
        crashes=row.crashes,
        updated_at=row.updated_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
        error=row.error,
        receipt=row.receipt,
        answer=Answer(keep=True, try_no=row.try_no),
    )
