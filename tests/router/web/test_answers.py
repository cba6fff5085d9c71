"""Errors in each dialect's own shape, as answers and inside streams."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from aiohttp import web

from router.errors import CODES, BadRequestError, EngineFault, ModelNotFoundError, QueueFullError, QuorumError, failure
from router.web.answers import (
    Shape,
    anthropic_error,
    control_error,
    error_answer,
    error_body,
    error_of,
    json_answer,
    ollama_error,
    openai_error,
    shape_of,
    stream_error,
)
from router.wire import PauseRequest
from tests.router.web.web_kit import TOKEN, Served, closed, serving

BEARER = b"Authorization: Bearer " + TOKEN.encode() + b"\r\n"


def body_of(answer: web.Response) -> Any:
    assert isinstance(answer.body, bytes)
    return json.loads(answer.body)


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/chat/completions", Shape.OPENAI),
        ("/jobs", Shape.OPENAI),
        ("/", Shape.OPENAI),
        ("/apis", Shape.OPENAI),
        ("/api/chat", Shape.OLLAMA),
        ("/api", Shape.OLLAMA),
        ("/v1/messages", Shape.ANTHROPIC),
        ("/v1/messages/count_tokens", Shape.ANTHROPIC),
        ("/local/v1/status", Shape.CONTROL),
    ],
)
def test_the_path_says_whose_shape_is_spoken(path: str, shape: Shape) -> None:
    assert shape_of(path) is shape


def test_each_dialect_gets_its_own_shape() -> None:
    error = failure("model_not_found", "No computer holds it.", "Look again.")
    assert body_of(openai_error(error, "model")) == {
        "error": {
            "message": "No computer holds it.",
            "type": "invalid_request_error",
            "code": "model_not_found",
            "param": "model",
            "hint": "Look again.",
        }
    }
    assert body_of(ollama_error(error)) == {
        "error": "No computer holds it.",
        "code": "model_not_found",
        "hint": "Look again.",
    }
    assert body_of(anthropic_error(error)) == {
        "type": "error",
        "error": {
            "type": "not_found_error",
            "message": "No computer holds it.",
            "code": "model_not_found",
            "hint": "Look again.",
        },
    }
    assert body_of(control_error(error))["error"]["status"] == 404


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("shape", list(Shape))
def test_every_code_has_its_status_a_sentence_and_a_hint(code: str, shape: Shape) -> None:
    answer = error_answer(shape, failure(code, "A sentence."))
    assert answer.status == CODES[code][0]
    text = json.dumps(body_of(answer))
    assert "A sentence." in text
    assert code in text
    assert json.dumps(CODES[code][1])[1:-1] in text


@pytest.mark.parametrize(("asked", "said"), [(0.2, "1"), (5.0, "5"), (5.1, "6"), (0, "1")])
def test_retry_after_is_whole_seconds_and_never_too_early(asked: float, said: str) -> None:
    answer = openai_error(failure("queue_full", "Full.", retry_after_s=asked))
    assert answer.headers["Retry-After"] == said
    assert "Retry-After" not in openai_error(failure("paused", "Paused.")).headers


def test_an_error_inside_a_stream_has_the_form_of_its_stream() -> None:
    error = failure("interrupted", "It broke off.")
    openai = stream_error(Shape.OPENAI, error)
    assert openai.startswith(b"data: {")
    assert openai.endswith(b"}\n\n")
    assert json.loads(openai[6:])["error"]["code"] == "interrupted"
    assert json.loads(stream_error(Shape.OLLAMA, error)) == error_body(Shape.OLLAMA, error)
    assert stream_error(Shape.OLLAMA, error).count(b"\n") == 1
    assert stream_error(Shape.ANTHROPIC, error).startswith(b"event: error\ndata: {")


@pytest.mark.parametrize(
    ("exception", "code", "param"),
    [
        (BadRequestError("x", field="n"), "bad_request", "n"),
        (BadRequestError("x", code="unsupported_media_type"), "unsupported_media_type", None),
        (ModelNotFoundError("a", ["b"]), "model_not_found", None),
        (QueueFullError(2), "queue_full", None),
        (EngineFault("x"), "engine_failed", None),
        (QuorumError("paused", "x"), "paused", None),
        (web.HTTPRequestEntityTooLarge(1), "payload_too_large", None),
        (web.HTTPNotFound(), "not_found", None),
        (web.HTTPMethodNotAllowed("PUT", ["GET"]), "method_not_allowed", None),
        (web.HTTPExpectationFailed(), "bad_request", None),
        (TimeoutError(), "deadline_exceeded", None),
        (KeyError("canary"), "internal", None),
        (web.HTTPInternalServerError(), "internal", None),
    ],
)
def test_exceptions_have_their_code(
    exception: Exception, code: str, param: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    error, field = error_of(exception)
    assert (error.code, field) == (code, param)
    assert ("a request failed" in caplog.text) == (code == "internal")
    assert "canary" not in caplog.text + error.message + error.hint


def test_structs_and_plain_data_are_answered_as_json() -> None:
    assert body_of(json_answer(PauseRequest(for_s=2.0))) == {"for_s": 2.0}
    answer = json_answer([], 202, {"X-A": "b"})
    assert (answer.status, answer.content_type, answer.headers["X-A"]) == (202, "application/json", "b")


async def test_unknown_addresses_and_methods_answer_in_their_dialect() -> None:
    async with serving() as served:

        async def fault(method: str, path: str) -> tuple[int, Any, dict[str, str]]:
            answer = await served.ask(f"{method} {path} HTTP/1.1\r\n".encode() + served.host + BEARER + b"\r\n")
            return answer.status, json.loads(answer.body)["error"], answer.headers

        assert (await fault("GET", "/v1/nothing"))[1]["code"] == "not_found"
        assert isinstance((await fault("GET", "/api/nothing"))[1], str)
        assert (await fault("GET", "/local/v1/nothing"))[1]["status"] == 404
        status, error, headers = await fault("PUT", "/v1/chat/completions")
        assert (status, error["code"], headers["allow"]) == (405, "method_not_allowed", "POST")
        assert (await fault("GET", "/v1/messages"))[1]["type"] == "invalid_request_error"


async def test_an_error_after_which_bytes_are_unread_closes_the_connection() -> None:
    async with serving() as served:
        await unread_body_closes(served)


async def unread_body_closes(served: Served) -> None:
    async with served.connection() as (reader, writer):
        writer.write(served.post(b"{" + b" " * 300_000 + b"}", path=b"/v1/nothing"))
        everything = await closed(reader)
    assert everything.startswith(b"HTTP/1.1 404 ")
    assert b"connection: close" in everything.lower()
