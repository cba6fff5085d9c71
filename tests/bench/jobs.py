"""Acknowledged jobs: ``POST /jobs`` by 64 clients, each answered once its row is on the disk.

    python tests/bench/jobs.py [--rounds 3] [--seconds 2] [--clients 64] [--dir FOLDER] [--json]

Cases: the node is paused, so that jobs only queue; an instant engine works them meanwhile; and, for the price of being
a job, the same requests as synchronous ones, direct to the engine and through Quorum. The router runs on core 1, engine
and load on core 0, where the machine has two. The folder must lie on the disk that is to be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.store import fsync_ms
from tests.bench.through import ROOT, answers, build, cpu_s, free_port, pinned, running

BOUND = 10_000  # jobs of the class batch that may wait


@dataclass(frozen=True)
class Ports:
    """Where the mock engine, its control and the node listen."""

    control: int
    engine: int
    node: int


def load(program: Path, port: int, clients: int, seconds: float, path: str) -> dict[str, Any]:
    """One sample of ``clients`` sending as fast as they are answered."""
    done = subprocess.run(
        [*pinned(0), str(program), str(port), str(clients), str(seconds), "json", path],
        check=True,
        capture_output=True,
        text=True,
    )
    sample: dict[str, Any] = json.loads(done.stdout)
    return sample


def call(port: int, token: str, path: str) -> Any:
    """A POST to the node's control surface."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/local/v1/{path}",
        data=b"{}",
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
        return json.loads(reply.read())


@contextmanager
def node(folder: Path, ports: Ports) -> Iterator[tuple[str, int]]:
    """A node with an empty data folder that is ready; its control token and process."""
    environment = os.environ | {
        "QUORUM_ENGINES": f"http://127.0.0.1:{ports.engine}/v1",
        "QUORUM_BUILTIN_ENGINE": "0",
        "QUORUM_CONCURRENCY": "1024",
    }
    command = [*pinned(1), sys.executable, "-m", "app", "serve", "--data-dir", str(folder / "data")]
    command += ["--port", str(ports.node), "--no-discovery"]
    with (
        (folder / "serve.log").open("wb") as log,
        running(command, env=environment, cwd=ROOT, stdout=log, stderr=log) as process,
    ):
        answers(f"http://127.0.0.1:{ports.node}/readyz")
        yield (folder / "data" / "control.token").read_text(), process.pid


def stored(folder: Path) -> int:
    """Rows in the node's database once it has stopped."""
    with sqlite3.connect(folder / "data" / "quorum.db") as db:
        return int(db.execute("SELECT count(*) FROM jobs").fetchone()[0])


def round_of(case: str, program: Path, ports: Ports, options: argparse.Namespace) -> dict[str, Any]:
    """One sample of one case on a fresh node."""
    if case == "direct":
        return load(program, ports.engine, options.clients, options.seconds, "/v1/chat/completions")
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        folder = Path(name)
        with node(folder, ports) as (token, pid):
            if case == "paused":
                call(ports.node, token, "pause")
            path = "/v1/chat/completions" if case == "synchronous" else "/jobs"
            before = cpu_s(pid)
            sample = load(program, ports.node, options.clients, options.seconds, path)
            sample["cpu_us"] = (cpu_s(pid) - before) / max(1, sample["ok"]) * 1e6
        rows = stored(folder)
    if rows < sample["ok"]:
        raise SystemExit(f"{case}: {sample['ok']} were acknowledged, but there are {rows} rows")
    if case == "paused" and sample["ok"] >= BOUND:
        raise SystemExit(f"the queue was full after {sample['secs']} s: measure with less --seconds")
    return sample


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--dir", type=Path, default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cases = ("direct", "synchronous", "paused", "working")
    samples: dict[str, list[dict[str, Any]]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        sync_ms = fsync_ms(Path(name))
        program, upstream = build(Path(name))
        ports = Ports(free_port(), free_port(), free_port())
        with running([*pinned(0), str(upstream), str(ports.control), str(ports.engine)]):
            answers(f"http://127.0.0.1:{ports.control}/set?port=all&ttft_ms=0&itl_ms=0&tokens=1")
            for _ in range(options.rounds):
                for case in cases:
                    samples[case].append(round_of(case, program, ports, options))
    rows = [
        {
            "case": case,
            "per_s": round(statistics.median(one["rps"] for one in found)),
            "p50_ms": round(statistics.median(one["tot_p50"] for one in found), 2),
            "p99_ms": round(statistics.median(one["tot_p99"] for one in found), 2),
            "cpu_us": round(statistics.median(one.get("cpu_us", 0) for one in found)),
            "bad": sum(one["bad"] for one in found),
        }
        for case, found in samples.items()
    ]
    if not options.json:
        print("  ".join(f"{column:>12}" for column in rows[0]))
        for row in rows:
            print("  ".join(f"{value!s:>12}" for value in row.values()))
        print(f"fdatasync of 8 KiB here: {sync_ms} ms; {options.clients} clients; synchronous=FULL")
    print(json.dumps({"fdatasync_ms": sync_ms, "clients": options.clients, "cases": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
