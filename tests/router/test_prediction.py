"""When a holder would have answered, from what was measured there."""

from __future__ import annotations

import pytest

from router.prediction import Need, Speed, predict

NEED = Need(prompt_tokens=100, answer_tokens=200)
MEASURED = Speed(prefill_per_s=50.0, decode_per_s=20.0, load_s=7.0, work_s=12.0)


def test_queue_load_reading_and_writing_add_up_to_the_finish() -> None:
    seen = predict(MEASURED, NEED, warm=False, ahead=1.5)
    assert seen is not None
    assert (seen.wait_s, seen.load_s, seen.prefill_s, seen.decode_s) == (18.0, 7.0, 2.0, 10.0)
    assert seen.finish_s == 37.0
    assert (seen.prompt_tokens, seen.answer_tokens) == (100, 200)


def test_what_is_loaded_and_free_only_reads_and_writes() -> None:
    seen = predict(MEASURED, NEED, warm=True, ahead=0)
    assert seen is not None
    assert (seen.wait_s, seen.load_s, seen.finish_s) == (0.0, 0.0, 12.0)


def test_the_part_of_the_prompt_that_lies_ready_is_not_read_again() -> None:
    seen = predict(Speed(50.0, 20.0, reused=0.75), NEED, warm=True, ahead=0)
    assert seen is not None
    assert seen.prefill_s == 0.5


@pytest.mark.parametrize(
    ("speed", "warm"),
    [
        (Speed(), True),
        (Speed(prefill_per_s=50.0), True),
        (Speed(prefill_per_s=50.0, decode_per_s=20.0), False),
        (Speed(load_s=1.0), False),
    ],
)
def test_nothing_is_foretold_of_what_was_not_measured(speed: Speed, warm: bool) -> None:
    assert predict(speed, NEED, warm=warm, ahead=0) is None


def test_an_engine_that_tells_no_rates_takes_as_long_as_its_jobs_took() -> None:
    seen = predict(Speed(work_s=9.0), NEED, warm=True, ahead=0.5)
    assert seen is not None
    assert (seen.wait_s, seen.finish_s) == (4.5, 13.5)


def test_an_embedding_is_only_read() -> None:
    seen = predict(Speed(prefill_per_s=50.0), Need(prompt_tokens=100), warm=True, ahead=0)
    assert seen is not None
    assert seen.finish_s == 2.0
