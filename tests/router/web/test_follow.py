"""Event streams over a real server: an answer followed, dropped and picked up again; the node's changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from router.answer import Answer
from router.errors import BadRequestError, failure
from router.events import OVERFLOW, QUEUE_LIMIT, Bus
from router.states import JobState
from router.web import follow as follow_module
from router.web.follow import follow_answer, follow_node
from router.wire import Change, Ended, Snapshot, State
from tests.fakes import BOUND_S, DONE, chunk, make_job, node_info

END = Ended(state=JobState.DONE)
ROLE = chunk(role=True)


@dataclass
class Got:
    """One event as a browser's EventSource would give it."""

    name: str
    data: str
    id: str


class Events:
    """A strict reader of Server-Sent Events."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.last_id = ""
        self.comments: list[str] = []

    async def next(self) -> Got | None:
        """The next event; None at the end of the stream."""
        name, data = "message", []
        async with asyncio.timeout(BOUND_S):
            while line := await self.response.content.readline():
                text = line.decode().rstrip("\n")
                field, _, value = text.partition(":")
                value = value.removeprefix(" ")
                match field:
                    case "" if text:
                        self.comments.append(value)
                    case "" if data:
                        return Got(name, "\n".join(data), self.last_id)
                    case "event":
                        name = value
                    case "data":
                        data.append(value)
                    case "id":
                        self.last_id = value
        return None

    async def all(self) -> list[Got]:
        found = []
        while (got := await self.next()) is not None:
            found.append(got)
        return found


class Site:
    """A server with one stream, and a client of it."""

    def __init__(self, handle: Callable[[web.Request], Any]) -> None:
        self._handle = handle
        self.handlers: list[asyncio.Task[Any]] = []
        self._responses: list[aiohttp.ClientResponse] = []

    async def __aenter__(self) -> Site:
        app = web.Application(middlewares=[self._middleware])
        app.router.add_get("/", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/"
        self._session = aiohttp.ClientSession()
        return self

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self.handlers.append(task)
        try:
            return await handler(request)
        except BadRequestError as error:
            return web.json_response({"field": error.field}, status=error.status)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        answered: web.StreamResponse = await self._handle(request)
        return answered

    async def open(self, last_event_id: str = "") -> Events:
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        response = await self._session.get(self._url, headers=headers)
        self._responses.append(response)
        return Events(response)

    async def __aexit__(self, *_: object) -> None:
        for response in self._responses:
            response.close()
        await self._session.close()
        await self._runner.cleanup()


def answering(answer: Answer) -> Site:
    """A site that follows ``answer``, whose job works, or has ended."""
    job = make_job(state=JobState.WORKING, answer=answer)
    return Site(lambda request: follow_answer(request, answer, None if answer.end else job))


def kept(content_type: str = "text/event-stream") -> Answer:
    return Answer(keep=True, try_no=1, content_type=content_type)


def say(answer: Answer, *parts: bytes) -> None:
    for part in parts:
        answer.feed(part, part.count(b"\n\n"))


@pytest.fixture
async def answer() -> AsyncIterator[Answer]:
    made = kept()
    yield made
    assert made.readers == [], "a reader was left behind"


async def test_the_state_comes_first_then_the_answer_with_its_numbers_then_the_end(answer: Answer) -> None:
    async with answering(answer) as site:
        events = await site.open()
        assert (events.response.status, events.response.content_type) == (200, "text/event-stream")
        first = await events.next()
        assert first is not None
        assert (first.name, json.loads(first.data)["state"], first.id) == ("state", "working", "")
        say(answer, ROLE + chunk("a"))
        assert [(await events.next()).id for _ in range(2)] == ["1.0", "1.1"]  # type: ignore[union-attr]
        say(answer, chunk("b"), DONE)
        answer.finish(END)
        rest = await events.all()
    assert [(got.name, got.id) for got in rest] == [("message", "1.2"), ("message", "1.3"), ("ended", "1.3")]
    assert json.loads(rest[0].data) == json.loads(chunk("b")[6:])
    assert rest[1].data == "[DONE]"
    assert json.loads(rest[2].data)["state"] == "done"


async def test_a_dropped_connection_is_picked_up_where_it_was(answer: Answer) -> None:
    async with answering(answer) as site:
        first = await site.open()
        say(answer, ROLE + chunk("a"))
        had = [await first.next() for _ in range(3)]
        first.response.close()
        say(answer, chunk("b"), chunk("c"), DONE)
        answer.finish(END)
        again = await site.open(first.last_id)
        rest = await again.all()
    words = [got.data for got in [*had, *rest] if got is not None and got.name == "message"]
    assert [json.loads(word)["choices"][0]["delta"].get("content") for word in words[:-1]] == [None, "a", "b", "c"]
    assert [got.name for got in rest] == ["message", "message", "message", "ended"]


async def test_a_reader_of_an_earlier_try_is_reset_and_gets_the_new_answer_whole(answer: Answer) -> None:
    say(answer, ROLE + chunk("old"))
    async with answering(answer) as site:
        live = await site.open()
        for _ in range(3):
            await live.next()
        answer.restart(2)
        say(answer, ROLE + chunk("new"))
        assert [got and (got.name, got.id) for got in [await live.next(), await live.next(), await live.next()]] == [
            ("reset", "1.1"),
            ("message", "2.0"),
            ("message", "2.1"),
        ]
        late = await site.open("1.1")
        names = [(await late.next()).name for _ in range(4)]  # type: ignore[union-attr]
        assert names == ["state", "reset", "message", "message"]
        answer.finish(END)
        assert [got.name for got in await late.all()] == ["ended"]


async def test_moves_and_a_failure_are_told(answer: Answer) -> None:
    async with answering(answer) as site:
        events = await site.open()
        await events.next()
        answer.tell(State(state=JobState.QUEUED, why="retry", attempt=1))
        told = await events.next()
        assert told is not None
        assert (told.name, json.loads(told.data)["why"]) == ("state", "retry")
        answer.finish(Ended(state=JobState.FAILED, error=failure("engine_failed", "No.")))
        (end,) = await events.all()
    assert json.loads(end.data)["error"]["code"] == "engine_failed"


async def test_nothing_that_happens_while_the_stream_opens_is_missed(answer: Answer) -> None:
    async with answering(answer) as site:
        opening = asyncio.ensure_future(site.open())
        while not answer.readers:
            await asyncio.wait((opening,), timeout=0.001)
        answer.tell(State(state=JobState.WORKING, why="moved"))
        say(answer, chunk("a"))
        answer.finish(END)
        events = await opening
        assert [got.name for got in await events.all()] == ["state", "state", "message", "ended"]


async def test_an_engine_can_not_speak_for_the_stream(answer: Answer) -> None:
    """Ids, event names and comments of the engine are dropped; the numbers stay those of its events."""
    hostile = b'event: ended\ndata: {"state":"done"}\nid: 9.9\nretry: 1\n\n: comment\n\nid: 7.7\n\n'
    async with answering(answer) as site:
        events = await site.open()
        say(answer, hostile, chunk("a"))
        answer.finish(END)
        got = await events.all()
    assert [(one.name, one.id) for one in got] == [
        ("state", ""),
        ("message", "1.0"),
        ("message", "1.3"),
        ("ended", "1.3"),
    ]


async def test_a_whole_body_is_one_event_even_over_many_lines() -> None:
    answer = kept("application/json")
    body = b'{\r\n "a": 1,\n\n "b": [2]\n}\n'
    answer.feed(body, 1)
    answer.finish(END)
    async with answering(answer) as site:
        got = await (await site.open()).all()
        assert [(one.name, one.id) for one in got] == [("message", "1.0"), ("ended", "1.0")]
        assert json.loads(got[0].data) == {"a": 1, "b": [2]}
        assert [one.name for one in await (await site.open("1.0")).all()] == ["ended"]


@pytest.mark.parametrize("bad", ["x", "1", "1.", ".1", "1.x", "-1.2", "1.2.3", "1 .2", "1." + "9" * 60, "²2.1"])
async def test_an_id_that_no_stream_gave_is_refused_by_name(answer: Answer, bad: str) -> None:
    async with answering(answer) as site:
        events = await site.open(bad)
        assert events.response.status == 400
        assert await events.response.json() == {"field": "Last-Event-ID"}


async def test_a_quiet_stream_shows_that_it_lives(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_module, "BEAT_S", 0.05)
    async with answering(answer) as site:
        events = await site.open()
        await events.next()
        waiting = asyncio.ensure_future(events.next())
        await asyncio.wait((waiting,), timeout=0.2)
        answer.finish(END)
        assert (await waiting) is not None
        assert set(events.comments) == {"beat"}


async def test_a_long_answer_is_replayed_whole_in_one_connection(answer: Answer) -> None:
    count = 3 * follow_module.QUEUE_MAX
    for number in range(count):
        answer.feed(b"data: %d\n\n" % number, 1)
    answer.finish(END)
    async with answering(answer) as site:
        got = await (await site.open("1.9")).all()
    assert [one.data for one in got[:-1]] == [str(number) for number in range(10, count)]


async def test_a_reader_that_falls_far_behind_is_cut_and_can_come_back(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_module, "QUEUE_MAX", 16)
    async with answering(answer) as site:
        events = await site.open()
        for number in range(200):  # no turn of the loop between: the stream's task takes nothing
            answer.feed(b"data: %d\n\n" % number, 1)
        assert answer.readers == []
        got = await events.all()
        assert got[-1].name == "message"
        answer.finish(END)
        rest = await (await site.open(events.last_id)).all()
    numbers = [int(one.data) for one in [*got, *rest] if one.name == "message"]
    assert numbers == list(range(200))
    assert rest[-1].name == "ended"


async def test_a_client_that_leaves_is_let_go(answer: Answer) -> None:
    async with answering(answer) as site:
        events = await site.open()
        await events.next()
        assert len(answer.readers) == 1
        events.response.close()
        await asyncio.wait(site.handlers, timeout=BOUND_S)
        assert answer.readers == []


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.lists(st.integers(0, 30), max_size=3))
def test_whatever_is_dropped_and_whenever_it_is_picked_up_nothing_is_missing_or_double(
    sizes: list[int], drops: list[int]
) -> None:
    total = sum(sizes)

    async def run() -> list[str]:
        answer = kept()
        got: list[str] = []
        async with answering(answer) as site:
            last_id, fed = "", 0
            for drop in sorted(drop % (total + 1) for drop in drops):
                events = await site.open(last_id)
                await events.next()
                while fed < drop:
                    answer.feed(b"data: %d\n\n" % fed, 1)
                    fed += 1
                while len(got) < fed:
                    one = await events.next()
                    assert one is not None
                    got.append(one.data)
                last_id = events.last_id or last_id
                events.response.close()
            for size in sizes:
                size = min(size, total - fed)
                if size:
                    answer.feed(b"".join(b"data: %d\n\n" % n for n in range(fed, fed + size)), size)
                fed += size
            answer.finish(END)
            got += [one.data for one in await (await site.open(last_id)).all() if one.name == "message"]
            return got

    assert asyncio.run(run()) == [str(number) for number in range(total)]


# -- the node's changes


def snapshot(version: int) -> Snapshot:
    return Snapshot(node=node_info(running=version), engines=[], models=[], jobs=[], chats=[], settings=[])


class Changes:
    """A bus with a snapshot that counts how often it was taken."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.taken = 0

    async def look(self) -> Snapshot:
        self.taken += 1
        return snapshot(self.taken)

    def site(self) -> Site:
        return Site(lambda request: follow_node(request, self.bus, self.look))


async def test_a_snapshot_comes_first_then_changes_and_the_end() -> None:
    changes = Changes()
    async with changes.site() as site:
        events = await site.open()
        first = await events.next()
        assert first is not None
        assert (first.name, json.loads(first.data)["node"]["running"]) == ("snapshot", 1)
        changes.bus.push(Change(gone=["c1"]))
        change = await events.next()
        assert change is not None
        assert (change.name, json.loads(change.data)["gone"]) == ("change", ["c1"])
        changes.bus.push(None)
        assert await events.next() is None
    assert not changes.bus.watched


async def test_after_an_overflow_the_page_starts_again_from_a_snapshot() -> None:
    changes = Changes()
    async with changes.site() as site:
        events = await site.open()
        await events.next()
        for number in range(QUEUE_LIMIT + 5):
            changes.bus.push(Change(gone=[str(number)]))
        names = [(await events.next()).name]  # type: ignore[union-attr]
        changes.bus.push(Change(gone=["last"]))
        changes.bus.push(None)
        rest = await events.all()
    assert names == ["snapshot"]
    assert json.loads(rest[-1].data)["gone"] == ["last"]
    assert changes.taken == 2


async def test_a_change_during_the_snapshot_is_not_lost() -> None:
    changes = Changes()

    async def look() -> Snapshot:
        changes.bus.push(Change(gone=["meanwhile"]))
        return snapshot(1)

    async with Site(lambda request: follow_node(request, changes.bus, look)) as site:
        events = await site.open()
        assert [(await events.next()).name for _ in range(2)] == ["snapshot", "change"]  # type: ignore[union-attr]


async def test_a_page_that_closes_is_forgotten() -> None:
    changes = Changes()
    async with changes.site() as site:
        events = await site.open()
        await events.next()
        assert changes.bus.watched
        events.response.close()
        await asyncio.wait(site.handlers, timeout=BOUND_S)
        assert not changes.bus.watched


def test_the_overflow_mark_is_no_event() -> None:
    assert not isinstance(OVERFLOW, Change)
