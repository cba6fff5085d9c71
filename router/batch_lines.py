"""Lines of a batch: read from its input file and checked, run as jobs of one endpoint, written as results. No I/O."""

from __future__ import annotations

from typing import Any, BinaryIO, Final

import msgspec

from router.batch_rows import Line
from router.engines.base import Kind
from router.errors import BadRequestError
from router.web.answers import Shape, error_body
from router.web.canonical import Checked, check
from router.web.strict_json import decode
from router.wire import ErrorInfo

LINE_BYTES: Final = 32 * 1024 * 1024
BLOCK_BYTES: Final = 1024 * 1024
LINES_MAX: Final = 50_000
ERRORS_MAX: Final = 100
RESPONSES: Final = "/v1/responses"
KINDS: Final = {f"/v1/{kind}": kind for kind in Kind}
ENDPOINTS: Final = (*KINDS, RESPONSES)


class Reading:
    """The check of an input file, a block at a time. ``errors`` as OpenAI's batches list them."""

    def __init__(self, endpoint: str) -> None:
        self.errors: list[dict[str, Any]] = []
        self.count = 0
        self.over = False
        self._endpoint = endpoint
        self._number = 0
        self._seen: set[str] = set()

    def block(self, file: BinaryIO) -> list[Line]:
        """The next good lines; ``over`` at the end, or when there are too many errors. For a thread."""
        lines, read = [], 0
        while read < BLOCK_BYTES and not self.over:
            start = file.tell()
            raw = file.readline(LINE_BYTES + 1)
            self._number += 1
            read += len(raw)
            if not raw:
                self.over = True
            elif raw.strip():
                line = self._checked(raw, start)
                lines += [line] if line is not None else []
            self.over = self.over or len(self.errors) >= ERRORS_MAX
        return lines

    def faults(self) -> bool:
        """Whether something is wrong with what was read; a file without requests is, too."""
        if not self.count and not self.errors:
            self.errors.append({"code": "empty_file", "message": "The input file has no requests."})
        return bool(self.errors)

    def _checked(self, raw: bytes, start: int) -> Line | None:
        self.count += 1
        fault = self._fault_of_size(raw)
        if fault is not None:
            self.over = True  # what follows can't be told apart, or is too much
            self._wrong(*fault, None)
            return None
        try:
            asked = decode(raw)
        except BadRequestError as error:
            self._wrong("invalid_json_line", error.message.replace("The body", "The line"), None)
            return None
        fault = self._fault(asked)
        if fault is not None:
            self._wrong(*fault, fault[0].removeprefix("invalid_").removeprefix("duplicate_"))
            return None
        return Line(self._number, asked["custom_id"], start, len(raw))

    def _fault_of_size(self, raw: bytes) -> tuple[str, str] | None:
        if len(raw) > LINE_BYTES:
            return "line_too_long", f"The line is longer than {LINE_BYTES // 2**20} MiB."
        if self.count > LINES_MAX:
            return "too_many_requests", f"A batch has at most {LINES_MAX:,} requests."
        return None

    def _fault(self, asked: dict[str, Any]) -> tuple[str, str] | None:
        """Code and sentence of what is wrong with a line; the code ends with the name of its field."""
        custom_id = asked.get("custom_id")
        if type(custom_id) is not str or not 0 < len(custom_id) <= 512:
            return "invalid_custom_id", "'custom_id' must be text of 1 to 512 characters."
        if custom_id in self._seen:
            return "duplicate_custom_id", "'custom_id' was used before in this file."
        self._seen.add(custom_id)
        if asked.get("method") != "POST":
            return "invalid_method", "'method' must be POST."
        if asked.get("url") != self._endpoint:
            return "invalid_url", f"'url' must be the batch's endpoint, {self._endpoint}."
        return None if type(asked.get("body")) is dict else ("invalid_body", "'body' must be an object.")

    def _wrong(self, code: str, message: str, param: str | None) -> None:
        self.errors.append({"code": code, "message": message, "param": param, "line": self._number})


def body_of(raw: bytes) -> dict[str, Any]:
    """The request in a line that was found good. It answers at once: what asks for a stream is left out."""
    body: dict[str, Any] = decode(raw)["body"]
    return {name: value for name, value in body.items() if name not in ("stream", "stream_options", "background")}


def checked(endpoint: str, body: dict[str, Any]) -> Checked:
    """``body`` in canonical form, for any endpoint but ``RESPONSES``. Raises BadRequestError."""
    return check(KINDS[endpoint], body, msgspec.json.encode(body))


def answered(batch_id: str, line: Line, job_id: str, body: bytes) -> bytes:
    """The line of the output file."""
    if b"\n" in body or b"\r" in body:
        body = msgspec.json.format(body, indent=-1)
    response = {"status_code": 200, "request_id": job_id, "body": msgspec.Raw(body)}
    return _line(batch_id, line, response, None)


def refused(batch_id: str, line: Line, job_id: str, error: ErrorInfo, param: str | None = None) -> bytes:
    """The line of the error file, for a request that was answered with an error."""
    body = error_body(Shape.OPENAI, error, param)
    return _line(batch_id, line, {"status_code": error.status, "request_id": job_id, "body": body}, None)


def not_run(batch_id: str, line: Line) -> bytes:
    """The line of the error file, for a request that a cancelled batch did not run to its end."""
    error = {"code": "batch_cancelled", "message": "The batch was cancelled before this request was answered."}
    return _line(batch_id, line, None, error)


def _line(batch_id: str, line: Line, response: dict[str, Any] | None, error: dict[str, Any] | None) -> bytes:
    told = {"id": f"{batch_id}_{line.number}", "custom_id": line.custom_id, "response": response, "error": error}
    return msgspec.json.encode(told) + b"\n"


def tokens(result: bytes) -> tuple[int, int, int]:
    """Tokens in, of them cached, and out, that an answered line tells."""
    usage = msgspec.json.decode(result)["response"]["body"].get("usage")
    usage = usage if isinstance(usage, dict) else {}
    asked = _count(usage, "prompt_tokens") or _count(usage, "input_tokens")
    cached = sum(_count(usage.get(name), "cached_tokens") for name in ("prompt_tokens_details", "input_tokens_details"))
    return asked, min(cached, asked), _count(usage, "completion_tokens") or _count(usage, "output_tokens")


def _count(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 <= value < 2**53 else 0
