"""A job as the scheduler holds it in memory, and how an attempt ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from router.answer import Answer
from router.engines.base import Kind
from router.placement import Decision
from router.states import JobState
from router.wire import ErrorInfo, JobInfo, Receipt, State, Try

if TYPE_CHECKING:
    from router.lanes import Lane


class Origin(StrEnum):
    """Which door a job came through."""

    CHAT = "chat"
    API = "api"
    JOBS = "jobs"
    PEER = "peer"


class Result(StrEnum):
    """How one attempt ended."""

    DONE = "done"
    REJECTED = "rejected"  # the engine says the request is wrong: final
    FAILED = "failed"  # nothing was sent to the client: another holder may try
    INTERRUPTED = "interrupted"  # content was sent: final
    STOPPED = "stopped"  # this node is stopping: again at the next start, without charge


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one attempt, as a value. Times are seconds since it began; another computer that served also tells
    how long the job waited and its model loaded there. ``crashed``: the engine's process died;
    ``lasting``: another round at the same holder can't help."""

    result: Result
    error: ErrorInfo | None = None
    ttft_s: float | None = None
    duration_s: float = 0.0
    tokens: int = 0
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    prefill_per_s: float | None = None
    tokens_per_s: float | None = None
    queued_there_s: float = 0.0
    loading_there_s: float = 0.0
    crashed: bool = False
    lasting: bool = False


@dataclass(slots=True, eq=False)
class Job:
    """One accepted request. Wall times are Unix seconds, ``*_mono`` ones are the monotonic clock's.

    ``sees``: it has images. A ``held`` job waits outside the lanes until ``Scheduler.release``. ``webhook`` is a
    ``webhooks.Hook`` as JSON.
    ``peer_try`` is what a paired computer calls it: its node id, its job, the number of its try.
    """

    id: str
    seq: int
    kind: Kind
    origin: Origin
    model: str
    body: bytes
    stream: bool
    created_at: float
    created_mono: float
    person: str = ""
    key_id: str | None = None
    chat_id: str | None = None
    keep: bool = False
    batch: bool = False
    sees: bool = False
    max_attempts: int = 3
    deadline_s: float | None = None
    keep_alive_s: float | None = None
    idempotency_key: str | None = None
    request_hash: str | None = None
    webhook: str | None = None
    peer_try: tuple[str, str, int] | None = None
    held: bool = False
    digest: str | None = None
    state: JobState = JobState.QUEUED
    attempt: int = 0
    try_no: int = 0
    crashes: int = 0
    tried: set[tuple[str, str]] = field(default_factory=set)
    tries: list[Try] = field(default_factory=list)
    decision: Decision | None = None
    lane: Lane | None = None
    lane_model: str = ""
    ticket: int = 0
    alone_since: float | None = None
    place: int | None = None
    eta_s: float | None = None
    updated_at: float = 0.0
    started_at: float | None = None
    completed_at: float | None = None
    started_mono: float | None = None
    try_mono: float = 0.0
    loading_s: float = 0.0
    loading_pct: int | None = None
    why: str = ""
    error: ErrorInfo | None = None
    receipt: Receipt | None = None
    answer: Answer = field(default_factory=Answer)
    on_end: Callable[[Job], None] | None = None

    @property
    def queued_s(self) -> float:
        """Seconds from acceptance to the start of the first try."""
        return (self.started_mono or self.created_mono) - self.created_mono

    @property
    def who(self) -> str:
        """Whose turn it takes: a paired computer is its id, for any may call itself as others do."""
        return self.peer_try[0] if self.peer_try is not None else self.person

    @property
    def lives_on(self) -> bool:
        """Whether it goes on without anybody who waits for it: one that was asked to, or a line of a batch."""
        return self.keep or self.origin is Origin.JOBS

    @property
    def for_others(self) -> bool:
        """Whether a paired computer or a holder of an API key asked for it."""
        return self.origin is Origin.PEER or bool(self.key_id)

    def info(self) -> JobInfo:
        """The job as lists show it."""
        chosen = self.decision.chosen if self.decision else None
        return JobInfo(
            id=self.id,
            kind=self.kind.name.lower(),
            origin=self.origin,
            model=self.model,
            state=self.state,
            created_at=self.created_at,
            started_at=self.started_at,
            completed_at=self.completed_at,
            attempt=self.attempt,
            place=self.place,
            eta_s=self.eta_s,
            why=self.why,
            loading_pct=self.loading_pct,
            tokens=(self.receipt and self.receipt.completion_tokens) or self.answer.events,
            node=chosen.node if chosen else None,
            engine=chosen.engine if chosen else None,
            chat_id=self.chat_id,
            key=self.person or None,
            error=self.error,
            receipt=self.receipt,
        )

    def note_try(self, result: str, detail: str, duration_s: float = 0.0) -> None:
        """Remember how a try at the chosen holder ended, for the receipt."""
        chosen = self.decision.chosen if self.decision else None
        if chosen is not None:
            self.tries.append(
                Try(
                    number=self.try_no,
                    node=chosen.node,
                    engine=chosen.engine,
                    result=result,
                    detail=detail,
                    duration_s=round(duration_s, 4),
                )
            )

    def served(self, outcome: Outcome | None, now_mono: float) -> Receipt | None:
        """What the user is told once the job has ended; None when nobody was ever chosen."""
        decision = self.decision
        chosen = decision.chosen if decision else None
        if decision is None or chosen is None:
            return None
        queued_s, loading_s, ttft_s, working_s = self._parts(outcome, now_mono)
        return Receipt(
            node=chosen.node,
            engine=chosen.engine,
            model=chosen.model,
            digest=chosen.digest,
            by_name=chosen.digest is None,
            predicted=decision.predicted,
            reason=decision.reason,
            verdicts=[*decision.verdicts, *decision.absent],
            tries=list(self.tries),
            queued_s=queued_s,
            loading_s=loading_s,
            ttft_s=ttft_s,
            working_s=working_s,
            total_s=round(now_mono - self.created_mono, 4),
            prompt_tokens=outcome.prompt_tokens if outcome else None,
            cached_tokens=outcome.cached_tokens if outcome else None,
            completion_tokens=outcome.completion_tokens if outcome else None,
            prefill_per_s=outcome.prefill_per_s if outcome else None,
            tokens_per_s=outcome.tokens_per_s if outcome else None,
        )

    def _parts(self, outcome: Outcome | None, now_mono: float) -> tuple[float, float, float | None, float | None]:
        """(queued, loading, to the first content, working): waits and loads elsewhere count as such, not as work."""
        queued_s = (self.started_mono or now_mono) - self.created_mono
        if outcome is None:
            return round(queued_s, 4), round(self.loading_s, 4), None, None
        first_s = outcome.duration_s if outcome.ttft_s is None else outcome.ttft_s
        there_s = min(outcome.queued_there_s + outcome.loading_there_s, first_s)
        waited_s = min(outcome.queued_there_s, there_s)
        return (
            round(queued_s + waited_s, 4),
            round(self.loading_s + there_s - waited_s, 4),
            None if outcome.ttft_s is None else round(outcome.ttft_s - there_s, 5),
            round(outcome.duration_s - there_s, 4),
        )

    def news(self) -> State:
        """The job's state as its event stream tells it."""
        chosen = self.decision.chosen if self.decision else None
        return State(
            state=self.state,
            place=self.place,
            eta_s=self.eta_s,
            loading_pct=self.loading_pct,
            why=self.why,
            attempt=self.attempt,
            node=chosen.node if chosen else None,
        )

    def heard(self, state: State) -> State:
        """What readers are told when another computer says how the job stands there."""
        self.loading_pct = state.loading_pct if state.state is JobState.LOADING else None
        return replace(
            self.news(),
            state=state.state if state.state.live else self.state,
            place=state.place,
            eta_s=state.eta_s,
            why=state.why,
        )


class Effects(Protocol):
    """What the scheduler can do to the world."""

    def start(self, job: Job, try_no: int) -> None:
        """Run one attempt; its end comes back through ``finished``."""

    def stop(self, job: Job) -> None:
        """Stop the running attempt; nothing comes back of it."""

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        """Call ``act`` on the loop after ``delay_s`` seconds."""

    def moved(self, job: Job, old: JobState | None) -> None:
        """Publish that the job moved (None: it is new)."""
