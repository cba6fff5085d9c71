"""One attempt at one engine, over real sockets: what of an answer reaches the readers, and how every fault ends."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import relay as relay_module
from router.aio import SystemClock
from router.answer import Answer
from router.engines.base import Call, Kind, Reply
from router.engines.http1 import Http1Transport
from router.engines.openai import OpenAIEngine
from router.engines.transport import HttpTransport, Transport
from router.errors import EngineFault
from router.jobs import Job, Outcome, Result
from router.relay import EVENT_MAX_BYTES, Limits, Relay
from tests.fakes import (
    BOUND_S,
    DONE,
    HANG,
    RESET,
    Drip,
    Flood,
    Listener,
    MemoryEngine,
    ScriptedEngine,
    Step,
    Wait,
    chunk,
    event,
    free_port,
    happens,
    head,
    listening,
    make_job,
    pieces,
    short,
    stream,
    whole,
)

USUAL = Limits()
SHORT = Limits(first_content_s=0.25, between_content_s=0.25, whole_s=BOUND_S)
COMMENT = b": still here\n\n"
ROLE = chunk(role=True)


@dataclass
class Attempt:
    """One try through a real transport, and what a reader got of it."""

    job: Job
    reader: Listener
    task: asyncio.Task[Outcome]

    async def end(self) -> Outcome:
        async with asyncio.timeout(BOUND_S):
            return await self.task


class Rig:
    """A scripted engine behind the real adapter and transport."""

    def __init__(self, server: ScriptedEngine, transport: Transport) -> None:
        self.server = server
        self.transport = transport

    def attempt(self, *, limits: Limits = USUAL, url: str = "", is_stream: bool = True, **job: Any) -> Attempt:
        made = make_job(stream=is_stream, **job)
        reader = listening(made)
        engine = OpenAIEngine(url or self.server.url, "", self.transport, SystemClock())
        call = Call(made.kind, made.model, made.body, made.stream)
        run = Relay(made, SystemClock(), limits).run(engine, call)
        return Attempt(made, reader, asyncio.get_running_loop().create_task(run))

    async def plays(self, *steps: Step, **attempt: Any) -> tuple[Outcome, Listener]:
        """The outcome of one attempt at an engine that plays ``steps``, and what the reader got."""
        self.server.play(*steps)
        made = self.attempt(**attempt)
        return await made.end(), made.reader


@pytest.fixture(params=["general", "http1"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    general = HttpTransport()
    transport = Http1Transport(general) if request.param == "http1" else general
    async with ScriptedEngine() as server:
        yield Rig(server, transport)
        await transport.close()


def text(got: bytes) -> str:
    """What a client would show of the events ``got``."""
    lines = [line[5:] for line in got.split(b"\n") if line.startswith(b"data:") and line != b"data: [DONE]"]
    choices = [choice for line in lines for choice in json.loads(line).get("choices", ())]
    return "".join(choice["delta"].get("content", "") for choice in choices)


def code(outcome: Outcome) -> str:
    return outcome.error.code if outcome.error else ""


# -- an answer as it should be


async def test_a_stream_reaches_the_reader_byte_for_byte(rig: Rig) -> None:
    said = stream("Hel", "lo ☃", " \\n\\n", "data: [DONE]")
    outcome, reader = await rig.plays(head(), said)
    assert (outcome.result, reader.got) == (Result.DONE, said)
    assert text(reader.got) == "Hello ☃ \\n\\ndata: [DONE]"
    assert outcome.ttft_s is not None
    assert rig.server.asked[0].path == "/v1/chat/completions"


async def test_a_whole_answer_reaches_the_reader_byte_for_byte(rig: Rig) -> None:
    body = (
        b'{ "choices": [{"message": {"content": "hi"}}],\n\n "usage": {"prompt_tokens": 3, "completion_tokens": 1}}\n'
    )
    outcome, reader = await rig.plays(whole(body), is_stream=False)
    assert (outcome.result, reader.got, outcome.completion_tokens) == (Result.DONE, body, 1)


async def test_a_stream_cut_into_single_bytes_is_the_same(rig: Rig) -> None:
    said = stream("one", " two", usage={"completion_tokens": 2})
    gates = [asyncio.Event() for _ in said]
    steps: list[Step] = [head()]
    for byte, gate in zip(said, gates, strict=True):
        steps += [bytes([byte]), Wait(gate)]
    rig.server.play(*steps)
    made = rig.attempt()
    for gate in gates:
        gate.set()
        await asyncio.wait((made.task,), timeout=0.001)
    outcome = await made.end()
    assert (outcome.result, made.reader.got, outcome.completion_tokens) == (Result.DONE, said, 2)


async def test_lines_may_end_with_cr_lf(rig: Rig) -> None:
    said = stream("a", "b")
    outcome, reader = await rig.plays(head(), said.replace(b"\n", b"\r\n"))
    assert (outcome.result, reader.got) == (Result.DONE, said)


async def test_the_first_events_wait_for_content_so_that_another_holder_may_still_answer(rig: Rig) -> None:
    gate = asyncio.Event()
    rig.server.play(head(), ROLE, COMMENT, Wait(gate), chunk("hi"), DONE)
    made = rig.attempt()
    await rig.server.request()
    await asyncio.wait((made.task,), timeout=0.05)
    assert made.reader.got == b""
    gate.set()
    assert (await made.end()).result is Result.DONE
    assert made.reader.got == ROLE + COMMENT + chunk("hi") + DONE


async def test_content_is_passed_on_while_the_engine_still_speaks(rig: Rig) -> None:
    gate = asyncio.Event()
    rig.server.play(head(), ROLE + chunk("hi"), Wait(gate), DONE)
    made = rig.attempt()
    await happens(made.reader.came)
    assert made.reader.got == ROLE + chunk("hi")
    gate.set()
    await made.end()


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "x"},
        {"reasoning_content": "x"},
        {"reasoning": "x"},
        {"refusal": "no"},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
    ],
)
async def test_text_reasoning_refusals_and_tool_calls_are_content(rig: Rig, delta: dict[str, Any]) -> None:
    said = event({"choices": [{"index": 0, "delta": delta}]})
    outcome, reader = await rig.plays(head(), ROLE + said)
    assert (outcome.result, reader.got) == (Result.INTERRUPTED, ROLE + said)


async def test_an_answer_without_words_is_still_an_answer(rig: Rig) -> None:
    outcome, reader = await rig.plays(head(), stream())
    assert (outcome.result, reader.got) == (Result.DONE, stream())


@pytest.mark.parametrize("last", [b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\n\n", b"data: [DONE]\n\n: bye\n\n"])
async def test_the_end_is_known_in_every_spelling_and_told_in_one(rig: Rig, last: bytes) -> None:
    outcome, reader = await rig.plays(head(), ROLE + chunk("hi"), last)
    assert (outcome.result, reader.got) == (Result.DONE, ROLE + chunk("hi") + DONE)


async def test_text_that_speaks_of_errors_and_ends_is_text(rig: Rig) -> None:
    words = ('{"error": {"message": "x"}}', 'data: [DONE]\n\n"error": 1', '"error"')
    outcome, reader = await rig.plays(head(), stream(*words))
    assert (outcome.result, reader.got) == (Result.DONE, stream(*words))


async def test_an_error_field_that_is_null_is_no_error(rig: Rig) -> None:
    said = event({"error": None, "choices": [{"delta": {"content": "hi"}}]}) + DONE
    outcome, reader = await rig.plays(head(), said)
    assert (outcome.result, reader.got) == (Result.DONE, said)


async def test_nothing_after_the_end_reaches_the_reader(rig: Rig) -> None:
    outcome, reader = await rig.plays(head(), ROLE + chunk("hi") + DONE + chunk("more") + DONE)
    assert (outcome.result, reader.got) == (Result.DONE, ROLE + chunk("hi") + DONE)


# -- numbers


async def test_usage_and_timings_become_numbers(rig: Rig) -> None:
    usage = {"prompt_tokens": 20, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 12}}
    timings = {"prompt_n": 8, "cache_n": 12, "prompt_per_second": 400.5, "predicted_per_second": 50.25}
    finish = event({"choices": [{"delta": {}, "finish_reason": "stop"}], "timings": timings})
    gate = asyncio.Event()
    said = [ROLE + chunk("hi"), finish, event({"choices": [], "usage": usage}), COMMENT, DONE]
    rig.server.play(head(), *(step for part in said for step in (part, Wait(gate))))
    made = rig.attempt()
    gate.set()
    outcome = await made.end()
    assert (outcome.prompt_tokens, outcome.cached_tokens, outcome.completion_tokens) == (20, 12, 7)
    assert (outcome.prefill_per_s, outcome.tokens_per_s) == (400.5, 50.25)


async def test_without_usage_the_events_are_counted(rig: Rig) -> None:
    outcome, _ = await rig.plays(head(), stream("a", "b", "c", "d"))
    assert outcome.completion_tokens == outcome.tokens == 4


@pytest.mark.parametrize(
    "usage",
    [
        "many",
        [1],
        {"prompt_tokens": "12", "completion_tokens": None},
        {"prompt_tokens": -5, "completion_tokens": 10**30},
        {"prompt_tokens": True, "completion_tokens": 1.5, "prompt_tokens_details": 7},
    ],
)
async def test_lies_in_the_usage_are_skipped(rig: Rig, usage: Any) -> None:
    said = ROLE + chunk("a") + chunk("b", finish="stop") + event({"choices": [], "usage": usage}) + DONE
    outcome, reader = await rig.plays(head(), said)
    assert (outcome.result, reader.got, outcome.prompt_tokens) == (Result.DONE, said, None)
    assert outcome.completion_tokens is not None
    assert 0 <= outcome.completion_tokens < 9
    body = json.dumps({"choices": [], "usage": usage}).encode()
    outcome, reader = await rig.plays(whole(body), is_stream=False)
    assert (outcome.result, reader.got) == (Result.DONE, body)


# -- faults before the first content: somebody else may try


async def fails(rig: Rig, *steps: Step, **attempt: Any) -> Outcome:
    outcome, reader = await rig.plays(*steps, **attempt)
    assert (outcome.result, reader.got) == (Result.FAILED, b"")
    assert outcome.error is not None
    assert len(outcome.error.message) <= 300
    return outcome


async def test_nobody_listens(rig: Rig) -> None:
    outcome = await rig.attempt(url=f"http://127.0.0.1:{free_port()}").end()
    assert (outcome.result, code(outcome)) == (Result.FAILED, "engine_failed")
    assert outcome.duration_s < 0.5


NONSENSE: list[tuple[Step, ...]] = [
    (),
    (RESET,),
    (b"HTTP/1.1 200 OK\r\nConte",),
    (head(),),
    (head(), RESET),
    (head(), ROLE),
    (head(), ROLE, RESET),
    (head(), chunk("half")[:-2]),
    (b"\x16\x03\x01 not HTTP at all\r\n\r\n",),
    (b"SSH-2.0-OpenSSH_9.2\r\n",),
    (head(), b"<html>It works!</html>"),
    (head(Content_Length="10"), ROLE),
    (head(Transfer_Encoding="chunked"), b"zz\r\n"),
    (head(Transfer_Encoding="chunked"), b"5\r\nabc"),
]


@pytest.mark.parametrize("steps", NONSENSE, ids=short)
@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_connection_that_breaks_or_says_nonsense_lets_another_holder_try(
    rig: Rig, steps: tuple[Step, ...], is_stream: bool
) -> None:
    outcome = await fails(rig, *steps, is_stream=is_stream)
    assert code(outcome) == "engine_failed"


async def test_a_whole_answer_where_a_stream_was_asked_lets_another_holder_try(rig: Rig) -> None:
    await fails(rig, whole(b'{"choices": [{"message": {"content": "hi"}}]}'))


@pytest.mark.parametrize("steps", [(HANG,), (head(), HANG), (head(), ROLE, HANG)], ids=short)
async def test_an_engine_that_says_nothing_is_left_after_the_first_content_limit(
    rig: Rig, steps: tuple[Step, ...]
) -> None:
    outcome = await fails(rig, *steps, limits=SHORT)
    assert code(outcome) == "deadline_exceeded"
    assert 0.2 < outcome.duration_s < 1
    await happens(rig.server.asked[0].gone)


@pytest.mark.parametrize("drip", [COMMENT, ROLE, chunk(), b"\n", b":"])
async def test_signs_of_life_do_not_move_the_first_content_limit(rig: Rig, drip: bytes) -> None:
    outcome = await fails(rig, head(), Drip(drip, 0.02), limits=SHORT)
    assert code(outcome) == "deadline_exceeded"
    assert outcome.duration_s < 1


async def test_an_answer_without_end_stops_at_the_limit_of_the_whole_job(rig: Rig) -> None:
    rig.server.play(head(), ROLE, Drip(chunk("x"), 0.01))
    outcome = await rig.attempt(limits=Limits(5, 5, 0.3)).end()
    assert (outcome.result, code(outcome)) == (Result.INTERRUPTED, "interrupted")
    assert outcome.error is not None
    assert "0.3 s" in outcome.error.message
    hung = await rig.plays(HANG, limits=Limits(5, 5, 0.3), is_stream=False)
    assert (hung[0].result, code(hung[0])) == (Result.REJECTED, "deadline_exceeded")


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 502, 503])
async def test_an_engine_that_refuses_lets_another_holder_try_and_is_quoted(rig: Rig, status: int) -> None:
    body = json.dumps({"error": {"message": "Busy with\nother  things.", "type": "x"}}).encode()
    outcome = await fails(rig, whole(body, status))
    assert outcome.error is not None
    assert (code(outcome), outcome.error.message) == ("engine_failed", "Busy with other things.")


@pytest.mark.parametrize(("status", "said"), [(400, "bad_request"), (413, "payload_too_large"), (422, "bad_request")])
async def test_a_request_the_engine_calls_wrong_is_final(rig: Rig, status: int, said: str) -> None:
    outcome, reader = await rig.plays(whole(b'{"error": "The prompt is too long."}', status))
    assert (outcome.result, code(outcome), reader.got) == (Result.REJECTED, said, b"")
    assert outcome.error is not None
    assert outcome.error.message == "The prompt is too long."


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"<h1>no</h1>", b"[" * 100_000, b'{"error": {"message": 7}}', b"7"], ids=short
)
async def test_an_error_without_a_sentence_says_its_status(rig: Rig, body: bytes) -> None:
    outcome = await fails(rig, whole(body, 500))
    assert outcome.error is not None
    assert outcome.error.message == "The engine answered 500."


async def test_an_endless_error_is_not_read_to_its_end(rig: Rig) -> None:
    await fails(rig, head(500), Flood(b"x" * 65_536))
    await happens(rig.server.asked[0].gone)
    assert rig.server.asked[0].sent_bytes < 16 * 2**20


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_never_followed(rig: Rig, status: int) -> None:
    async with ScriptedEngine() as other:
        other.play(head(), stream("stolen"))
        await fails(rig, whole(b"", status, Location=f"{other.url}/v1/chat/completions"))
        assert other.asked == []


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate"])
async def test_a_compressed_answer_is_refused_and_was_not_asked_for(rig: Rig, coding: str) -> None:
    await fails(rig, head(Content_Encoding=coding), b"\x1f\x8b\x08" + b"\0" * 64)
    assert rig.server.asked[0].headers["accept-encoding"] == "identity"


async def test_an_error_event_before_content_lets_another_holder_try(rig: Rig) -> None:
    outcome = await fails(rig, head(), ROLE, event({"error": {"message": "out of memory", "code": 500}}))
    assert outcome.error is not None
    assert (code(outcome), outcome.error.message) == ("engine_failed", "out of memory")


async def test_a_whole_answer_that_is_an_error_or_no_object_lets_another_holder_try(rig: Rig) -> None:
    for body in (b'{"error": "no"}', b"[1, 2]", b"nonsense", b'{"a": ' + b"[" * 100_000, b'{"choices": ["\xff"', b""):
        await fails(rig, whole(body), is_stream=False)


# -- faults after the first content: an honest end, no second generation


async def breaks(rig: Rig, *steps: Step, **attempt: Any) -> Outcome:
    gate = asyncio.Event()
    rig.server.play(head(), ROLE, chunk("half an "), Wait(gate), *steps)
    made = rig.attempt(**attempt)
    await happens(made.reader.came)
    gate.set()
    outcome = await made.end()
    assert (outcome.result, code(outcome)) == (Result.INTERRUPTED, "interrupted")
    assert made.reader.got.startswith(ROLE + chunk("half an "))
    assert b"[DONE]" not in made.reader.got
    assert b'"error"' not in made.reader.got
    return outcome


@pytest.mark.parametrize(
    "steps",
    [
        (),
        (chunk("answer")[:-1],),
        (b"data: {broken json\n\n",),
        (b"\xff\xfe\x00garbage",),
        (event({"error": {"message": "GPU fell off"}}),),
        (chunk("answer") + event({"error": "GPU fell off"}),),
        (chunk(finish="stop"),),
    ],
    ids=short,
)
async def test_an_answer_that_breaks_off_is_interrupted_and_what_was_said_is_kept(
    rig: Rig, steps: tuple[Step, ...]
) -> None:
    await breaks(rig, *steps)


async def test_a_reset_after_content_is_an_interruption(rig: Rig) -> None:
    await breaks(rig, RESET)


async def test_words_that_came_with_the_error_are_kept(rig: Rig) -> None:
    gate = asyncio.Event()
    rig.server.play(head(), ROLE + chunk("half an "), Wait(gate), chunk("answer") + event({"error": "GPU fell off"}))
    made = rig.attempt()
    await happens(made.reader.came)
    gate.set()
    outcome = await made.end()
    assert outcome.error is not None
    assert "GPU fell off" in outcome.error.message
    assert text(made.reader.got) == "half an answer"


@pytest.mark.parametrize("drip", [None, COMMENT, chunk(), event({"choices": []})])
async def test_silence_between_contents_is_bounded_whatever_signs_of_life_come(rig: Rig, drip: bytes | None) -> None:
    outcome = await breaks(rig, HANG if drip is None else Drip(drip, 0.02), limits=SHORT)
    assert outcome.error is not None
    assert "said nothing for 0.25 s" in outcome.error.message
    assert 0.2 < outcome.duration_s < 1
    await happens(rig.server.asked[0].gone)


async def test_silence_after_content_is_not_given_the_time_of_the_first_content(rig: Rig) -> None:
    outcome = await breaks(rig, HANG, limits=Limits(BOUND_S, 0.25, BOUND_S))
    assert outcome.duration_s < 1


async def test_an_engine_that_is_slow_but_speaks_is_not_cut(rig: Rig) -> None:
    outcome, reader = await rig.plays(head(), ROLE, Drip(chunk("x"), 0.1, times=8), DONE, limits=SHORT)
    assert (outcome.result, text(reader.got)) == (Result.DONE, "x" * 8)
    assert outcome.duration_s > 0.7


# -- bounds


async def test_an_endless_line_is_bounded_before_and_after_content(rig: Rig) -> None:
    for before, result in ((b"", Result.FAILED), (ROLE + chunk("hi"), Result.INTERRUPTED)):
        outcome, _ = await rig.plays(head(), before, Flood(b"data: " + b"x" * 60_000))
        assert (outcome.result, outcome.error and "endless line" in outcome.error.message) == (result, True)
        asked = rig.server.asked[-1]
        await happens(asked.gone)
        assert asked.sent_bytes < 4 * EVENT_MAX_BYTES


async def test_events_without_content_are_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "EVENT_MAX_BYTES", 2**18)
    outcome = await fails(rig, head(), Flood(ROLE * 100))
    assert outcome.error is not None
    assert "no content" in outcome.error.message


async def test_what_is_kept_of_an_answer_is_bounded_and_what_is_only_passed_on_is_not(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "KEPT_MAX_BYTES", 10_000)
    long = stream(*["x" * 1000] * 20)
    outcome, reader = await rig.plays(head(), long[:5000], long[5000:], answer=Answer(keep=True))
    assert (outcome.result, code(outcome)) == (Result.INTERRUPTED, "interrupted")
    assert len(text(reader.got)) <= 10_000
    outcome, reader = await rig.plays(head(), long)
    assert (outcome.result, len(text(reader.got))) == (Result.DONE, 20_000)


async def test_a_whole_answer_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "BODY_MAX_BYTES", 2**20)
    outcome = await fails(rig, head(content_type="application/json"), Flood(b" " * 65_536), is_stream=False)
    assert outcome.error is not None
    assert "too long" in outcome.error.message
    await happens(rig.server.asked[0].gone)


@pytest.mark.parametrize("step", [Flood(b"X-Filler: " + b"x" * 8000 + b"\r\n"), Flood(b"X" * 65_536)])
async def test_an_endless_head_is_bounded(rig: Rig, step: Step) -> None:
    await fails(rig, b"HTTP/1.1 200 OK\r\n", step)
    await happens(rig.server.asked[0].gone)
    assert rig.server.asked[0].sent_bytes < 16 * 2**20


# -- stopping and waiting


@pytest.mark.parametrize("steps", [(HANG,), (head(), HANG), (head(), ROLE, Drip(chunk("x"), 0.01))], ids=short)
@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_cancelled_attempt_stops_the_engine_within_a_tenth_of_a_second(
    rig: Rig, steps: tuple[Step, ...], is_stream: bool
) -> None:
    rig.server.play(*steps)
    made = rig.attempt(is_stream=is_stream)
    asked = await rig.server.request()
    await asyncio.wait((made.task,), timeout=0.05)
    made.task.cancel()
    await happens(asked.gone, 0.1)
    with pytest.raises(asyncio.CancelledError):
        await made.end()


async def test_a_slow_client_makes_the_engine_wait_and_loses_nothing(rig: Rig) -> None:
    many, word = 400, "x" * 50_000
    rig.server.play(head(), ROLE, *([chunk(word)] * many), DONE)
    made = rig.attempt()
    await happens(made.reader.came)
    made.job.answer.block(made.reader)
    held = await _still(made.reader)
    asked = rig.server.asked[0]
    assert len(held) < asked.sent_bytes + len(head()) < many * len(word) / 2
    made.job.answer.unblock(made.reader)
    outcome = await made.end()
    assert outcome.result is Result.DONE
    assert made.reader.got == ROLE + chunk(word) * many + DONE


async def _still(reader: Listener) -> bytes:
    """What the reader has once nothing more comes."""
    while True:
        reader.came.clear()
        try:
            async with asyncio.timeout(0.2):
                await reader.came.wait()
        except TimeoutError:
            return reader.got


async def test_a_slow_client_is_not_the_engines_silence(rig: Rig) -> None:
    rig.server.play(head(), ROLE, chunk("a"), Drip(chunk("b"), 0.02, times=10), DONE)
    made = rig.attempt(limits=SHORT)
    await happens(made.reader.came)
    made.job.answer.block(made.reader)
    await asyncio.wait((made.task,), timeout=0.8)
    assert not made.task.done()
    made.job.answer.unblock(made.reader)
    assert (await made.end()).result is Result.DONE
    assert text(made.reader.got) == "a" + "b" * 10


async def test_of_two_readers_the_slower_one_sets_the_pace() -> None:
    job = make_job()
    fast, slow = listening(job), listening(job)
    engine = MemoryEngine()
    engine.reply = lambda call: Reply(200, "text/event-stream", pieces(ROLE + chunk("a"), chunk("b"), DONE))
    task = asyncio.get_running_loop().create_task(_run(job, engine))
    await happens(fast.came)
    job.answer.block(slow)
    job.answer.block(fast)
    job.answer.unblock(fast)
    job.answer.detach(slow)  # it left: nobody waits for it
    assert (await task).result is Result.DONE
    assert fast.got == ROLE + chunk("a") + chunk("b") + DONE


async def test_a_connection_is_used_again_after_a_whole_answer_only(rig: Rig) -> None:
    """The engine says ``Connection: close``, so every attempt is a new connection and none meets a stale one."""
    for _ in range(3):
        outcome, _ = await rig.plays(head(), stream("hi"))
        assert outcome.result is Result.DONE
    assert len(rig.server.asked) == 3


async def test_a_second_answer_to_one_request_is_not_read(rig: Rig) -> None:
    one = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{"choices":[]}'
    other = b'HTTP/1.1 500 No\r\nContent-Length: 13\r\n\r\n{"error":"x"}'
    for _ in range(2):  # and its connection is not used again
        outcome, reader = await rig.plays(one + other, is_stream=False)
        assert (outcome.result, reader.got) == (Result.DONE, b'{"choices":[]}')


async def test_a_crash_of_the_engine_is_told_apart_from_other_faults() -> None:
    for crashed in (True, False):
        job = make_job()
        engine = MemoryEngine()

        def reply(call: Call, crashed: bool = crashed) -> Reply:
            raise EngineFault("The engine's process ended.", crashed=crashed)

        engine.reply = reply
        outcome = await _run(job, engine)
        assert (outcome.result, outcome.crashed) == (Result.FAILED, crashed)


async def test_a_fault_that_nobody_can_help_is_final() -> None:
    engine = MemoryEngine()

    def reply(call: Call) -> Reply:
        raise EngineFault("The model is quarantined.", retryable=False)

    engine.reply = reply
    assert (await _run(make_job(), engine)).result is Result.REJECTED


# -- any cut of any stream


async def _run(job: Job, engine: MemoryEngine, limits: Limits = USUAL) -> Outcome:
    async with asyncio.timeout(BOUND_S):
        return await Relay(job, SystemClock(), limits).run(engine, Call(Kind.CHAT, job.model, job.body, job.stream))


def relayed(parts: list[bytes]) -> tuple[Outcome, Listener]:
    job = make_job()
    reader = listening(job)
    engine = MemoryEngine()
    engine.reply = lambda call: Reply(200, "text/event-stream", pieces(*parts))
    return asyncio.run(_run(job, engine)), reader


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges) if start < end]


WORDS = st.lists(
    st.text(max_size=8) | st.sampled_from(["[DONE]", "data: [DONE]\n\n", '"error"', "\r\n", "☃"]), max_size=6
)
EXTRAS = st.sampled_from(
    [b"", COMMENT, event({"choices": [], "usage": {"completion_tokens": 5}}), b"event: x\ndata: {}\n\n"]
)


@settings(max_examples=200, deadline=None)
@given(WORDS, EXTRAS, st.booleans(), st.lists(st.integers(0, 5000), max_size=12))
def test_however_a_stream_is_cut_the_reader_gets_the_same_whole_events(
    words: list[str], extra: bytes, cr: bool, places: list[int]
) -> None:
    said = ROLE + b"".join(chunk(word) for word in words) + extra + chunk(finish="stop") + DONE
    sent = said.replace(b"\n", b"\r\n") if cr else said
    outcome, reader = relayed(cut(sent, places))
    assert (outcome.result, reader.got) == (Result.DONE, said)
    assert reader.seqs[0] == 0
    whole_outcome, _ = relayed([sent])
    assert (outcome.completion_tokens, outcome.prompt_tokens) == (
        whole_outcome.completion_tokens,
        whole_outcome.prompt_tokens,
    )


@settings(max_examples=200, deadline=None)
@given(WORDS, st.integers(0, 10_000), st.lists(st.integers(0, 5000), max_size=12))
def test_a_stream_that_ends_anywhere_is_never_taken_for_a_whole_one(
    words: list[str], end: int, places: list[int]
) -> None:
    said = ROLE + b"".join(chunk(word) for word in words) + chunk(finish="stop")
    outcome, reader = relayed(cut(said[: end % (len(said) + 1)], places))
    assert outcome.result is (Result.INTERRUPTED if reader.got else Result.FAILED)
    assert said.startswith(reader.got)
    assert reader.got.endswith(b"\n\n") or not reader.got
    assert bool(text(reader.got)) is bool(reader.got)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.binary(max_size=60) | st.sampled_from([b"data: ", b"\n\n", b'{"error":', b"[DONE]", b"\n"]), max_size=20
    )
)
def test_any_bytes_end_in_an_outcome(parts: list[bytes]) -> None:
    outcome, reader = relayed(parts)
    assert outcome.result in (Result.DONE, Result.FAILED, Result.INTERRUPTED)
    assert (outcome.error is None) is (outcome.result is Result.DONE)
    if outcome.result is Result.DONE:
        assert reader.got.endswith(DONE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "content", "tool_calls", "usage", "timings", "error", "message", "text"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(JSON, max_size=5))
def test_any_json_in_events_ends_in_an_outcome(payloads: list[Any]) -> None:
    outcome, _ = relayed([b"".join(event(payload) for payload in payloads), DONE])
    assert outcome.result in (Result.DONE, Result.FAILED, Result.INTERRUPTED)
