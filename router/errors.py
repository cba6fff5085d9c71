"""Errors that somebody catches, each with a stable code, an HTTP status, a sentence and a hint.

    QuorumError
    +-- BadRequestError            bad_request 400 (413, 415 by code)
    +-- ModelNotFoundError         model_not_found 404
    +-- QueueFullError             queue_full 429
    +-- StoreError                 store_failed 503: the database could not keep what was promised
    +-- EngineFault                what an engine did wrong; becomes an Outcome, never a client's exception
    +-- StartError                 the node can't start: port, data folder, database

Any other failure of a request is an ``ErrorInfo`` value made by ``failure(code, ...)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from router.wire import ErrorInfo

# code: (HTTP status, hint shown when nothing better is known)
CODES: Final[dict[str, tuple[int, str]]] = {
    "bad_request": (400, "Change what the message names, then send it again."),
    "unauthorized": (401, "Send a valid key as 'Authorization: Bearer <key>'."),
    "forbidden": (403, "Call the address exactly as Quorum shows it; web pages of other origins are refused."),
    "not_found": (404, "See GET /v1/models, or the README for the routes."),
    "model_not_found": (404, "Run 'quorum models' to see the names, or add the model on the Models page."),
    "method_not_allowed": (405, "See the README for the routes and their methods."),
    "conflict": (409, "Use another Idempotency-Key for another request."),
    "payload_too_large": (413, "Send less in one request; images count."),
    "unsupported_media_type": (415, "Send JSON with 'Content-Type: application/json' and no Content-Encoding."),
    "queue_full": (429, "Wait as long as Retry-After says, then try again."),
    "engine_failed": (502, "Try again, or choose another model; quorum.log in the data folder says more."),
    "peer_failed": (502, "See the Peers page: it says what is wrong with that computer."),
    "model_loading": (503, "Wait as long as Retry-After says, then try again, or ask with stream: true."),
    "models_busy": (503, "Every model in memory is in use; try again when one has finished."),
    "no_holder_available": (503, "Start the program or computer that has this model, or choose another model."),
    "paused": (503, "Resume Quorum in the tray, or run 'quorum resume'."),
    "deadline_exceeded": (504, "Give the request more time, or choose a smaller model."),
    "interrupted": (502, "The part above is all there is; ask again for a whole answer."),
    "poison": (500, "This request stopped the engine three times; change it or use another model."),
    "cancelled": (499, "It was cancelled; send it again when you need it."),
    "store_failed": (503, "Check that the disk of the data folder has space and can be written."),
    "internal": (500, "This is a fault in Quorum; please report it with the log."),
}


class QuorumError(Exception):
    """A request can't be served; carries what the client is told."""

    def __init__(
        self, code: str, message: str, hint: str = "", *, status: int = 0, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        default_status, default_hint = CODES[code]
        self.code = code
        self.message = message
        self.hint = hint or default_hint
        self.status = status or default_status
        self.retry_after_s = retry_after_s

    def info(self) -> ErrorInfo:
        """The same as a value that crosses a process border."""
        return ErrorInfo(
            code=self.code,
            message=self.message,
            hint=self.hint,
            status=self.status,
            retry_after_s=self.retry_after_s,
        )


class BadRequestError(QuorumError):
    """The request itself is wrong; ``field`` names the part at fault, where one can be named."""

    def __init__(self, message: str, hint: str = "", *, code: str = "bad_request", field: str | None = None) -> None:
        super().__init__(code, message, hint)
        self.field = field


class ModelNotFoundError(QuorumError):
    """Nobody holds the model; ``near`` are names that look alike, ``why`` what is wrong with a file of that name."""

    def __init__(self, name: str, near: Sequence[str] = (), why: str = "") -> None:
        hint = f"Did you mean {', '.join(near)}?" if near else ""
        super().__init__("model_not_found", f"No computer holds the model '{name}'. {why}".rstrip(), hint)
        self.name = name
        self.near = tuple(near)


class QueueFullError(QuorumError):
    """The bound of accepted work is reached; nothing accepted is dropped instead."""

    def __init__(self, retry_after_s: float, message: str = "The queue is full.", hint: str = "") -> None:
        super().__init__("queue_full", message, hint, retry_after_s=retry_after_s)


class EngineFault(QuorumError):
    """An engine refused, crashed or hung. ``retryable``: another holder may be asked; ``crashed``: its process died;
    ``lasting``: asking this one again can't help; ``away``: nobody listens there, which a busy one is not taken for."""

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        code: str = "engine_failed",
        retryable: bool = True,
        crashed: bool = False,
        lasting: bool = False,
        away: bool = False,
    ) -> None:
        super().__init__(code, message, hint)
        self.retryable = retryable
        self.crashed = crashed
        self.lasting = lasting
        self.away = away


class StoreError(QuorumError):
    """The database did not keep it. ``duplicate`` says that a unique rule (an Idempotency-Key) was the reason."""

    def __init__(self, message: str, hint: str = "", *, duplicate: bool = False) -> None:
        super().__init__("store_failed", message, hint)
        self.duplicate = duplicate


class StartError(QuorumError):
    """The node can't start here; the message says why and the hint what to do. Exit code 1."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__("internal", message, hint)


def failure(code: str, message: str, hint: str = "", *, retry_after_s: float | None = None) -> ErrorInfo:
    """An ``ErrorInfo`` with the status and the usual hint of ``code``; KeyError on a code not in ``CODES``."""
    status, default_hint = CODES[code]
    return ErrorInfo(code=code, message=message, hint=hint or default_hint, status=status, retry_after_s=retry_after_s)
