"""Every error has a stable code, its status, one sentence and a hint that says what to do."""

from __future__ import annotations

import pytest

from router.errors import (
    CODES,
    BadRequestError,
    EngineFault,
    ModelNotFoundError,
    QueueFullError,
    QuorumError,
    StartError,
    StoreError,
    failure,
)

# The statuses that clients were promised (the protocol's table of errors).
PROMISED = {
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "model_not_found": 404,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "queue_full": 429,
    "engine_failed": 502,
    "peer_failed": 502,
    "model_loading": 503,
    "models_busy": 503,
    "no_holder_available": 503,
    "paused": 503,
    "deadline_exceeded": 504,
}


def test_every_promised_code_has_its_status() -> None:
    assert {code: CODES[code][0] for code in PROMISED} == PROMISED
    assert {"interrupted", "poison", "cancelled"} <= set(CODES)


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_an_error_with_a_hint_that_is_a_sentence(code: str) -> None:
    status, hint = CODES[code]
    assert 400 <= status < 600
    assert hint[0].isupper()
    assert hint.endswith(".")
    info = failure(code, "It failed.")
    assert (info.code, info.status, info.hint, info.message) == (code, status, hint, "It failed.")


def test_a_code_that_is_not_in_the_table_is_a_bug() -> None:
    with pytest.raises(KeyError):
        failure("no_such_code", "x")
    with pytest.raises(KeyError):
        QuorumError("no_such_code", "x")


def test_an_error_becomes_what_the_client_is_told() -> None:
    info = QuorumError("engine_failed", "It died.", "Restart it.", status=599, retry_after_s=3).info()
    assert (info.code, info.message, info.hint, info.status, info.retry_after_s) == (
        "engine_failed",
        "It died.",
        "Restart it.",
        599,
        3,
    )


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (BadRequestError("No."), "bad_request", 400),
        (BadRequestError("No.", code="payload_too_large"), "payload_too_large", 413),
        (ModelNotFoundError("m"), "model_not_found", 404),
        (QueueFullError(2), "queue_full", 429),
        (EngineFault("No."), "engine_failed", 502),
        (EngineFault("No.", code="models_busy"), "models_busy", 503),
        (StoreError("No."), "store_failed", 503),
        (StartError("No.", "Do this."), "internal", 500),
    ],
)
def test_every_class_has_its_code_and_status(error: QuorumError, code: str, status: int) -> None:
    assert (error.code, error.status, str(error)) == (code, status, error.message)
    assert error.hint


def test_errors_carry_what_their_catcher_needs() -> None:
    assert BadRequestError("No.", field="model").field == "model"
    assert (EngineFault("No.").retryable, EngineFault("No.").crashed) == (True, False)
    assert not EngineFault("No.", retryable=False).retryable
    assert (StoreError("No.").duplicate, StoreError("No.", duplicate=True).duplicate) == (False, True)
    assert QueueFullError(7).info().retry_after_s == 7


def test_an_unknown_model_names_those_that_look_alike() -> None:
    error = ModelNotFoundError("lama", ("llama", "llava"))
    assert (error.near, error.hint) == (("llama", "llava"), "Did you mean llama, llava?")
    assert "'lama'" in error.message
    assert ModelNotFoundError("lama").hint == CODES["model_not_found"][1]
