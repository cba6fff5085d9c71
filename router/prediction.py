"""When a holder would have answered: pure arithmetic over what was measured, seconds and tokens."""

from __future__ import annotations

from dataclasses import dataclass

from router.wire_receipt import Predicted


@dataclass(frozen=True, slots=True)
class Need:
    """What a job is expected to take: tokens to read and to write."""

    prompt_tokens: float = 0.0
    answer_tokens: float = 0.0


NOTHING = Need()


@dataclass(frozen=True, slots=True)
class Speed:
    """What was measured of one model at one holder; None where nothing was. Rates are tokens a second.

    ``work_s`` is how long one job works there; ``reused`` the share of a prompt that lies ready from earlier ones.
    """

    prefill_per_s: float | None = None
    decode_per_s: float | None = None
    load_s: float | None = None
    work_s: float | None = None
    reused: float = 0.0


UNMEASURED = Speed()


def predict(speed: Speed, need: Need, *, warm: bool, ahead: float) -> Predicted | None:
    """The parts of a job's time at a holder; None where they can't be told.

    ``ahead`` counts the jobs that must end there first, each as the part of it that is left over the holder's width.
    """
    load_s = 0.0 if warm else speed.load_s
    prefill_s = need.prompt_tokens * (1 - speed.reused) / speed.prefill_per_s if speed.prefill_per_s else None
    decode_s = need.answer_tokens / speed.decode_per_s if speed.decode_per_s else None
    if not need.answer_tokens and prefill_s is not None:
        decode_s = 0.0
    if decode_s is None and speed.work_s is not None:
        decode_s = max(0.0, speed.work_s - (prefill_s or 0.0))
    if load_s is None or decode_s is None:
        return None
    prefill_s = prefill_s or 0.0
    work_s = prefill_s + decode_s if speed.work_s is None else speed.work_s
    return Predicted(
        wait_s=round(ahead * work_s, 3),
        load_s=round(load_s, 3),
        prefill_s=round(prefill_s, 3),
        decode_s=round(decode_s, 3),
        prompt_tokens=round(need.prompt_tokens),
        answer_tokens=round(need.answer_tokens),
    )
