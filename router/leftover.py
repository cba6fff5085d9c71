"""What an earlier run of this node left unfinished: jobs that wait or ran, and answers of conversations."""

from __future__ import annotations

from router.aio import Clock
from router.chats import Chats
from router.conversation import Conversations
from router.events import Bus
from router.jobs import Job
from router.records import Records
from router.scheduler import Scheduler
from router.wire import Message


class Leftover:
    """In this order: ``read``, ``take_up``, ``release``, ``give_up``."""

    def __init__(
        self,
        records: Records,
        chats: Chats,
        conversations: Conversations,
        scheduler: Scheduler,
        bus: Bus,
        clock: Clock,
    ) -> None:
        self._records = records
        self._chats = chats
        self._conversations = conversations
        self._scheduler = scheduler
        self._bus = bus
        self._clock = clock
        self._jobs: list[Job] = []
        self._answers: dict[str, Message] = {}

    async def read(self) -> None:
        """From the store, before the first new job can be among it. Raises StoreError."""
        self._jobs = await self._records.resumed(self._clock)
        self._answers = {m.job_id or "": m for m in await self._chats.running_answers()}

    def take_up(self) -> None:
        """From here on the jobs can be found, followed and cancelled; they wait for ``release``."""
        for move in self._records.interrupted:
            self._bus.publish(move)
        for job in self._jobs:
            job.held = True
            if (answer := self._answers.pop(job.id, None)) is not None:
                self._conversations.adopt(answer, job)
            self._scheduler.resume_job(job)

    def release(self) -> None:
        """The engines are there: the jobs may run."""
        self._scheduler.release(*self._jobs)
        self._jobs.clear()

    async def give_up(self) -> None:
        """End the answers whose jobs are not known any more."""
        for answer in self._answers.values():
            await self._conversations.lost(answer)
