"""One answer, one sequence of events: however it was cut, and each time it is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from router.chunks import assemble
from router.errors import failure
from router.states import JobState
from router.web.responses_events import RESTART, Event, Translator
from router.web.responses_shapes import response_of
from router.wire import Ended, Receipt
from tests.fakes import DONE, chunk, event, stream

OFFICIAL: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
OVER = Ended(state=JobState.DONE, receipt=None, error=None)


def translator(restarts: int = 0, **asked: Any) -> Translator:
    return Translator(response_of("J", {"model": "m", "store": True} | asked, 1.0), "J", restarts)


def delta(finish: str | None = None, **said: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": said, "finish_reason": finish}]})


def call(index: int, arguments: str = "", **more: Any) -> dict[str, Any]:
    return {"index": index, "function": {"arguments": arguments} | more}


MIXED = b"".join(
    [
        chunk(role=True),
        delta(reasoning_content="I "),
        delta(reasoning_content="think."),
        delta(content="So "),
        delta(content="it is."),
        delta(tool_calls=[call(0, name="f"), call(1, name="g")]),
        delta(tool_calls=[call(1, '{"b":1}')]),
        delta(tool_calls=[call(0, '{"a"'), call(0, ":1}")]),
        delta("tool_calls"),
        DONE,
    ]
)


def told(events: list[Event]) -> list[dict[str, Any]]:
    return [json.loads(data.split(b"data: ", 1)[1]) for _, data in events]


def all_of(made: Translator, *pieces: bytes, end: Ended = OVER) -> list[dict[str, Any]]:
    events = [one for piece in pieces for one in made.events(piece)] + made.end(end, 2.0)
    assert [number for number, _ in events] == [one["sequence_number"] for one in told(events)]
    return told(events)


def test_every_event_is_one_of_the_official_client_and_numbered_without_gaps() -> None:
    events = all_of(translator(), MIXED)

    for one in events:
        OFFICIAL.validate_python(one)
    assert [one["sequence_number"] for one in events] == list(range(len(events)))


def test_deltas_add_up_to_what_the_done_events_and_the_response_say() -> None:
    events = all_of(translator(), MIXED)
    items = events[-1]["response"]["output"]

    assert [item["type"] for item in items] == ["reasoning", "message", "function_call", "function_call"]
    for place, item in enumerate(items):
        said = "".join(one["delta"] for one in events if one.get("output_index") == place and "delta" in one)
        text = item.get("arguments") or item["content"][0]["text"]
        assert said == text
        (done,) = [o for o in events if o["type"] == "response.output_item.done" and o["output_index"] == place]
        assert done["item"] == item
        assert item["status"] == "completed"
    assert [item["arguments"] for item in items[2:]] == ['{"a":1}', '{"b":1}']


@given(cuts=st.sets(st.integers(0, 9)))
@settings(max_examples=50, deadline=None)
def test_however_the_stream_was_cut_its_events_are_the_same(cuts: set[int]) -> None:
    parts = [part + b"\n\n" for part in MIXED.split(b"\n\n")[:-1]]
    pieces, piece = [], b""
    for place, part in enumerate(parts):
        piece += part
        if place in cuts:
            pieces.append(piece)
            piece = b""

    assert all_of(translator(), *pieces, piece) == all_of(translator(), MIXED)


def test_a_whole_answer_adds_up_to_the_same_object_as_its_stream() -> None:
    streamed, whole = translator(), translator()
    all_of(streamed, MIXED)

    whole.whole(json.dumps(assemble(MIXED)).encode())
    whole.end(OVER, 2.0)

    assert whole.response == streamed.response


def test_a_background_stream_says_that_it_is_queued() -> None:
    events = all_of(translator(background=True), stream("Hi"))

    assert [one["type"] for one in events[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert [one["response"]["status"] for one in events[:3]] == ["queued", "queued", "in_progress"]


def test_after_a_restart_the_numbers_are_higher_than_all_before() -> None:
    before, after = all_of(translator(), stream("Hi")), all_of(translator(1), stream("Hi"))

    assert after[0]["sequence_number"] == RESTART > before[-1]["sequence_number"]


@pytest.mark.parametrize(
    ("code", "kind", "status", "error"),
    [
        ("interrupted", "response.failed", "failed", "server_error"),
        ("bad_request", "response.failed", "failed", "invalid_prompt"),
        ("cancelled", "response.incomplete", "cancelled", None),
    ],
)
def test_an_answer_that_broke_off_ends_with_its_cause(code: str, kind: str, status: str, error: str | None) -> None:
    end = Ended(state=JobState.FAILED, receipt=None, error=failure(code, "It broke."))

    last = all_of(translator(), chunk("Half"), end=end)[-1]

    assert (last["type"], last["response"]["status"]) == (kind, status)
    assert (last["response"]["error"] or {}).get("code") == error
    assert last["response"]["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_says_why(finish: str, reason: str) -> None:
    last = all_of(translator(), chunk("Half"), chunk(finish=finish))[-1]

    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": reason}


def test_the_receipt_tells_the_tokens_where_the_engine_does_not() -> None:
    receipt = Receipt(
        node="n", engine="e", model="m", digest=None, reason="r", verdicts=[], tries=[], queued_s=0.0, loading_s=0.0,
        prompt_tokens=4, completion_tokens=2,
    )  # fmt: skip
    end = Ended(state=JobState.DONE, receipt=receipt, error=None)

    assert all_of(translator(), stream("Hi"), end=end)[-1]["response"]["usage"]["total_tokens"] == 6
    assert all_of(translator(), stream("Hi"))[-1]["response"]["usage"] is None


def test_a_refusal_is_a_part_of_its_own() -> None:
    events = all_of(translator(), delta(content="Well. "), delta(refusal="No."))

    assert [part["type"] for part in events[-1]["response"]["output"][0]["content"]] == ["output_text", "refusal"]
    for one in events:
        OFFICIAL.validate_python(one)


def test_probabilities_of_tokens_are_passed_on() -> None:
    logprob = {"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}
    data = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "logprobs": {"content": [logprob]}}]}

    events = all_of(translator(), event(data))

    (said,) = [one for one in events if one["type"] == "response.output_text.delta"]
    assert said["logprobs"] == [logprob] == events[-1]["response"]["output"][0]["content"][0]["logprobs"]


@pytest.mark.parametrize(
    "payload",
    [
        b"data: {\n\n",
        b"data: []\n\n",
        event({"choices": "x"}),
        event({"choices": [5]}),
        event({"choices": [{"delta": 5}]}),
        event({"choices": [{"delta": {"content": 5, "tool_calls": "x"}}]}),
        event({"choices": [{"delta": {"tool_calls": [5, {"function": 5}, {"index": "a", "function": {"name": 5}}]}}]}),
        event({"usage": {"prompt_tokens": "x"}, "choices": []}),
        event({"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [5]}}]}),
    ],
    ids=range(9),
)
def test_whatever_an_engine_sends_the_events_are_whole(payload: bytes) -> None:
    events = all_of(translator(), payload, chunk("Hi"))

    assert events[-1]["type"] == "response.completed"
    for one in events:
        OFFICIAL.validate_python(one)
