"""Run by the tests as a program that is killed: acknowledges jobs on its output until its end.

    store_child.py DATABASE PREFIX [POINT NUMBER]

Writes one line per durable job, ``started`` first. At the NUMBER-th time POINT is reached it kills itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from router.job_rows import JobRow, JobRows
from router.states import JobState
from router.store import Store
from router.writer import Faults


class Deadly(Faults):
    """Dies as by SIGKILL at a named point."""

    def __init__(self, point: str, number: int) -> None:
        self._point = point
        self._left = number

    def reach(self, point: str) -> None:
        if point == self._point:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


async def work(rows: JobRows, prefix: str, worker: int) -> None:
    number = 0
    while True:
        job_id = f"{prefix}-{worker}-{number}"
        row = JobRow(id=job_id, created_at=1.0, keep=number % 2 == 0)
        await rows.save_durable(row, job_id.encode())
        say(job_id)
        for state in (JobState.LOADING, JobState.WORKING, JobState.DONE):
            await asyncio.sleep(0)
            row.state = state
            rows.save(row)
        row.completed_at = 2.0
        number += 1


async def main(path: Path, prefix: str, faults: Faults) -> None:
    store = Store(path, faults=faults)
    await store.open()
    rows = JobRows(store)
    await rows.open()
    say("started")
    await asyncio.gather(*(work(rows, prefix, worker) for worker in range(4)))


if __name__ == "__main__":
    deadly = Deadly(sys.argv[3], int(sys.argv[4])) if len(sys.argv) > 3 else Faults()
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], deadly))
