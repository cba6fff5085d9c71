"""From a job's answer to one client over a real socket: when headers leave, what follows, and how slow clients fare."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from router.errors import QuorumError, failure
from router.jobs import Job
from router.placement import place
from router.states import JobState
from router.web import sink as sink_module
from router.web.ollama_shapes import OllamaStream
from router.web.openai import OpenAIStream
from router.web.sink import Dialect, WholeSink, job_headers, stream_answer, whole_answer
from router.wire import Ended, ErrorInfo
from tests.fakes import BOUND_S, DONE, chunk, event, happens, make_job, view

ROLE = chunk(role=True)
OK = Ended(state=JobState.DONE)
BROKEN = Ended(state=JobState.FAILED, error=failure("interrupted", "The answer broke off."))


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes
    cut: bool = False


@dataclass
class Client:
    """One raw connection that decodes what it reads; nothing is read before it is asked to."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    taken: bytes = b""

    async def head(self) -> Response:
        async with asyncio.timeout(BOUND_S):
            raw = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = raw.strip().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return Response(int(first.split()[1]), {name.lower(): value for name, value in pairs}, b"")

    async def piece(self) -> bytes:
        """One chunk of a chunked body; empty at its end."""
        async with asyncio.timeout(BOUND_S):
            size = int(await self.reader.readline(), 16)
            data = await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        return data

    async def response(self) -> Response:
        """Everything, by the rules of HTTP; ``cut`` when the connection ended first."""
        got = await self.head()
        try:
            if got.headers.get("transfer-encoding") == "chunked":
                while data := await self.piece():
                    got.body += data
            elif "content-length" in got.headers:
                got.body = await self.reader.readexactly(int(got.headers["content-length"]))
            else:
                async with asyncio.timeout(BOUND_S):
                    got.body = await self.reader.read()
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            got.cut = True
        return got

    def leave(self) -> None:
        self.writer.transport.abort()


@dataclass
class Door:
    """A server with one route that streams the answer of ``job``."""

    job: Job
    dialect: Callable[[Job], Dialect] = lambda job: OpenAIStream()
    came: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    clients: list[Client] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.came.set()
        try:
            return await stream_answer(request, self.job, self.dialect(self.job), self.refuse, self.survey)
        finally:
            self.left.set()

    def survey(self) -> None:
        self.job.place = 2

    @staticmethod
    def refuse(error: ErrorInfo, job: Job) -> web.Response:
        return web.json_response({"code": error.code}, status=error.status, headers=job_headers(job))

    async def ask(self, version: str = "1.1") -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**16)
        client = Client(reader, writer)
        self.clients.append(client)
        writer.write(f"POST / HTTP/{version}\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        await happens(self.came)
        return client

    def say(self, *parts: bytes) -> None:
        for part in parts:
            self.job.answer.feed(part, part.count(b"\n\n"))


Opener = Callable[..., Awaitable[Door]]


@pytest.fixture
async def door() -> AsyncIterator[Opener]:
    runners: list[web.AppRunner] = []
    doors: list[Door] = []

    async def opened(dialect: Callable[[Job], Dialect] = lambda job: OpenAIStream(), **changes: object) -> Door:
        job = make_job(started_mono=1001.5, try_no=2, **changes)
        job.decision = place([view("here", "e")])
        job.answer.keep = job.keep
        made = Door(job, dialect)
        app = web.Application()
        app.router.add_post("/", made.handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made.port = runner.addresses[0][1]
        runners.append(runner)
        doors.append(made)
        return made

    yield opened
    for made in doors:
        for client in made.clients:
            client.leave()
    for runner in runners:
        await runner.cleanup()


async def test_headers_wait_for_the_first_content_and_then_name_the_job_and_its_holder(door: Opener) -> None:
    made = await door()
    client = await made.ask()
    head = asyncio.ensure_future(client.head())
    await asyncio.wait((head,), timeout=0.05)
    assert not head.done()
    made.say(ROLE + chunk("hi"))
    got = await head
    assert (got.status, got.headers["content-type"]) == (200, "text/event-stream")
    assert {name: got.headers[name] for name in got.headers if name.startswith("x-quorum")} == {
        "x-quorum-job": made.job.id,
        "x-quorum-node": "here",
        "x-quorum-reason": "local-warm",
        "x-quorum-attempts": "2",
        "x-quorum-queued-ms": "1500",
    }
    assert await client.piece() == ROLE + chunk("hi")


async def test_the_end_of_the_connection_ends_the_answer_of_an_http_1_0_client_that_keeps_it_alive(
    door: Opener,
) -> None:
    made = await door()
    client = await made.ask("1.0\r\nConnection: keep-alive")
    made.say(ROLE + chunk("hi") + DONE)
    made.job.answer.finish(OK)
    got = await client.response()
    assert (got.body, got.cut) == (ROLE + chunk("hi") + DONE, False)
    assert got.headers.get("connection") != "keep-alive"


async def test_every_chunk_is_passed_on_verbatim_and_at_once(door: Opener) -> None:
    made = await door()
    client = await made.ask()
    made.say(ROLE + chunk("a"))
    await client.head()
    assert await client.piece() == ROLE + chunk("a")
    for part in (chunk("b"), chunk("c") + chunk("d"), DONE):
        made.say(part)
        assert await client.piece() == part
    made.job.answer.finish(OK)
    assert await client.piece() == b""


async def test_what_comes_while_the_headers_leave_is_neither_lost_nor_doubled(door: Opener) -> None:
    made = await door()
    client = await made.ask()
    parts = [ROLE, *(chunk(f"{n} ") for n in range(200)), DONE]
    made.say(*parts)
    made.job.answer.finish(OK)
    got = await client.response()
    assert (got.status, got.body, got.cut) == (200, b"".join(parts), False)


async def test_a_failure_before_the_first_content_keeps_its_own_status(door: Opener) -> None:
    made = await door()
    client = await made.ask()
    made.job.answer.finish(Ended(state=JobState.FAILED, error=failure("engine_failed", "It refused.")))
    got = await client.response()
    assert (got.status, json.loads(got.body), got.headers["x-quorum-job"]) == (
        502,
        {"code": "engine_failed"},
        made.job.id,
    )


async def test_a_job_that_has_ended_already_is_answered_whole(door: Opener) -> None:
    made = await door(keep=True)
    made.say(ROLE + chunk("hi"), DONE)
    made.job.answer.finish(OK)
    got = await (await made.ask()).response()
    assert (got.status, got.body) == (200, ROLE + chunk("hi") + DONE)


async def test_an_answer_that_breaks_off_ends_in_an_error_event_without_done(door: Opener) -> None:
    made = await door()
    client = await made.ask()
    made.say(ROLE + chunk("half"))
    made.job.answer.finish(BROKEN)
    got = await client.response()
    assert got.body.startswith(ROLE + chunk("half") + b'data: {"error"')
    assert b'"code":"interrupted"' in got.body
    assert b"[DONE]" not in got.body
    assert not got.cut


async def test_after_the_hold_only_the_job_is_named_and_signs_of_life_flow(
    door: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module, "HOLD_S", 0.05)
    monkeypatch.setattr(sink_module, "NEWS_S", 0.05)
    made = await door()
    client = await made.ask()
    got = await client.head()
    assert [name for name in got.headers if name.startswith("x-quorum")] == ["x-quorum-job"]
    for _ in range(2):
        assert await client.piece() == b": queued place=2 node=here\n\n"
    made.say(ROLE + chunk("hi"), DONE)
    made.job.answer.finish(OK)
    rest = b""
    while data := await client.piece():
        rest += data
    assert rest.replace(b": queued place=2 node=here\n\n", b"") == ROLE + chunk("hi") + DONE


async def test_a_failure_after_the_hold_is_an_error_event(door: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "HOLD_S", 0.05)
    made = await door()
    client = await made.ask()
    assert (await client.head()).status == 200
    made.job.answer.finish(Ended(state=JobState.FAILED, error=failure("engine_failed", "It refused.")))
    rest = b""
    while data := await client.piece():
        rest += data
    assert b'"code":"engine_failed"' in rest
    assert b"[DONE]" not in rest


async def test_content_that_says_nothing_in_the_dialect_still_makes_a_well_formed_answer(door: Opener) -> None:
    """A tool call is content, but Ollama's dialect tells it in its last line only."""
    made = await door(lambda job: OllamaStream(job, chat=True))
    client = await made.ask()
    call = {"index": 0, "function": {"name": "f", "arguments": "{}"}}
    made.say(ROLE + event({"choices": [{"delta": {"tool_calls": [call]}}]}))
    response = asyncio.ensure_future(client.response())
    await asyncio.wait((response,), timeout=0.05)
    made.say(chunk("text"), DONE)
    made.job.answer.finish(OK)
    got = await response
    assert (got.status, got.cut) == (200, False)
    lines = [json.loads(line) for line in got.body.splitlines()]
    assert [line["message"]["content"] for line in lines] == ["text", ""]
    assert lines[-1]["message"]["tool_calls"] == [{"function": {"name": "f", "arguments": {}}}]
    assert got.headers["content-type"].startswith("application/x-ndjson")


async def test_a_client_of_http_1_0_gets_the_same_answer_without_chunks(door: Opener) -> None:
    made = await door()
    client = await made.ask(version="1.0")
    made.say(ROLE + chunk("a"), chunk("b"), DONE)
    made.job.answer.finish(OK)
    got = await client.response()
    assert (got.status, got.body) == (200, ROLE + chunk("a") + chunk("b") + DONE)
    assert "transfer-encoding" not in got.headers


async def test_a_client_that_leaves_is_let_go(door: Opener) -> None:
    made = await door()
    client = await made.ask()
    made.say(ROLE + chunk("hi"))
    await client.head()
    client.leave()
    await happens(made.left, 0.5)
    assert made.job.answer.readers == []
    made.say(chunk("nobody listens"))


# -- slow clients


BIG = chunk("x" * 100_000)


class _Gate:
    def __init__(self) -> None:
        self.paused = asyncio.Event()
        self.resumed = asyncio.Event()

    def pause(self) -> None:
        self.paused.set()

    def resume(self) -> None:
        self.resumed.set()


async def fill(made: Door, until: Callable[[], bool], most: int = 400) -> int:
    """Say big chunks until ``until``; how many it took."""
    for number in range(most):
        if until():
            return number
        made.say(BIG)
    pytest.fail(f"nothing happened after {most} chunks")


async def test_a_slow_client_makes_the_source_wait_then_gets_everything(door: Opener) -> None:
    made = await door()
    gate = made.job.answer.gate = _Gate()
    client = await made.ask()
    made.say(ROLE + chunk("hi"))
    await client.head()
    said = await fill(made, gate.paused.is_set)
    assert made.job.answer.blocked
    assert said * len(BIG) < 12 * 2**20
    body = asyncio.ensure_future(_all(client))
    await happens(gate.resumed)
    made.say(DONE)
    made.job.answer.finish(OK)
    assert await body == ROLE + chunk("hi") + BIG * said + DONE


async def _all(client: Client) -> bytes:
    parts = []
    while data := await client.piece():
        parts.append(data)
    return b"".join(parts)


async def test_a_client_that_takes_nothing_for_too_long_is_cut(door: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "STALL_S", 0.2)
    made = await door()
    gate = made.job.answer.gate = _Gate()
    client = await made.ask()
    made.say(ROLE + chunk("hi"))
    await client.head()
    await fill(made, gate.paused.is_set)
    await happens(gate.resumed, 2)
    await happens(made.left, 1)
    assert not made.job.answer.blocked
    with suppress(ConnectionError):
        async with asyncio.timeout(BOUND_S):
            assert b"[DONE]" not in await client.reader.read()


async def test_a_job_that_lives_on_does_not_wait_for_a_slow_reader(door: Opener) -> None:
    made = await door(keep=True)
    gate = made.job.answer.gate = _Gate()
    client = await made.ask()
    made.say(ROLE + chunk("hi"))
    await client.head()
    for _ in range(150):
        made.say(BIG)
    await happens(made.left, 1)
    assert not gate.paused.is_set()
    assert not made.job.answer.blocked


# -- whole answers


async def test_a_whole_answer_is_the_body_or_the_error_it_ended_with() -> None:
    for end, error in ((OK, None), (BROKEN, BROKEN.error)):
        job = make_job(stream=False)
        waiting = asyncio.ensure_future(whole_answer(job, lambda model, engine: None))
        await asyncio.wait((waiting,), timeout=0.01)
        job.answer.feed(b'{"a": 1}', 1)
        job.answer.finish(end)
        assert await waiting == (b'{"a": 1}', error)
        assert job.answer.readers == []


async def test_a_whole_answer_is_only_of_the_last_try() -> None:
    job = make_job(stream=False)
    sink = WholeSink(job)
    job.answer.attach(sink)
    job.answer.restart(1)
    job.answer.feed(b"half", 1)
    job.answer.restart(2)
    job.answer.feed(b"whole", 1)
    job.answer.finish(OK)
    job.answer.finish(OK)
    assert sink.parts == [b"whole"]
    assert (await sink.done) is OK


async def test_a_client_waits_a_minute_for_a_load_and_is_told_when_to_come_back_while_it_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sink_module, "LOADING_PATIENCE_S", 0.1)
    job = make_job(stream=False, state=JobState.LOADING, loading_pct=40)
    loads: list[tuple[str, str]] = []
    with pytest.raises(QuorumError) as raised:
        await whole_answer(job, lambda model, engine: loads.append((model, engine)))
    assert (raised.value.code, raised.value.status, loads) == ("model_loading", 503, [("m", "")])
    assert "40 %" in raised.value.message
    assert 5 <= (raised.value.retry_after_s or 0) <= 300
    assert job.answer.readers == []


async def test_the_clock_of_the_load_stops_when_the_job_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "LOADING_PATIENCE_S", 0.1)
    job = make_job(stream=False, state=JobState.LOADING)
    waiting = asyncio.ensure_future(whole_answer(job, lambda model, engine: pytest.fail("it was not given up")))
    await asyncio.wait((waiting,), timeout=0.05)
    job.state = JobState.WORKING
    job.answer.tell(job.news())
    await asyncio.wait((waiting,), timeout=0.2)
    assert not waiting.done()
    job.answer.feed(b"{}", 1)
    job.answer.finish(OK)
    assert await waiting == (b"{}", None)


def test_a_job_that_nobody_was_chosen_for_names_nobody() -> None:
    headers = job_headers(make_job())
    assert (headers["X-Quorum-Node"], headers["X-Quorum-Reason"], headers["X-Quorum-Attempts"]) == ("", "", "1")
