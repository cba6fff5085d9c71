"""What a person is told afterwards about one job: who could have served it, who was tried, what was expected."""

from __future__ import annotations

from router.wire_base import Wire


class Verdict(Wire, frozen=True, kw_only=True):
    """Why one candidate was or was not chosen. ``verdict`` is a word of the design: warm, cold, busy, ...

    ``predicted_s`` is when it would have been done, in seconds from the decision; None where nothing was measured.
    """

    node: str
    engine: str
    verdict: str
    detail: str = ""
    predicted_s: float | None = None


class Try(Wire, frozen=True, kw_only=True):
    """One attempt at one holder and how it ended (``ok`` or an error code)."""

    number: int
    node: str
    engine: str
    result: str
    detail: str = ""
    duration_s: float = 0.0


class Predicted(Wire, frozen=True, kw_only=True):
    """What was expected of the holder when it was chosen, from measured speeds; seconds.

    ``after_s`` had passed since the job was accepted (an earlier try, another line); then come the wait, the load, the
    reading of ``prompt_tokens`` and the writing of ``answer_tokens``.
    """

    after_s: float = 0.0
    wait_s: float = 0.0
    load_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    prompt_tokens: int = 0
    answer_tokens: int = 0

    @property
    def finish_s(self) -> float:
        """Seconds from the decision to the end of the answer."""
        return self.wait_s + self.load_s + self.prefill_s + self.decode_s


class Receipt(Wire, frozen=True, kw_only=True):
    """What the user is told afterwards about one job; it names the holder that really served.

    ``digest`` identifies the weights that served; None where their engine tells none: the model was found ``by_name``.
    ``queued_s`` and ``loading_s`` count the wait and the load at another computer, too; ``ttft_s`` and ``working_s``
    (of the try that served: to its first content, to its end) don't. What is left of ``total_s`` went into other tries.
    """

    node: str
    engine: str
    model: str
    digest: str | None
    reason: str
    verdicts: list[Verdict]
    tries: list[Try]
    queued_s: float
    loading_s: float
    ttft_s: float | None = None
    working_s: float | None = None
    total_s: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    prefill_per_s: float | None = None
    tokens_per_s: float | None = None
    by_name: bool = False
    predicted: Predicted | None = None
