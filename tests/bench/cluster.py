"""What another computer costs: three real nodes in network namespaces, real mDNS, TLS and pairing, mock engines.

    python tests/bench/cluster.py [--rounds 3] [--seconds 5] [--part relay|faults|discovery] [--json]

*relay*: the same load directly to the engine on another computer and through this one's Quorum (the origin) and that
one's, in interleaved rounds. The origin runs on core 1, everything else on core 0, where the machine has two.
*faults*: how long a request takes when its first holder refuses, is dead, is frozen, or freezes once it accepted.
*discovery*: how soon a new computer is seen, and a closed, killed, or cut off one known to be gone.
Needs Linux, root and a C compiler.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.through import Case, build, cpu_s, median, pinned, rows, rss_mib
from tests.cluster.net import PORT, Computer, Net, why_not
from tests.cluster.test_cluster import Asking, first_asked, pair
from tests.fakes import HANG, head, stream

CASES = (
    Case("one client", 1, "stream", "ttft_ms=0&itl_ms=0&tokens=1"),
    Case("64 streams at 10 ms", 64, "stream", "ttft_ms=0&itl_ms=10&tokens=200"),
    Case("256 streams at 10 ms", 256, "stream", "ttft_ms=0&itl_ms=10&tokens=200"),
)
ENGINE_PORT = 9001
CONTROL_PORT = 9000


def pid_of(computer: Computer) -> int:
    """The node's process."""
    process = computer._process
    assert process is not None
    return process.pid


def keep_on(core: int, computer: Computer) -> None:
    """All threads of that node stay on one core, where there are two."""
    if (os.cpu_count() or 1) > 1:
        subprocess.run(["taskset", "-a", "-c", "-p", str(core), str(pid_of(computer))], check=True, capture_output=True)


def within(computer: Computer, *words: str) -> list[str]:
    """A command inside that computer, on core 0."""
    return ["ip", "netns", "exec", computer.namespace, *pinned(0), *words]


async def load(program: Path, computer: Computer, case: Case, seconds: float, at: str, port: int) -> dict[str, Any]:
    """One sample of ``case``, sent from ``computer`` to ``at``:``port``."""
    process = await asyncio.create_subprocess_exec(
        *within(computer, str(program), str(port), str(case.clients), str(seconds), case.mode),
        env=os.environ | {"HOST": at},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    sample: dict[str, Any] = json.loads(out)
    return sample


def tell(computer: Computer, words: str) -> None:
    """Tell the mock engine of that computer how to behave."""
    ask = (
        f"import urllib.request as r; r.urlopen('http://{computer.address}:{CONTROL_PORT}/set?port=all&{words}').read()"
    )
    subprocess.run(within(computer, sys.executable, "-c", ask), check=True)


async def relay(folder: Path, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Direct to the engine over there, and through both nodes."""
    program, upstream = build(folder)
    async with Net(folder / "net") as net:
        laptop, studio = await net.computer("laptop", "other"), await net.computer("studio")
        engine = await asyncio.create_subprocess_exec(
            *within(studio, str(upstream), str(CONTROL_PORT), str(ENGINE_PORT)),
            env=os.environ | {"HOST": studio.address},
        )
        try:
            wide = {"QUORUM_CONCURRENCY": "1024"}
            await asyncio.gather(
                laptop.start(**wide),
                studio.start(**wide, QUORUM_ENGINES=f"http://{studio.address}:{ENGINE_PORT}/v1"),
            )
            keep_on(1, laptop)
            keep_on(0, studio)
            await pair(laptop, studio)
            await laptop.peer_is(studio, "healthy")
            await laptop.offers("mock", "studio")
            results = []
            for case in CASES:
                tell(studio, case.engine)
                direct, through = [], []
                for _ in range(rounds):
                    direct.append(await load(program, laptop, case, seconds, studio.address, ENGINE_PORT))
                    before = cpu_s(pid_of(laptop))
                    sample = await load(program, laptop, case, seconds, "127.0.0.1", PORT)
                    through.append(sample | {"cpu_s": cpu_s(pid_of(laptop)) - before})
                added = median(through, "ttfb_p50") - median(direct, "ttfb_p50")
                row = rows(case, direct, through) | {"added_ttfb_p50_ms": added, "rss_mib": rss_mib(pid_of(laptop))}
                results.append(row)
        finally:
            engine.terminate()
            await engine.wait()
    return results


Harm = Callable[[Computer], Awaitable[None]]


class Three:
    """A laptop and two holders of one model, whose engines follow a script."""

    def __init__(self, laptop: Computer, studio: Computer, attic: Computer) -> None:
        self.laptop = laptop
        self.holders = (studio, attic)

    def script(self, *replies: Any) -> None:
        """What both engines do next; afterwards they answer."""
        for holder in self.holders:
            holder.engine.scripts.clear()
            for reply in replies:
                holder.engine.play(*reply)
            holder.engine.play(head(), stream(holder.name))

    def other(self, one: Computer) -> Computer:
        """The other holder."""
        return self.holders[1] if one is self.holders[0] else self.holders[0]

    async def timed(self) -> tuple[Asking, float]:
        """One request and the seconds it took."""
        began = time.monotonic()
        answer = await Asking(self.laptop)()
        return answer, time.monotonic() - began

    async def answered(self) -> tuple[Computer, float]:
        """One healthy request: who served it, and the seconds it took."""
        answer, took = await self.timed()
        return next(holder for holder in self.holders if holder.name == answer.text), took


async def three_in(net: Net) -> Three:
    """Started and paired."""
    laptop = await net.computer("laptop", "other")
    studio, attic = await net.computer("studio", "llama"), await net.computer("attic", "llama")
    three = Three(laptop, studio, attic)
    three.script()
    await asyncio.gather(laptop.start(), studio.start(), attic.start())
    for holder in three.holders:
        await pair(laptop, holder)
    for holder in three.holders:
        await laptop.peer_is(holder, "healthy")
        await laptop.offers("llama", holder.name)
    return three


async def at_the_request(three: Three, harm: Harm) -> float:
    """Harm the holder whose turn is next, then ask: seconds until the other's whole answer."""
    served, _ = await three.answered()
    await harm(three.other(served))
    answer, took = await three.timed()
    assert answer.text == served.name, answer.got
    return took


async def once_accepted(three: Three, harm: Harm) -> float:
    """Harm the holder that has accepted and says nothing: seconds from then until the other's whole answer."""
    three.script((HANG,))
    asking = asyncio.ensure_future(three.timed())
    harmed = await first_asked(*three.holders)
    three.other(harmed).engine.scripts.pop(0)
    began = time.monotonic()
    await harm(harmed)
    answer, _ = await asking
    assert answer.text == three.other(harmed).name, answer.got
    return time.monotonic() - began


async def frozen(one: Computer) -> None:
    """Its process stands still; its kernel still takes connections."""
    one.signal(signal.SIGSTOP)


async def cut(one: Computer) -> None:
    """Nothing comes from it any more."""
    one.cut()


async def unharmed(_one: Computer) -> None:
    """For comparison."""


FAULTS: tuple[tuple[str, Callable[[Three, Harm], Awaitable[float]], Harm], ...] = (
    ("killed at the request", at_the_request, Computer.kill),
    ("frozen at the request", at_the_request, frozen),
    ("cable cut at the request", at_the_request, cut),
    ("killed after it accepted", once_accepted, Computer.kill),
    ("frozen after it accepted", once_accepted, frozen),
    ("cable cut after it accepted", once_accepted, cut),
)


async def faults(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds that a request takes with each kind of bad first holder; each in a network of its own."""
    taken: dict[str, list[float]] = {}
    for number in range(rounds):
        for case, how, harm in FAULTS:
            async with Net(folder / f"{number} {case}") as net:
                three = await three_in(net)
                taken.setdefault("none", []).append((await three.answered())[1])
                taken.setdefault(case, []).append(await how(three, harm))
                for holder in three.holders:
                    holder.mend()
    return taken


async def discovery(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds until the laptop knows."""
    taken: dict[str, list[float]] = {}

    def note(what: str, began: float) -> None:
        taken.setdefault(what, []).append(time.monotonic() - began)

    async with Net(folder / "net") as net:
        three = await three_in(net)
        laptop, studio = three.laptop, three.holders[0]
        for number in range(rounds):
            new = await net.computer(f"new{number}")
            await new.start(QUORUM_SHARE="1")
            began = time.monotonic()
            await laptop.peer_is(new, "discovered")
            note("new: seen after its start", began)
            waiting = asyncio.ensure_future(laptop.peer_is(studio, "unhealthy", 60))
            began = time.monotonic()
            await studio.kill()
            await waiting
            note("killed: its stream breaks", began)
            await studio.start()
            await laptop.peer_is(studio, "healthy", 60)
            waiting = asyncio.ensure_future(laptop.peer_is(studio, "unhealthy", 60))
            began = time.monotonic()
            studio.cut()
            await waiting
            note("cable cut: silence", began)
            studio.mend()
            await laptop.peer_is(studio, "healthy", 90)
            waiting = asyncio.ensure_future(laptop.peer_is(studio, "offline", 60))
            began = time.monotonic()
            studio.signal(signal.SIGTERM)
            await waiting
            note("closed: its goodbye", began)
            await studio.stop()
            await studio.start()
            await laptop.peer_is(studio, "healthy", 60)
    return taken


def summary(taken: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Median and worst, in milliseconds."""
    return [
        {"case": case, "median_ms": round(statistics.median(s) * 1e3, 1), "worst_ms": round(max(s) * 1e3, 1)}
        for case, s in taken.items()
    ]


async def measured(part: str, folder: Path, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """The rows of one part."""
    (folder / "net").mkdir(parents=True)
    match part:
        case "relay":
            return await relay(folder, rounds, seconds)
        case "faults":
            return summary(await faults(folder, rounds))
        case _:
            return summary(await discovery(folder, rounds))


def main() -> int:
    """Run the benchmark."""
    parts = ("relay", "faults", "discovery")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--part", choices=parts)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if reason := why_not():
        raise SystemExit(reason)
    report = {}
    for part in [args.part] if args.part else parts:
        with tempfile.TemporaryDirectory(prefix="quorum-bench-") as folder:
            report[part] = asyncio.run(measured(part, Path(folder), args.rounds, args.seconds))
        if not args.json:
            for row in report[part]:
                print(
                    json.dumps({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()}), flush=True
                )
    if args.json:
        print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
