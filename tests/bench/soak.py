"""A day in miniature: 100,000 jobs through one node with an engine that answers at once. Memory must stay flat.

Run by name (``python3 dev.py bench soak``). Prints a table and JSON. Needs cc and Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from through import answers, build, free_port, rss_mib, running, server


def descriptors(pid: int) -> int:
    """Open file descriptors of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def main() -> int:
    """Run the soak; 1 when memory grew by more than a tenth after the first 10,000 jobs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quorum-soak-") as folder:
        load, upstream = build(Path(folder))
        control, engine, port = free_port(), free_port(), free_port()
        with (
            running([str(upstream), str(control), str(engine)]),
            server(Path(folder), engine, port) as quorum,
        ):
            answers(f"http://127.0.0.1:{port}/readyz")
            samples, done, began = [], 0, time.monotonic()
            while done < args.jobs:
                command = [str(load), str(port), "16", "3", "json" if len(samples) % 2 else "stream"]
                out = subprocess.run(command, check=True, capture_output=True, text=True)
                done += json.loads(out.stdout)["ok"]
                samples.append({"jobs": done, "rss_mib": rss_mib(quorum.pid), "fds": descriptors(quorum.pid)})
                if not args.json:
                    print(samples[-1], flush=True)
            seconds = time.monotonic() - began
    first = next(sample for sample in samples if sample["jobs"] >= min(10_000, args.jobs // 2))
    growth = samples[-1]["rss_mib"] / first["rss_mib"] - 1
    report = {"jobs": done, "seconds": round(seconds), "growth": round(growth, 3), "samples": samples[-3:]}
    print(json.dumps(report))
    return int(growth > 0.10 or samples[-1]["fds"] > first["fds"] + 8)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
