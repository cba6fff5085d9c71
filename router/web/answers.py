"""Answers: JSON, errors in each dialect's own shape, and the middleware that turns exceptions into them."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from router.errors import BadRequestError, QuorumError, failure
from router.logs import place_of
from router.wire import ErrorInfo

log = logging.getLogger(__name__)

JSON: Final = "application/json"
SSE_HEADERS: Final[Mapping[str, str]] = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}
SAFE_HEADERS: Final[Mapping[str, str]] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "Quorum",
}

_encode: Final = msgspec.json.Encoder().encode


class Shape(StrEnum):
    """Whose error shape a path speaks."""

    OPENAI = "openai"
    OLLAMA = "ollama"
    ANTHROPIC = "anthropic"
    CONTROL = "control"


def shape_of(path: str) -> Shape:
    """The error shape of ``path``; anything unknown speaks OpenAI's."""
    if path.startswith("/api/") or path == "/api":
        return Shape.OLLAMA
    if path.startswith("/v1/messages"):
        return Shape.ANTHROPIC
    if path.startswith(("/local/", "/peer/")):
        return Shape.CONTROL
    return Shape.OPENAI


def _openai_type(status: int) -> str:
    known = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    return known.get(status, "server_error" if status >= 500 else "invalid_request_error")


def _anthropic_type(status: int) -> str:
    known = {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        503: "overloaded_error",
        504: "timeout_error",
    }
    return known.get(status, "api_error" if status >= 500 else "invalid_request_error")


def error_body(shape: Shape, error: ErrorInfo, param: str | None = None) -> dict[str, Any]:
    """``error`` as clients of ``shape`` read it, not yet encoded. ``param`` names the field at fault."""
    match shape:
        case Shape.OPENAI:
            inner = {"message": error.message, "type": _openai_type(error.status), "code": error.code}
            return {"error": inner | {"param": param, "hint": error.hint}}
        case Shape.OLLAMA:
            return {"error": error.message, "code": error.code, "hint": error.hint}
        case Shape.ANTHROPIC:
            inner = {"type": _anthropic_type(error.status), "message": error.message}
            return {"type": "error", "error": inner | {"code": error.code, "hint": error.hint}}
        case Shape.CONTROL:
            return {"error": msgspec.to_builtins(error)}


def stream_error(shape: Shape, error: ErrorInfo) -> bytes:
    """``error`` as the last piece of a stream that has begun: an SSE event, or a line in Ollama's dialect."""
    data = _encode(error_body(shape, error))
    if shape is Shape.OLLAMA:
        return data + b"\n"
    return (b"event: error\n" if shape is Shape.ANTHROPIC else b"") + b"data: " + data + b"\n\n"


def error_answer(shape: Shape, error: ErrorInfo, param: str | None = None) -> web.Response:
    """``error`` as a whole answer with its status, and ``Retry-After`` where it says when to come back."""
    answer = json_answer(error_body(shape, error, param), error.status)
    if error.retry_after_s is not None:
        answer.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    return answer


def openai_error(error: ErrorInfo, param: str | None = None) -> web.Response:
    """In OpenAI's shape."""
    return error_answer(Shape.OPENAI, error, param)


def ollama_error(error: ErrorInfo) -> web.Response:
    """In Ollama's shape."""
    return error_answer(Shape.OLLAMA, error)


def anthropic_error(error: ErrorInfo) -> web.Response:
    """In Anthropic's shape."""
    return error_answer(Shape.ANTHROPIC, error)


def control_error(error: ErrorInfo) -> web.Response:
    """In the control surface's shape."""
    return error_answer(Shape.CONTROL, error)


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """``value`` (structs of ``wire`` or plain data) as JSON."""
    return web.Response(body=_encode(value), status=status, headers=headers, content_type=JSON)


def error_of(exception: Exception) -> tuple[ErrorInfo, str | None]:
    """What a client is told of ``exception``, and the field at fault. Logs what nobody foresaw, without its text."""
    match exception:
        case BadRequestError():
            return exception.info(), exception.field
        case QuorumError():
            return exception.info(), None
        case web.HTTPRequestEntityTooLarge():
            return failure("payload_too_large", "The request is larger than this route takes."), None
        case web.HTTPNotFound():
            return failure("not_found", "There is no such address here."), None
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(exception.allowed_methods))
            return failure("method_not_allowed", f"This address takes {allowed}."), None
        case web.HTTPException() if exception.status < 500:
            return failure("bad_request", f"The request was refused: {exception.reason}."), None
        case TimeoutError():
            return failure("deadline_exceeded", "It took too long."), None
        case _:
            log.error("a request failed: %s", place_of(exception))
            return failure("internal", "Something went wrong inside Quorum."), None


def answer_for(request: web.BaseRequest, exception: Exception) -> web.Response:
    """The answer to ``request`` after ``exception``, in the shape of its path.

    Raises ConnectionError instead when the answer had begun: cutting the connection is then all that can be said.
    """
    error, param = error_of(exception)
    if request.writer.output_size > 0:
        raise ConnectionError("the answer had begun") from None
    answer = error_answer(shape_of(request.path), error, param)
    if isinstance(exception, web.HTTPMethodNotAllowed):
        answer.headers["Allow"] = exception.headers["Allow"]
    if not request.content.is_eof():
        answer.force_close()
    return answer


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The same as a middleware, for an application that no Listener serves."""
    try:
        return await handler(request)
    except (ConnectionError, web.HTTPRedirection):
        raise
    except Exception as exception:
        return answer_for(request, exception)
