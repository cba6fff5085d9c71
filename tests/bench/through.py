"""What Quorum adds: the same load direct to a mock engine and through Quorum, in interleaved rounds of one run.

Run by name (``python3 dev.py bench``). Prints a table and JSON. The router runs on core 1, engine and load on core 0,
where the machine has two. Needs gcc (or cc) and Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@dataclass(frozen=True)
class Case:
    """One kind of load. ``engine`` is what the mock engine is told."""

    name: str
    clients: int
    mode: str
    engine: str


CASES = (
    Case("one client", 1, "json", "ttft_ms=0&itl_ms=0&tokens=200"),
    Case("16 clients", 16, "json", "ttft_ms=0&itl_ms=0&tokens=200"),
    Case("64 streams at 10 ms", 64, "stream", "ttft_ms=0&itl_ms=10&tokens=200"),
    Case("256 streams at 10 ms", 256, "stream", "ttft_ms=0&itl_ms=10&tokens=200"),
    Case("64 streams, no delay", 64, "stream", "ttft_ms=0&itl_ms=0&tokens=200"),
)


def build(folder: Path) -> tuple[Path, Path]:
    """Compile the mock engine and the load generator."""
    for name in ("load", "upstream"):
        subprocess.run(["cc", "-O2", "-o", folder / name, HERE / f"{name}.c"], check=True)
    return folder / "load", folder / "upstream"


def pinned(core: int) -> list[str]:
    """The prefix that keeps a program on one core, where there are two."""
    return ["taskset", "-c", str(core)] if (os.cpu_count() or 1) > 1 else []


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str, limit_s: float = 20.0) -> None:
    """Wait until ``url`` answers 200."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=2) as reply:  # noqa: S310 - our own loopback address
                if reply.status == 200:
                    return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"{url} does not answer")


@contextmanager
def running(arguments: list[str], **kwargs: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is ended with the block."""
    process = subprocess.Popen(arguments, **kwargs)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@contextmanager
def server(folder: Path, engine: int, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """``quorum serve`` on core 1 with the mock engine as its only one."""
    environment = os.environ | {
        "QUORUM_ENGINES": f"http://127.0.0.1:{engine}/v1",
        "QUORUM_BUILTIN_ENGINE": "0",
        "QUORUM_CONCURRENCY": "1024",
    }
    command = [*pinned(1), sys.executable, "-m", "app", "serve", "--data-dir", f"{folder}/data"]
    command += ["--port", str(port), "--no-discovery"]
    with (
        (folder / "serve.log").open("wb") as log,
        running(command, env=environment, cwd=ROOT, stdout=log, stderr=log) as process,
    ):
        yield process


def measure(load: Path, port: int, case: Case, seconds: float, pid: int | None) -> dict[str, Any]:
    """One sample; with ``pid`` also that process's CPU time."""
    before = cpu_s(pid) if pid else 0.0
    out = subprocess.run(
        [*pinned(0), str(load), str(port), str(case.clients), str(seconds), case.mode],
        check=True,
        capture_output=True,
        text=True,
    )
    sample: dict[str, Any] = json.loads(out.stdout)
    sample["cpu_s"] = cpu_s(pid) - before if pid else 0.0
    return sample


def median(samples: list[dict[str, Any]], key: str) -> float:
    """The median of one figure."""
    return statistics.median(float(sample[key]) for sample in samples)


def rows(case: Case, direct: list[dict[str, Any]], through: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one case: direct, through Quorum, and what the pages set goals for."""
    tokens = median(through, "tokens")
    ratio = statistics.median(t["tok_s"] / d["tok_s"] for d, t in zip(direct, through, strict=True) if d["tok_s"])
    return {
        "case": case.name,
        "rps_direct": median(direct, "rps"),
        "rps": median(through, "rps"),
        "added_p50_ms": median(through, "tot_p50") - median(direct, "tot_p50"),
        "ttfb_p50_ms": median(through, "ttfb_p50"),
        "ttfb_p99_ms": median(through, "ttfb_p99"),
        "tok_s": median(through, "tok_s"),
        "tokens_ratio": ratio,
        "cpu_s_per_m_tokens": median(through, "cpu_s") / tokens * 1e6 if tokens else 0.0,
        "bad": sum(sample["bad"] for sample in through),
    }


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quorum-bench-") as folder:
        load, upstream = build(Path(folder))
        control, engine, port = free_port(), free_port(), free_port()
        with (
            running([*pinned(0), str(upstream), str(control), str(engine)]),
            server(Path(folder), engine, port) as quorum,
        ):
            answers(f"http://127.0.0.1:{port}/readyz")
            results = []
            for case in CASES:
                if args.case not in case.name:
                    continue
                answers(f"http://127.0.0.1:{control}/set?port=all&{case.engine}")
                direct, through = [], []
                for _ in range(args.rounds):
                    direct.append(measure(load, engine, case, args.seconds, None))
                    through.append(measure(load, port, case, args.seconds, quorum.pid))
                results.append(rows(case, direct, through) | {"rss_mib": rss_mib(quorum.pid)})
            memory = rss_mib(quorum.pid)
        report = {"cases": results, "rss_mib": round(memory, 1)}
    if args.json:
        print(json.dumps(report))
        return 0
    for row in results:
        print(json.dumps({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()}))
    print(f"resident memory afterwards: {memory:.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
