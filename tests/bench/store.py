"""The store's numbers: durable inserts with three moves each, and plain jobs that nobody waits for.

    python tests/bench/store.py [--seconds 5] [--submitters 16] [--dir FOLDER]

Prints a table, then JSON. The folder must lie on the disk that is to be measured (not on a memory file system).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ulid import ULID

from router.job_rows import JobRow, JobRows
from router.states import JobState
from router.store import Store

BODY = b'{"model": "tiny", "messages": [{"role": "user", "content": "' + b"x" * 400 + b'"}]}'
MOVES = (JobState.LOADING, JobState.WORKING, JobState.DONE)


def percentile(values: list[float], share: float) -> float | None:
    return round(sorted(values)[min(len(values) - 1, int(len(values) * share))], 2) if values else None


class Lag:
    """How late the loop runs a timer, in milliseconds: what every other request feels."""

    def __init__(self) -> None:
        self.samples_ms: list[float] = []

    async def watch(self) -> None:
        while True:
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            self.samples_ms.append((time.perf_counter() - due) * 1e3)


async def durable(rows: JobRows, end: float, inserts_ms: list[float]) -> int:
    """Acknowledged jobs: the insert is awaited, the three moves are written behind it."""
    jobs = 0
    while time.perf_counter() < end:
        now = time.time()
        row = JobRow(id=str(ULID()), origin="jobs", model="tiny", created_at=now, updated_at=now, keep=True)
        began = time.perf_counter()
        await rows.save_durable(row, BODY)
        inserts_ms.append((time.perf_counter() - began) * 1e3)
        for state in MOVES:
            row.state = state
            rows.save(row)
            await asyncio.sleep(0)
        jobs += 1
    return jobs


async def durable_each(rows: JobRows, end: float, inserts_ms: list[float]) -> int:
    """The strictest reading: the insert and each of the three moves is awaited on the disk."""
    jobs = 0
    while time.perf_counter() < end:
        now = time.time()
        row = JobRow(id=str(ULID()), origin="jobs", model="tiny", created_at=now, updated_at=now, keep=True)
        began = time.perf_counter()
        await rows.save_durable(row, BODY)
        inserts_ms.append((time.perf_counter() - began) * 1e3)
        for state in MOVES:
            row.state = state
            await rows.save_durable(row)
        jobs += 1
    return jobs


async def plain(rows: JobRows, end: float, inserts_ms: list[float]) -> int:
    """Synchronous requests: nobody waits for the disk; most rows are written once, as they ended."""
    jobs = 0
    while time.perf_counter() < end:
        now = time.time()
        row = JobRow(id=str(ULID()), model="tiny", created_at=now, updated_at=now)
        rows.save(row, BODY)
        for state in MOVES:
            await asyncio.sleep(0)
            row.state = state
            rows.save(row)
        await asyncio.sleep(0.001)
        jobs += 1
    return jobs


async def measure(
    name: str, folder: Path, submitter: Callable[..., Any], options: argparse.Namespace
) -> dict[str, Any]:
    path = folder / f"{name}.db"
    store = Store(path)
    await store.open()
    rows = JobRows(store)
    await rows.open()
    lag = Lag()
    inserts_ms: list[float] = []
    watcher = asyncio.ensure_future(lag.watch())
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    end = began + options.seconds
    done = await asyncio.gather(*(submitter(rows, end, inserts_ms) for _ in range(options.submitters)))
    await store.run(lambda db: None)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    watcher.cancel()
    jobs = sum(done)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    stored = await store.run(lambda db: db.execute_sql("SELECT count(*) FROM jobs WHERE state = 'done'").fetchone()[0])
    await store.close()
    if stored != jobs:
        raise SystemExit(f"{name}: {jobs} jobs, but {stored} rows")
    return {
        "run": name,
        "jobs_per_s": round(jobs / took),
        "insert_p50_ms": percentile(inserts_ms, 0.5),
        "insert_p99_ms": percentile(inserts_ms, 0.99),
        "lag_p50_ms": percentile(lag.samples_ms, 0.5),
        "lag_p99_ms": percentile(lag.samples_ms, 0.99),
        "cpu_us_per_job": round(cpu_s / jobs * 1e6),
        "bytes_per_job": round(path.stat().st_size / jobs),
        "jobs": jobs,
    }


def fsync_ms(folder: Path) -> float | None:
    """Median time of one fdatasync of 8 KiB on this disk."""
    samples = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(200):
            began = time.perf_counter()
            file.write(b"x" * 8192)
            os.fdatasync(file.fileno())
            samples.append((time.perf_counter() - began) * 1e3)
    return percentile(samples, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--submitters", type=int, default=16)
    parser.add_argument("--dir", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        folder = Path(name)
        sync_ms = fsync_ms(folder)
        runs = [
            asyncio.run(measure(submitter.__name__, folder, submitter, options))
            for submitter in (durable, durable_each, plain)
        ]
    columns = [key for key in runs[0] if key != "jobs"]
    print("  ".join(f"{column:>14}" for column in columns))
    for run in runs:
        print("  ".join(f"{run[column]!s:>14}" for column in columns))
    print(f"fdatasync of 8 KiB here: {sync_ms} ms; {options.submitters} submitters; synchronous=FULL")
    print(json.dumps({"fdatasync_ms": sync_ms, "submitters": options.submitters, "runs": runs}))


if __name__ == "__main__":
    main()
