"""What comes next for a job that nobody runs: a try at another holder, a wait for one, a new round, or the end.

Decides only; the scheduler moves the job. A round ends when every holder in it was tried; the next begins after a
backoff, in which all may be tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from router.aio import Clock
from router.candidates import Candidates
from router.errors import QuorumError, failure
from router.jobs import Job
from router.placement import Decision, Word
from router.registry import Registry
from router.states import NodeMode
from router.wire import ErrorInfo

BACKOFF_FIRST_S: Final = 1.0
BACKOFF_MAX_S: Final = 60.0
HOLDER_LOOK_S: Final = 5.0
HOLDER_S: Final = 60.0  # a caller who waits for the answer
HOLDER_KEPT_S: Final = 86_400.0  # a job that lives on


@dataclass(frozen=True, slots=True)
class Placed:
    """Into the line of the chosen holder."""

    decision: Decision


@dataclass(frozen=True, slots=True)
class Later:
    """Placed again after ``delay_s``; ``why`` and ``eta_s`` are what its readers are told meanwhile."""

    delay_s: float
    why: str
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class Over:
    """It fails."""

    error: ErrorInfo | None


Step = Placed | Later | Over


class Rounds:
    """Notes in a job what was tried, its last error and how long it is alone. ``jitter`` draws between two bounds."""

    def __init__(
        self, registry: Registry, candidates: Candidates, clock: Clock, jitter: Callable[[float, float], float]
    ) -> None:
        self._registry = registry
        self._candidates = candidates
        self._clock = clock
        self._jitter = jitter

    def place(self, job: Job, mode: NodeMode) -> Decision:
        """Decide who runs ``job`` while this node is in ``mode``. Raises as ``Candidates.place`` does."""
        decision = self._candidates.place(job, mode)
        if decision.chosen is not None or job.decision is None:
            job.decision = decision  # else the receipt goes on naming the holder that was tried last
        return decision

    def _place_again(self, job: Job, mode: NodeMode) -> Decision | None:
        """As ``place``, for a job already accepted: a model that vanished is no error of the caller."""
        try:
            return self.place(job, mode)
        except QuorumError as error:
            job.error = error.info()
            return None

    def next(self, job: Job, mode: NodeMode) -> Step:
        """For a job that waits outside the lanes."""
        decision = self._place_again(job, mode)
        if decision is None:
            return self._wait_for_holder(job, decision)
        if decision.chosen is not None:
            job.alone_since = None
            return Placed(decision)
        job.error = job.error or failure("no_holder_available", f"Nobody that holds '{job.model}' can be reached.")
        if self._waits(job, decision):
            return self._wait_for_holder(job, decision)
        return self.after_failure(job, job.error, mode)

    def _waits(self, job: Job, decision: Decision) -> bool:
        """Whether nobody could even be asked in this round: other computers, or own engines of a job that can wait."""
        if job.tried:
            return False
        if any(verdict.node != self._registry.node for verdict in decision.verdicts):
            return True
        return job.lives_on and not all(self._registry.answers(verdict.engine) for verdict in decision.verdicts)

    def after_failure(self, job: Job, error: ErrorInfo, mode: NodeMode, *, lasting: bool = False) -> Step:
        """Another holder at once, else another round after a backoff unless the only one can't help, else the end."""
        job.error = error
        chosen = job.decision.chosen if job.decision else None
        if chosen is not None:
            job.tried.add((chosen.node, chosen.engine))
        decision = self._place_again(job, mode)
        if decision is not None and decision.chosen is not None:
            if not decision.chosen.local:
                self._registry.health.budget.retry()
            return Placed(decision)
        job.attempt += 1
        if (lasting and len(job.tried) == 1) or job.attempt >= job.max_attempts:
            return Over(error)
        job.tried.clear()
        delay_s = self._jitter(0, min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** (job.attempt - 1)))
        return Later(delay_s, "retry", round(delay_s, 1))

    def _wait_for_holder(self, job: Job, decision: Decision | None) -> Step:
        """Nobody has the model now, for example because its engine starts later: a wait, not a failed attempt."""
        now = self._clock.mono()
        job.alone_since = job.alone_since or now
        most_s = HOLDER_KEPT_S if job.lives_on else 0.0 if self._lost(job, decision) else HOLDER_S
        if now - job.alone_since >= most_s:
            return Over(job.error)
        return Later(HOLDER_LOOK_S, "waits-holder")

    def _lost(self, job: Job, decision: Decision | None) -> bool:
        """Whether those who could have run it are paired with this computer no more: no wait brings them back."""
        if decision is not None:
            return all(verdict.verdict is Word.UNTRUSTED for verdict in decision.verdicts)
        chosen = job.decision.chosen if job.decision else None
        return chosen is not None and not chosen.local and not self._registry.has_engine(chosen.engine)
