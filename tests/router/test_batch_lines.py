"""Lines of a batch are checked before the first one runs, and each gets one line of an answer."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import batch_lines
from router.batch_lines import Reading, answered, body_of, checked, not_run, refused, tokens
from router.batch_rows import Line
from router.engines.base import Kind
from router.errors import BadRequestError, failure

CHAT = "/v1/chat/completions"
LINE = Line(3, "a", 0, 10)


def line(custom_id: Any = "a", **fields: Any) -> bytes:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"model": "m"}} | fields).encode()


def read(content: bytes, endpoint: str = CHAT) -> tuple[list[Line], list[dict[str, Any]]]:
    reading, lines, file = Reading(endpoint), [], io.BytesIO(content)
    while not reading.over:
        lines += reading.block(file)
    reading.faults()
    return lines, reading.errors


def test_each_line_is_found_again_where_it_lies() -> None:
    content = b"\n" + line("a") + b"\n  \n" + line("ü") + b"\r\n" + line("c")

    lines, errors = read(content)

    assert errors == []
    assert [(one.number, one.custom_id) for one in lines] == [(2, "a"), (4, "ü"), (5, "c")]
    assert [json.loads(content[one.start : one.start + one.length])["custom_id"] for one in lines] == ["a", "ü", "c"]


@pytest.mark.parametrize(
    ("content", "code", "number", "param"),
    [
        (line() + b"\n" + line(), "duplicate_custom_id", 2, "custom_id"),
        (line(5), "invalid_custom_id", 1, "custom_id"),
        (line(""), "invalid_custom_id", 1, "custom_id"),
        (line("x" * 513), "invalid_custom_id", 1, "custom_id"),
        (line(method="GET"), "invalid_method", 1, "method"),
        (line(url="/v1/embeddings"), "invalid_url", 1, "url"),
        (line(body=[]), "invalid_body", 1, "body"),
        (b"{", "invalid_json_line", 1, None),
        (b"[]", "invalid_json_line", 1, None),
        (b"\xff\xfe", "invalid_json_line", 1, None),
        (b'{"custom_id":"a","custom_id":"b"}', "invalid_json_line", 1, None),
        (b'{"a":' * 100, "invalid_json_line", 1, None),
        (b"", "empty_file", None, None),
        (b"\n \n", "empty_file", None, None),
    ],
    ids=range(14),
)
def test_a_wrong_line_is_named_with_what_is_wrong(
    content: bytes, code: str, number: int | None, param: str | None
) -> None:
    _, errors = read(content)

    assert [(one["code"], one.get("line"), one.get("param")) for one in errors] == [(code, number, param)]


def test_good_lines_and_wrong_ones_are_told_together_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_lines, "ERRORS_MAX", 3)

    _, errors = read(b"\n".join([line("a"), *[b"{"] * 10, line("b")]))

    assert [one["line"] for one in errors] == [2, 3, 4]


def test_a_line_that_is_too_long_ends_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_lines, "LINE_BYTES", 200)

    lines, errors = read(line("a") + b"\n" + line("b", body={"model": "m" * 300}) + b"\n" + line("c"))

    assert [one.custom_id for one in lines] == ["a"]
    assert [one["code"] for one in errors] == ["line_too_long"]


def test_a_batch_has_a_largest_number_of_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_lines, "LINES_MAX", 2)

    _, errors = read(b"\n".join(line(str(number)) for number in range(5)))

    assert [one["code"] for one in errors] == ["too_many_requests"]


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_whatever_the_file_holds_it_is_read_to_an_end(content: bytes) -> None:
    lines, errors = read(content)

    assert lines or errors


def test_a_file_is_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_lines, "BLOCK_BYTES", 100)
    reading, file = Reading(CHAT), io.BytesIO(b"\n".join(line(str(number)) for number in range(10)))

    assert 0 < len(reading.block(file)) < 10
    assert not reading.over


def test_a_request_of_a_batch_is_answered_at_once() -> None:
    raw = line(body={"model": "m", "stream": True, "stream_options": {}, "background": True, "n": 1})

    assert body_of(raw) == {"model": "m", "n": 1}


def test_a_request_is_checked_as_its_endpoint_checks_it() -> None:
    made = checked("/v1/embeddings", {"model": "m", "input": "x"})

    assert (made.kind, made.model, made.stream) == (Kind.EMBEDDING, "m", False)
    with pytest.raises(BadRequestError):
        checked(CHAT, {"model": "m"})


def test_an_answer_is_one_line_even_where_the_engine_writes_several() -> None:
    usage = b'{"prompt_tokens": 5,\r\n "prompt_tokens_details": {"cached_tokens": 9}, "completion_tokens": 2}'
    body = b'{\n  "usage": %b\n}' % usage

    made = answered("batch_1", LINE, "J", body)

    assert made.count(b"\n") == 1
    told = json.loads(made)
    assert (told["id"], told["custom_id"], told["error"]) == ("batch_1_3", "a", None)
    assert (told["response"]["status_code"], told["response"]["request_id"]) == (200, "J")
    assert tokens(made) == (5, 5, 2)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, (0, 0, 0)),
        (5, (0, 0, 0)),
        ({"prompt_tokens": "x", "completion_tokens": -1}, (0, 0, 0)),
        ({"input_tokens": 4, "input_tokens_details": {"cached_tokens": 1}, "output_tokens": 2}, (4, 1, 2)),
    ],
)
def test_tokens_are_counted_where_they_are_told(usage: object, expected: tuple[int, int, int]) -> None:
    assert tokens(answered("b", LINE, "J", json.dumps({"usage": usage}).encode())) == expected


def test_what_failed_has_the_error_a_client_would_have_got() -> None:
    told = json.loads(refused("b", LINE, "J", failure("model_not_found", "No."), "model"))

    assert told["response"]["status_code"] == 404
    assert told["response"]["body"]["error"]["code"] == "model_not_found"
    assert told["response"]["body"]["error"]["param"] == "model"


def test_what_was_not_run_says_that_the_batch_was_cancelled() -> None:
    told = json.loads(not_run("b", LINE))

    assert told["response"] is None
    assert told["error"]["code"] == "batch_cancelled"
