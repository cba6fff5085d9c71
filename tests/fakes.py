"""Stand-ins for what a test must control: the clock, the scheduler's effects, engines in memory and on sockets."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from router.answer import Answer
from router.engines.base import Call, EngineModel, EngineSnapshot, Kind, Reply
from router.errors import EngineFault
from router.jobs import Job, Origin
from router.placement import HolderView
from router.states import JobState, NodeMode
from router.wire import Ended, NodeInfo, State

BOUND_S = 10.0
"""The longest any test waits for something that must happen."""


class FakeClock:
    """Time that passes only when told to; ``jump`` moves the wall clock alone, as sleep and NTP do."""

    def __init__(self, wall: float = 1_700_000_000.0, mono: float = 1000.0) -> None:
        self._wall = wall
        self._mono = mono

    def wall(self) -> float:
        return self._wall

    def mono(self) -> float:
        return self._mono

    def advance(self, seconds: float) -> None:
        self._wall += seconds
        self._mono += seconds

    def jump(self, seconds: float) -> None:
        self._wall += seconds


@dataclass
class Timer:
    """One call of ``Effects.later``."""

    at: float
    delay_s: float
    act: Callable[[], None]


class FakeEffects:
    """Effects that only write down what the scheduler asked for; timers fire when ``run_due`` is called."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.started: list[tuple[Job, int]] = []
        self.stopped: list[Job] = []
        self.moves: list[tuple[str, JobState | None, JobState]] = []
        self.timers: list[Timer] = []
        self.on_start: Callable[[Job, int], None] = lambda job, try_no: None

    def start(self, job: Job, try_no: int) -> None:
        self.started.append((job, try_no))
        self.on_start(job, try_no)

    def stop(self, job: Job) -> None:
        self.stopped.append(job)

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        self.timers.append(Timer(self.clock.mono() + delay_s, delay_s, act))

    def moved(self, job: Job, old: JobState | None) -> None:
        self.moves.append((job.id, old, job.state))

    def run_due(self) -> int:
        """Fire the timers whose time has come, in their order; how many there were."""
        due = sorted((t for t in self.timers if t.at <= self.clock.mono()), key=lambda t: t.at)
        self.timers = [t for t in self.timers if t.at > self.clock.mono()]
        for timer in due:
            timer.act()
        return len(due)

    def moves_of(self, job: Job) -> list[JobState]:
        return [new for job_id, _, new in self.moves if job_id == job.id]


class MemoryEngine:
    """An Engine without a network: models are made resident by ``load``, calls answered by ``reply``."""

    kind = "memory"
    label = "Memory"
    url = ""

    def __init__(
        self, engine_id: str = "e", models: Iterable[str] = ("m",), *, width: int = 1, loads: bool = True, room: int = 1
    ) -> None:
        self.id = engine_id
        self.width = width
        self.names = list(models)
        self.digests: dict[str, str] = {}
        self.resident: list[str] = []
        self.room = room
        self.loads = loads
        self.loaded: list[str] = []
        self.calls: list[Call] = []
        self.load_gate: asyncio.Event | None = None
        self.load_fault: EngineFault | None = None
        self.percents: list[int] = []
        self.reply: Callable[[Call], Reply] | None = None
        self.left_early = 0

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def poll(self) -> EngineSnapshot:
        return self.look()

    def look(self, *, ready: bool = True, detail: str = "") -> EngineSnapshot:
        models = tuple(
            EngineModel(name=name, digest=self.digests.get(name), resident=name in self.resident) for name in self.names
        )
        return EngineSnapshot(ready=ready, models=models, detail=detail)

    def make_resident(self, model: str) -> None:
        """As ``load`` does it: at most ``room`` models, the oldest leaves."""
        if model in self.resident:
            return
        self.loaded.append(model)
        self.resident = [*self.resident[max(0, len(self.resident) + 1 - self.room) :], model]

    async def load(
        self,
        model: str,
        *,
        keep_alive_s: float | None = None,
        progress: Callable[[int], None] | None = None,
        kind: Kind = Kind.CHAT,
    ) -> None:
        if self.load_gate is not None:
            for percent in self.percents:
                if progress is not None:
                    progress(percent)
            await self.load_gate.wait()
        if self.load_fault is not None:
            raise self.load_fault
        self.make_resident(model)

    async def unload(self, model: str) -> None:
        self.resident = [name for name in self.resident if name != model]

    def needs_load(self, model: str, kind: Kind = Kind.CHAT) -> bool:
        return self.loads and model not in self.resident

    @asynccontextmanager
    async def call(self, call: Call) -> AsyncIterator[Reply]:
        self.calls.append(call)
        if self.reply is None:
            raise EngineFault("The engine has nothing to say.")
        whole = False
        try:
            yield self.reply(call)
            whole = True
        finally:
            self.left_early += not whole


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    """``Reply.chunks`` of exactly these pieces."""
    for piece in data:
        yield piece


def make_job(seq: int = 1, model: str = "m", **changes: Any) -> Job:
    """A job as the intake makes them."""
    given: dict[str, Any] = {
        "id": f"J{seq:05}",
        "seq": seq,
        "kind": Kind.CHAT,
        "origin": Origin.API,
        "model": model,
        "body": json.dumps({"model": model, "messages": [], "stream": True}).encode(),
        "stream": True,
        "created_at": 1_700_000_000.0,
        "created_mono": 1000.0,
    }
    return Job(**(given | changes))


def view(node: str = "here", engine: str = "e", **changes: Any) -> HolderView:
    """A free warm holder of ``m``; local on the node ``here``."""
    given: dict[str, Any] = {
        "node": node,
        "engine": engine,
        "model": "m",
        "local": node == "here",
        "warm": True,
        "in_flight": 0,
        "waiting": 0,
        "width": 1,
    }
    return HolderView(**(given | changes))


@dataclass(eq=False)
class Listener:
    """A Reader that remembers; ``got`` is what a client would have on its page."""

    keeps: bool = False
    got: bytes = b""
    seqs: list[int] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    resets: int = 0
    ends: list[Ended] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def content(self, events: bytes, seq: int) -> None:
        self.got += events
        self.seqs.append(seq)
        self.came.set()

    def state(self, state: State) -> None:
        self.states.append(state)

    def reset(self) -> None:
        self.resets += 1
        self.got = b""
        self.seqs.clear()

    def ended(self, ended: Ended) -> None:
        self.ends.append(ended)


def node_info(**changes: Any) -> NodeInfo:
    """This computer's node as a page sees it."""
    given: dict[str, Any] = {
        "id": "here",
        "name": "studio",
        "version": "1",
        "mode": NodeMode.RUNNING,
        "address": "http://127.0.0.1:7411",
        "port": 7411,
        "started_at": 1_700_000_000.0,
    }
    return NodeInfo(**(given | changes))


def listening(job: Job | Answer) -> Listener:
    """A new Listener attached to ``job``."""
    listener = Listener()
    (job.answer if isinstance(job, Job) else job).attach(listener)
    return listener


# -- an engine on a socket that does what its script says


def chunk(text: str = "", *, role: bool = False, finish: str | None = None, **more: Any) -> bytes:
    """One event of a chat stream in OpenAI's form."""
    delta: dict[str, Any] = ({"role": "assistant"} if role else {}) | ({"content": text} if text else {})
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return event({"id": "c1", "object": "chat.completion.chunk", "choices": [choice], **more})


def event(payload: object) -> bytes:
    """One Server-Sent Event."""
    return b"data: %b\n\n" % json.dumps(payload).encode()


DONE = b"data: [DONE]\n\n"


def short(value: object) -> str:
    """An id of a test's parameter that a terminal can show."""
    if isinstance(value, tuple):
        return "+".join(map(short, value)) or "nothing"
    said = value if isinstance(value, str) else repr(value)
    return re.sub(r"\W+", "-", said)[:32].strip("-") or "empty"


def stream(*words: str, usage: dict[str, Any] | None = None) -> bytes:
    """A whole regular stream."""
    last = event({"choices": [], "usage": usage}) if usage else b""
    return chunk(role=True) + b"".join(chunk(word) for word in words) + chunk(finish="stop") + last + DONE


def head(status: int = 200, content_type: str = "text/event-stream", **headers: str) -> bytes:
    """A response head without a length: the answer ends with the connection."""
    lines = [f"HTTP/1.1 {status} Scripted", f"Content-Type: {content_type}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def whole(body: bytes, status: int = 200, content_type: str = "application/json", **headers: str) -> bytes:
    """A response with its length."""
    return head(status, content_type, Content_Length=str(len(body)), **headers) + body


@dataclass(frozen=True)
class Drip:
    """Send ``data`` again and again, every ``every_s`` seconds, until the client goes or ``times`` are over."""

    data: bytes
    every_s: float
    times: int = 10_000


@dataclass(frozen=True)
class Wait:
    """Send nothing until the event is set."""

    until: asyncio.Event


@dataclass(frozen=True)
class Flood:
    """Send ``data`` without end, as fast as the client takes it."""

    data: bytes


HANG = "hang"  # say nothing more, keep the connection
RESET = "reset"  # end with RST
Step = bytes | Drip | Wait | Flood | str


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the client's side of the connection is closed."""
    sent_bytes: int = 0


class ScriptedEngine:
    """A server on a loopback port; each POST plays the next script, the last one again when none is left."""

    def __init__(self, *models: str) -> None:
        self.models = models or ("m",)
        self.scripts: list[tuple[Step, ...]] = []
        self.asked: list[Asked] = []
        self.url = ""
        self._playing: tuple[Step, ...] = ()
        self._server: asyncio.Server | None = None
        self._arrived = asyncio.Condition()
        self._connections: set[asyncio.Task[None]] = set()

    def play(self, *steps: Step) -> None:
        """The script of the next POST."""
        self.scripts.append(steps)

    async def __aenter__(self) -> ScriptedEngine:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def request(self, number: int = 0) -> Asked:
        """Wait until that many POSTs (from 0) came."""
        async with asyncio.timeout(BOUND_S), self._arrived:
            await self._arrived.wait_for(lambda: len(self.asked) > number)
        return self.asked[number]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._exchange(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        method, path, _ = request.split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        asked = Asked(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))
        if method == "GET":
            listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]}
            found = path.endswith("/v1/models")
            writer.write(whole(json.dumps(listed).encode()) if found else whole(b"{}", 404))
            await writer.drain()
            return
        async with self._arrived:
            self.asked.append(asked)
            self._arrived.notify_all()
        if self.scripts:
            self._playing = self.scripts.pop(0)
        watch = asyncio.ensure_future(self._watch(reader, asked))
        try:
            for step in self._playing:
                await self._step(step, writer, asked)
        except ConnectionError:
            asked.gone.set()
        finally:
            watch.cancel()

    @staticmethod
    async def _watch(reader: asyncio.StreamReader, asked: Asked) -> None:
        """Notice that the client closed its side."""
        try:
            while await reader.read(65_536):
                pass
        except ConnectionError:
            pass
        asked.gone.set()

    async def _step(self, step: Step, writer: asyncio.StreamWriter, asked: Asked) -> None:
        match step:
            case bytes():
                writer.write(step)
                await writer.drain()
                asked.sent_bytes += len(step)
            case Wait(until):
                await until.wait()
            case Drip(data, every_s, times):
                for _ in range(times):
                    if await _happens(asked.gone, every_s):
                        return
                    writer.write(data)
                    await writer.drain()
            case Flood(data):
                while not asked.gone.is_set():
                    writer.write(data)
                    await writer.drain()
                    asked.sent_bytes += len(data)
            case "hang":
                await asked.gone.wait()
            case "reset":
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()


async def _happens(event: asyncio.Event, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def happens(event: asyncio.Event, within_s: float = BOUND_S) -> None:
    """Wait for ``event``; a failure when it does not come in time."""
    assert await _happens(event, within_s), f"nothing happened within {within_s:g} s"


def free_port() -> int:
    """A loopback port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
