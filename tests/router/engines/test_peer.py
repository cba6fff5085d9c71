"""A paired computer as an engine, over real TLS: whatever it does wrong is one fault, and costs a bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from router.aio import SystemClock, Tasks
from router.engines import peer as peer_module
from router.engines.base import Call, EngineSnapshot, Kind, Reply
from router.engines.peer import PeerEngine, look_of
from router.engines.peer_transport import SIGN_BYTES
from router.errors import EngineFault
from router.events import Bus
from router.health import Health
from router.jobs import Job
from router.peer_client import PeerClient
from router.peer_tls import client_session
from router.registry import Registry
from router.relay import Limits
from router.runner import Runner
from router.scheduler import Scheduler
from router.states import JobState, NodeMode
from router.wire import State
from tests.fakes import BOUND_S, DONE, FakeClock, MemoryEngine, chunk, happens, listening, make_job, pieces, stream
from tests.fakes_peer import RECEIPT, Script, ScriptedPeer, Talk, answering, frozen, told

ACCEPT_S, QUIET_FIRST_S, QUIET_S = 0.4, 0.5, 0.6
CONTENT = [chunk(role=True), chunk("Hel"), chunk("lo"), chunk(finish="stop")]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits, shorter than in earnest."""
    for name, value in {"ACCEPT_S": ACCEPT_S, "QUIET_FIRST_S": QUIET_FIRST_S, "QUIET_S": QUIET_S}.items():
        monkeypatch.setattr(peer_module, name, value)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    made = client_session()
    yield made
    await made.close()


@pytest.fixture
async def studio(tmp_path: Path) -> AsyncIterator[ScriptedPeer]:
    async with ScriptedPeer(tmp_path / "studio") as scripted:
        yield scripted


class Side:
    """This node's side of the pair."""

    def __init__(self, session: aiohttp.ClientSession, studio: ScriptedPeer) -> None:
        self.clock = FakeClock()
        self.health = Health(self.clock, lambda low, high: 1.0)
        self.looks: list[EngineSnapshot] = []
        self.engine = PeerEngine(
            PeerClient(session, "own", studio.peer), self.health, lambda _, look: self.looks.append(look)
        )
        self.engine.show(look_of(studio.snapshot("m", "n")))
        self.states: list[State] = []

    def call(self, *, streamed: bool = True, **more: Any) -> Call:
        body = json.dumps({"model": "m", "messages": [], "stream": streamed}).encode()
        given = {"request_id": "J1", "try_no": 1, "told": self.states.append}
        return Call(Kind.CHAT, "m", body, streamed, **(given | more))

    async def run(self, **more: Any) -> bytes:
        async with asyncio.timeout(BOUND_S), self.engine.call(self.call(**more)) as reply:
            return b"".join([data async for data in reply.chunks])

    @property
    def out(self) -> bool:
        return bool(self.health.ejected(self.engine.id, "m"))

    def counted(self) -> int:
        """Failures that count against the peer."""
        record = self.health._records.get((self.engine.id, "m"))
        return 0 if record is None else record.calls.count(False) + (record.until is not None)


@pytest.fixture
def side(session: aiohttp.ClientSession, studio: ScriptedPeer) -> Side:
    return Side(session, studio)


# -- honest peers


async def test_a_streamed_answer_comes_as_openai_events_and_nothing_else(side: Side, studio: ScriptedPeer) -> None:
    assert await side.run(deadline_s=60.0, digest="d" * 64) == b"".join([*CONTENT, DONE])
    (asked,) = studio.runs()
    assert asked.headers["authorization"] == "Quorum own " + "s" * 43
    assert asked.headers["x-quorum-protocol"] == "1"
    sent = asked.json
    assert sent.pop("body") == {"model": "m", "messages": [], "stream": True}
    assert sent == {
        "origin_job": "J1",
        "try": 1,
        "deadline_s": 60.0,
        "digest": "d" * 64,
        "model": "m",
        "kind": "chat",
        "stream": True,
        "keep_alive_s": None,
    }


async def test_a_whole_answer_comes_as_its_json_with_the_facts(side: Side) -> None:
    async with side.engine.call(side.call(streamed=False)) as reply:
        assert (reply.status, reply.content_type) == (200, "application/json")
        body = b"".join([data async for data in reply.chunks])
        assert json.loads(body)["choices"][0]["message"]["content"] == "Hello"
        assert reply.facts == RECEIPT


async def test_requests_one_after_the_other_share_a_connection(side: Side, studio: ScriptedPeer) -> None:
    async with side.engine.call(side.call()) as reply:
        assert [data async for data in reply.chunks]
    for _ in range(2):
        await side.run()
    assert (len(studio.runs()), studio.connections) == (3, 1)


async def test_a_kept_connection_that_was_closed_meanwhile_is_no_failure(side: Side, studio: ScriptedPeer) -> None:
    await side.run()
    port = studio.port
    await studio.stop()
    await studio.start(port=port)
    assert await side.run()
    assert side.counted() == 0


async def test_a_peer_that_closes_every_kept_connection_is_asked_at_most_once_more(
    side: Side, studio: ScriptedPeer
) -> None:
    together = asyncio.Barrier(4)

    async def at_once(talk: Talk) -> None:
        await together.wait()
        await answering(talk)

    studio.scripts["/peer/v1/run"] = at_once
    await asyncio.gather(*(side.run() for _ in range(4)))
    assert studio.connections == 4

    async def takes_and_closes(talk: Talk) -> None:
        return

    studio.scripts["/peer/v1/run"] = takes_and_closes
    before = len(studio.runs())
    with pytest.raises(EngineFault, match="closed the connection"):
        await side.run()
    assert len(studio.runs()) - before <= 2


async def test_how_the_job_stands_there_is_told(side: Side, studio: ScriptedPeer) -> None:
    states = [State(state=JobState.QUEUED, place=2), State(state=JobState.LOADING, loading_pct=40)]

    async def script(talk: Talk) -> None:
        await talk.begin()
        await talk.say(*(told("state", state) for state in states), b"event: weather\ndata: 1\n\n", *CONTENT)
        await talk.say(told("facts", RECEIPT), DONE)
        await talk.end()

    studio.scripts["/peer/v1/run"] = script
    assert await side.run() == b"".join([*CONTENT, DONE])
    assert side.states == states


@pytest.mark.parametrize("size", [1, 7, 50])
async def test_it_does_not_matter_how_the_bytes_are_cut(side: Side, studio: ScriptedPeer, size: int) -> None:
    said = b"".join([b": accepted\n\n", *CONTENT, told("facts", RECEIPT), DONE])

    async def script(talk: Talk) -> None:
        await talk.begin(accept=False)
        await talk.say(*(said[start : start + size] for start in range(0, len(said), size)))
        await talk.end()

    studio.scripts["/peer/v1/run"] = script
    assert await side.run() == b"".join([*CONTENT, DONE])


async def test_lines_may_end_as_in_windows_and_events_have_several_fields(side: Side, studio: ScriptedPeer) -> None:
    async def script(talk: Talk) -> None:
        await talk.begin(accept=False)
        await talk.say(b": accepted\r\n\r\n", b"id: 4\r\n" + CONTENT[1].replace(b"\n", b"\r\n"), CONTENT[3], DONE)
        await talk.end()

    studio.scripts["/peer/v1/run"] = script
    assert await side.run() == b"".join([CONTENT[1], CONTENT[3], DONE])


async def test_beats_keep_a_slow_answer_alive(side: Side, studio: ScriptedPeer) -> None:
    beaten = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.begin()
        loop = asyncio.get_running_loop()
        until = loop.time() + 2 * QUIET_FIRST_S
        while loop.time() < until:
            await talk.say(b": beat\n\n")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 0.1)
        beaten.set()
        await talk.say(*CONTENT, DONE)
        await talk.end()

    studio.scripts["/peer/v1/run"] = script
    assert await side.run()
    assert beaten.is_set()


# -- refusals


@pytest.mark.parametrize(
    ("status", "code", "fault", "retryable", "counts"),
    [
        (400, "bad_request", "bad_request", False, 0),
        (413, "payload_too_large", "payload_too_large", False, 0),
        (409, "conflict", "peer_failed", True, 1),
        (429, "queue_full", "peer_failed", True, 1),
        (503, "paused", "peer_failed", True, 1),
        (500, "internal", "peer_failed", True, 1),
        (404, "not_found", "peer_failed", True, 1),
        (404, "model_not_found", "model_not_found", True, 0),
        (401, "unauthorized", "peer_failed", True, 0),
        (403, "forbidden", "peer_failed", True, 0),
    ],
)
async def test_a_refusal_is_a_fault_that_says_whether_another_may_try(
    side: Side, studio: ScriptedPeer, status: int, code: str, fault: str, retryable: bool, counts: int
) -> None:
    async def script(talk: Talk) -> None:
        await talk.refuse(status, code, "Because\nso.", Retry_After="3")

    studio.scripts["/peer/v1/run"] = script
    with pytest.raises(EngineFault, match="Because so") as raised:
        await side.run()
    assert (raised.value.code, raised.value.retryable) == (fault, retryable)
    assert side.counted() == counts
    assert len(studio.runs()) == 1


async def test_a_model_that_is_not_there_leaves_the_list(side: Side, studio: ScriptedPeer) -> None:
    async def script(talk: Talk) -> None:
        await talk.refuse(404, "model_not_found")

    studio.scripts["/peer/v1/run"] = script
    with pytest.raises(EngineFault):
        await side.run()
    assert [model.name for model in (await side.engine.poll()).models] == ["n"]
    assert [model.name for model in side.looks[-1].models] == ["n"]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_peer_that_refuses_this_computer_is_untrusted_until_it_says_otherwise(
    side: Side, studio: ScriptedPeer, status: int
) -> None:
    async def script(talk: Talk) -> None:
        await talk.refuse(status, "forbidden", "You may not.")

    studio.scripts["/peer/v1/run"] = script
    with pytest.raises(EngineFault):
        await side.run()
    assert (side.looks[-1].ready, side.looks[-1].trusted, side.looks[-1].detail) == (False, False, "You may not.")


async def test_fast_refusers_are_left_alone_after_three(side: Side, studio: ScriptedPeer) -> None:
    async def script(talk: Talk) -> None:
        await talk.refuse(429, "queue_full")

    studio.scripts["/peer/v1/run"] = script
    for _ in range(3):
        assert not side.out
        with pytest.raises(EngineFault):
            await side.run()
    assert side.out


# -- broken and lying peers


async def hangs(talk: Talk) -> None:
    await talk.gone()


async def hangs_after_headers(talk: Talk) -> None:
    await talk.begin(accept=False)
    await talk.gone()


async def beats_instead_of_accepting(talk: Talk) -> None:
    await talk.begin(accept=False)
    await talk.say(b": beat\n\n")
    await talk.gone()


async def freezes_after_accepting(talk: Talk) -> None:
    await talk.begin()
    await talk.gone()


async def freezes_in_the_middle(talk: Talk) -> None:
    await talk.begin()
    await talk.say(*CONTENT[:2])
    await talk.gone()


async def resets(talk: Talk) -> None:
    talk.reset()


async def closes(talk: Talk) -> None:
    pass


async def breaks_in_the_middle(talk: Talk) -> None:
    await talk.begin()
    await talk.say(*CONTENT[:2])
    talk.reset()


async def ends_in_the_middle(talk: Talk) -> None:
    await talk.begin()
    await talk.say(*CONTENT[:2])
    await talk.end()


async def reports_an_error(talk: Talk) -> None:
    await talk.begin()
    error = {"code": "engine_failed", "message": "It\x1b[31m crashed.", "hint": "", "status": 502}
    await talk.say(told("error", error))
    await talk.end()


def says(*events: bytes) -> Script:
    async def script(talk: Talk) -> None:
        await talk.begin()
        await talk.say(*events)
        await talk.gone()

    return script


def answers(*data: bytes) -> Script:
    async def script(talk: Talk) -> None:
        await talk.raw(*data)
        await talk.gone()

    return script


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
BAD: dict[str, tuple[Script, str]] = {
    "closes": (closes, "closed the connection"),
    "resets": (resets, "closed the connection"),
    "hangs": (hangs, "did not take the request"),
    "hangs after headers": (hangs_after_headers, "did not take the request"),
    "beats instead of accepting": (beats_instead_of_accepting, "accept the request first"),
    "freezes after accepting": (freezes_after_accepting, "said nothing"),
    "freezes in the middle": (freezes_in_the_middle, "said nothing"),
    "breaks in the middle": (breaks_in_the_middle, "broke"),
    "ends in the middle": (ends_in_the_middle, "before its end"),
    "reports an error": (reports_an_error, r"It \[31m crashed"),
    "garbage": (answers(b"\x16\x03\x01 what\r\n\r\n"), "HTTP"),
    "garbage in the stream": (says(b"hello\n\n"), "not understood"),
    "no JSON": (says(b"data: {oops}\n\n"), "not understood"),
    "no object": (says(b"data: [1]\n\n"), "not understood"),
    "deep": (says(b"data: " + b'{"a":' * 50_000 + b"\n\n"), "not understood"),
    "odd state": (says(told("state", {"state": "dancing"})), "not understood"),
    "odd facts": (says(told("facts", {"node": 1})), "not understood"),
    "no UTF-8": (says(b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n'), "not understood"),
    "an error among the chunks": (
        says(chunk(role=True), b'data: {"error": {"message": "Out of memory"}}\n\n'),
        "Out of",
    ),
    "two lines": (says(b"data: {}\ndata: {}\n\n"), "where none belongs"),
    "a body": (says(told("body", {})), "where none belongs"),
    "a fake end at once": (says(DONE), "not complete"),
    "a fake end": (says(*CONTENT[:2], DONE), "not complete"),
    "redirect": (answers(b"HTTP/1.1 307 X\r\nLocation: /peer/v1/run\r\nContent-Length: 0\r\n\r\n"), "redirect"),
    "compressed": (answers(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"), "compressed"),
    "short length": (answers(HEAD + b"Content-Length: 900\r\n\r\n: accepted\n\n"), "said nothing"),
    "wrong chunk": (answers(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n: accepted\n\n"), "broke|HTTP"),
    "long length": (
        answers(HEAD + b"Content-Length: 12\r\n\r\n: accepted\n\n" + b"".join(CONTENT)),
        "before its end|broke",
    ),
    "two lengths": (answers(HEAD + b"Content-Length: 9\r\nContent-Length: 8\r\n\r\n: accepted\n\n"), "HTTP"),
    "a length and chunks": (
        answers(HEAD + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n: accepted\n\n"),
        "HTTP",
    ),
    "continues without end": (answers(b"HTTP/1.1 100 Continue\r\n\r\n" * 5000), "take the request|HTTP"),
    "another protocol": (
        answers(b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n: accepted\n\n"),
        "closed the connection|HTTP",
    ),
    "no status": (answers(b"HTTP/1.1 999999 X\r\n\r\n"), "HTTP"),
    "endless header": (answers(HEAD + b"X: " + b"a" * 1_000_000 + b"\r\n\r\n"), "HTTP|endless head"),
}


@pytest.mark.parametrize("bad", BAD)
async def test_whatever_a_peer_does_wrong_is_one_fault_of_one_request(
    side: Side, studio: ScriptedPeer, bad: str
) -> None:
    studio.scripts["/peer/v1/run"], said = BAD[bad]
    with pytest.raises(EngineFault, match=said) as raised:
        await side.run()
    assert raised.value.retryable
    assert side.counted() == 1
    assert len(studio.runs()) == 1


async def test_an_endless_line_ends_at_a_bound(
    side: Side, studio: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.engines.peer_stream.EVENT_MAX_BYTES", 100_000)

    async def script(talk: Talk) -> None:
        await talk.begin()
        while True:
            await talk.say(b"data: " + b"a" * 10_000)

    studio.scripts["/peer/v1/run"] = script
    with pytest.raises(EngineFault, match="endless line"):
        await side.run()


async def test_a_drip_of_single_bytes_is_not_an_answer_in_time(side: Side, studio: ScriptedPeer) -> None:
    async def script(talk: Talk) -> None:
        await talk.begin(accept=False)
        while True:
            await talk.say(b":")
            await asyncio.sleep(0)

    studio.scripts["/peer/v1/run"] = script
    with pytest.raises(EngineFault) as raised:
        await side.run()
    assert raised.value.retryable


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_drip_of_single_bytes_after_accepting_is_silence(
    side: Side, studio: ScriptedPeer, streamed: bool
) -> None:
    async def script(talk: Talk) -> None:
        await talk.begin()
        await talk.say(b"data: {")
        with contextlib.suppress(ConnectionError):
            while not await talk.left(QUIET_FIRST_S / 5):
                await talk.say(b" ")

    studio.scripts["/peer/v1/run"] = script
    with pytest.raises(EngineFault, match="said nothing for"):
        await side.run(streamed=streamed)
    assert side.counted()


async def test_a_long_event_that_comes_slowly_is_no_silence(side: Side, studio: ScriptedPeer) -> None:
    parts = 8
    word = "a" * SIGN_BYTES

    async def script(talk: Talk) -> None:
        await talk.begin()
        event = chunk(word * parts)
        for start in range(0, len(event), SIGN_BYTES):
            await talk.say(event[start : start + SIGN_BYTES])
            await talk.left(QUIET_FIRST_S / 4)
        await talk.say(chunk(finish="stop"), told("facts", RECEIPT), DONE)
        await talk.end()

    studio.scripts["/peer/v1/run"] = script
    assert (word * parts).encode() in await side.run()


@pytest.mark.parametrize("bad", ["hangs", "hangs after headers"])
async def test_a_peer_that_did_not_accept_in_time_is_left_alone_at_once(
    side: Side, studio: ScriptedPeer, bad: str
) -> None:
    studio.scripts["/peer/v1/run"] = BAD[bad][0]
    began = asyncio.get_running_loop().time()
    with pytest.raises(EngineFault):
        await side.run()
    assert asyncio.get_running_loop().time() - began < ACCEPT_S + 0.3
    assert side.out


async def test_a_stopped_program_behind_an_open_port_costs_one_timeout(side: Side) -> None:
    async with frozen() as port:
        side.engine.client.place = ("127.0.0.1", port)
        with pytest.raises(EngineFault, match="in time"):
            await side.run()
    assert side.out


async def test_a_refused_connection_costs_next_to_nothing_and_two_in_a_row_are_enough(
    side: Side, studio: ScriptedPeer
) -> None:
    await studio.stop()
    for out in (False, True):
        began = asyncio.get_running_loop().time()
        with pytest.raises(EngineFault, match="can't be reached"):
            await side.run()
        assert asyncio.get_running_loop().time() - began < 0.2
        assert side.out is out


async def test_another_computer_at_the_address_gets_no_byte_of_a_request(
    side: Side, studio: ScriptedPeer, tmp_path: Path
) -> None:
    async with ScriptedPeer(tmp_path / "spoof") as spoof:
        side.engine.client.place = ("127.0.0.1", spoof.port)
        with pytest.raises(EngineFault, match="Another computer answers"):
            await side.run()
        assert spoof.asked == []
    assert side.out


async def test_what_was_whole_before_a_break_is_kept(side: Side, studio: ScriptedPeer) -> None:
    studio.scripts["/peer/v1/run"] = says(*CONTENT[:2], b"data: {oops}\n\n")
    got = []

    async def read() -> None:
        async with side.engine.call(side.call()) as reply:
            async for data in reply.chunks:
                got.append(data)

    with pytest.raises(EngineFault):
        await read()
    assert b"".join(got) == b"".join(CONTENT[:2])


async def test_leaving_early_is_seen_there_at_once_and_is_no_failure(side: Side, studio: ScriptedPeer) -> None:
    left = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.begin()
        await talk.say(*CONTENT[:2])
        await talk.gone()
        left.set()

    studio.scripts["/peer/v1/run"] = script
    async with side.engine.call(side.call()) as reply:
        async for _ in reply.chunks:
            break
    await asyncio.wait_for(left.wait(), 0.5)
    assert side.counted() == 0


async def test_a_peer_loads_and_unloads_by_itself(side: Side) -> None:
    assert not side.engine.needs_load("m")
    with pytest.raises(EngineFault):
        await side.engine.load("m")
    with pytest.raises(EngineFault):
        await side.engine.unload("m")


def test_what_a_peer_tells_becomes_a_look_at_an_engine(tmp_path: Path) -> None:
    told = ScriptedPeer(tmp_path / "p").snapshot("m", mode=NodeMode.PAUSED, in_flight=2, vram_free_bytes=9)
    look = look_of(told)
    assert (look.ready, look.mode, look.width, look.in_flight, look.free_vram_bytes) == (True, NodeMode.PAUSED, 4, 2, 9)
    assert look.detail == "It is paused."
    assert [(model.name, model.resident) for model in look.models] == [("m", True)]


# -- whole requests


class House:
    """A scheduler and runner of this node, with its own engine and a peer."""

    def __init__(self, session: aiohttp.ClientSession, studio: ScriptedPeer, own: MemoryEngine | None) -> None:
        self.registry = Registry("here", lambda: "here")
        self.tasks = Tasks()
        clock = SystemClock()
        self.runner = Runner(self.registry, Bus(), self.tasks, clock, lambda _: None, Limits())
        self.scheduler = Scheduler(self.registry, self.runner, clock, width=lambda _: 4, route=lambda _: "")
        self.runner.scheduler = self.scheduler
        self.registry.changed = self.scheduler.refresh
        self.ended = asyncio.Event()
        self.peer = PeerEngine(PeerClient(session, "own", studio.peer), self.registry.health, self.registry.update)
        for engine in (self.peer, own):
            if engine is not None:
                self.registry.add(engine)
        self.peer.show(look_of(studio.snapshot()))
        if own is not None:
            own.reply = lambda call: Reply(200, "text/event-stream", pieces(stream("own")))
            self.registry.update(own.id, own.look())

    def submit(self, **changes: Any) -> Job:
        given = {"on_end": lambda job: self.ended.set(), "created_mono": SystemClock.mono(), "max_attempts": 1}
        job = make_job(1, **(given | changes))
        self.scheduler.submit(job)
        return job


LATE = ["freezes in the middle", "breaks in the middle", "ends in the middle", "a fake end"]
EARLY = [bad for bad in BAD if bad not in LATE]


@pytest.mark.parametrize("bad", EARLY)
async def test_before_the_first_content_this_computer_answers_instead(
    session: aiohttp.ClientSession, studio: ScriptedPeer, bad: str
) -> None:
    studio.scripts["/peer/v1/run"] = BAD[bad][0]
    own = MemoryEngine(loads=False)
    house = House(session, studio, own)
    job = house.submit()
    reader = listening(job)
    await happens(house.ended)
    assert (job.state, reader.got.count(b"own"), reader.got.count(b"[DONE]")) == (JobState.DONE, 1, 1)
    assert job.receipt is not None
    assert (job.receipt.node, [seen.engine for seen in job.receipt.tries]) == ("here", [house.peer.id, "e"])
    assert (len(studio.runs()), len(own.calls)) == (1, 1)


@pytest.mark.parametrize("bad", LATE)
async def test_after_the_first_content_the_answer_is_interrupted_and_nobody_else_generates(
    session: aiohttp.ClientSession, studio: ScriptedPeer, bad: str
) -> None:
    studio.scripts["/peer/v1/run"] = BAD[bad][0]
    own = MemoryEngine(loads=False)
    house = House(session, studio, own)
    job = house.submit()
    reader = listening(job)
    await happens(house.ended)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "interrupted"
    assert b"Hel" in reader.got
    assert b"[DONE]" not in reader.got
    assert own.calls == []


async def test_a_good_answer_names_the_peer_and_carries_what_it_measured(
    session: aiohttp.ClientSession, studio: ScriptedPeer
) -> None:
    studio.scripts["/peer/v1/run"] = answering
    house = House(session, studio, MemoryEngine(loads=False))
    job = house.submit()
    reader = listening(job)
    await happens(house.ended)
    assert job.state is JobState.DONE
    assert reader.got == b"".join([*CONTENT, DONE])
    assert job.receipt is not None
    assert (job.receipt.node, job.receipt.reason) == (studio.node_id, "peer-warm")
    assert (job.receipt.prompt_tokens, job.receipt.digest) == (7, None)


async def test_cancelling_a_job_reaches_the_peer(session: aiohttp.ClientSession, studio: ScriptedPeer) -> None:
    began, left = asyncio.Event(), asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.begin()
        await talk.say(*CONTENT[:2])
        began.set()
        await talk.gone()
        left.set()

    studio.scripts["/peer/v1/run"] = script
    house = House(session, studio, None)
    job = house.submit()
    await happens(began)
    house.scheduler.cancel(job.id)
    await asyncio.wait_for(left.wait(), 0.5)
    assert job.state is JobState.CANCELLED


async def test_while_a_job_waits_or_loads_there_no_content_is_awaited(
    session: aiohttp.ClientSession, studio: ScriptedPeer
) -> None:
    first_content_s = 0.3

    async def script(talk: Talk) -> None:
        await talk.begin()
        await talk.say(told("state", State(state=JobState.LOADING, loading_pct=1)))
        until = asyncio.get_running_loop().time() + 3 * first_content_s
        while asyncio.get_running_loop().time() < until:
            await talk.say(b": beat\n\n")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 0.1)
        await talk.say(told("state", State(state=JobState.WORKING)), *CONTENT, told("facts", RECEIPT), DONE)
        await talk.end()

    studio.scripts["/peer/v1/run"] = script
    house = House(session, studio, None)
    house.runner._limits = Limits(first_content_s, 30.0, 30.0)
    job = house.submit()
    reader = listening(job)
    await happens(house.ended)
    assert job.state is JobState.DONE
    assert JobState.LOADING in [state.state for state in reader.states]


@pytest.mark.parametrize("state", [JobState.WORKING, JobState.LOADING])
async def test_news_without_progress_do_not_hold_a_request_for_ever(
    session: aiohttp.ClientSession, studio: ScriptedPeer, monkeypatch: pytest.MonkeyPatch, state: JobState
) -> None:
    """What works says so once; a load that comes no further has a limit of its own."""
    monkeypatch.setattr("router.relay.LOADING_S", 0.2)

    async def script(talk: Talk) -> None:
        await talk.begin()
        with contextlib.suppress(ConnectionError):
            while not await talk.left(0.05):
                await talk.say(told("state", State(state=state, loading_pct=40)))

    studio.scripts["/peer/v1/run"] = script
    house = House(session, studio, None)
    house.runner._limits = Limits(0.3, 30.0, 30.0)
    job = house.submit()
    await happens(house.ended)
    assert job.error is not None
    assert (job.state, job.error.code) == (JobState.FAILED, "deadline_exceeded")


async def only_beats(talk: Talk, *events: bytes) -> None:
    await talk.begin()
    await talk.say(*events)
    while True:
        await talk.say(b": beat\n\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.05)


async def test_a_peer_that_only_beats_is_given_up_and_left_alone(
    session: aiohttp.ClientSession, studio: ScriptedPeer
) -> None:
    studio.scripts["/peer/v1/run"] = only_beats
    house = House(session, studio, MemoryEngine(loads=False))
    house.runner._limits = Limits(0.3, 30.0, 30.0)
    job = house.submit()
    reader = listening(job)
    await happens(house.ended)
    assert (job.state, reader.got.count(b"own")) == (JobState.DONE, 1)
    assert house.registry.health.ejected(house.peer.id, "m")


async def test_one_that_only_beats_after_its_first_words_is_an_interruption_and_left_alone(
    session: aiohttp.ClientSession, studio: ScriptedPeer
) -> None:
    async def script(talk: Talk) -> None:
        await only_beats(talk, *CONTENT[:2])

    studio.scripts["/peer/v1/run"] = script
    house = House(session, studio, MemoryEngine(loads=False))
    house.runner._limits = Limits(30.0, 0.3, 30.0)
    job = house.submit()
    listening(job)
    await happens(house.ended)
    assert job.error is not None
    assert (job.state, job.error.code) == (JobState.FAILED, "interrupted")
    assert house.registry.health.ejected(house.peer.id, "m")
