"""The candidates of one job: holders as placement sees them, each with the lane it would wait in.

At most two other computers are tried in a round, then this one; what comes from a peer is never sent on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from msgspec.structs import replace as with_fields

from router import placement
from router.aio import Clock
from router.engines.base import Kind
from router.errors import BadRequestError, ModelNotFoundError, QuorumError
from router.jobs import Job, Origin
from router.lanes import Lane
from router.placement import Decision, HolderView, Route, Word
from router.prediction import Need, predict
from router.rates import Rates, identity_of
from router.registry import Holder, Registry
from router.states import NodeMode
from router.wire_receipt import Predicted

EMBEDDING_WIDTH: Final = 4
PEERS_MAX: Final = 2


class Candidates:
    """Makes lanes and decisions; part of the scheduler, on the loop."""

    def __init__(
        self,
        registry: Registry,
        lanes: dict[tuple[str, bool], Lane],
        width: Callable[[str], int],
        route: Callable[[str], str],
        rates: Rates,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._lanes = lanes
        self._width = width
        self._route = route
        self._rates = rates
        self._clock = clock
        registry.replicas.on_removed.append(rates.forget_prompts)

    def lane(self, engine: str, kind: Kind) -> Lane:
        """The lane of an engine for jobs of ``kind``."""
        key = (engine, kind is Kind.EMBEDDING)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(engine, self.width(*key), self._registry.local(engine))
        return lane

    def width(self, engine: str, embedding: bool) -> int:
        """How many jobs a lane sends at once; a computer full with others' jobs gets one, to stand in its line."""
        width = self._width(engine)
        return max(width, EMBEDDING_WIDTH) if embedding else max(1, width - self._registry.others(engine))

    def place(self, job: Job, mode: NodeMode) -> Decision:
        """Decide who runs ``job``; notes its digest. Raises as ``holders`` does."""
        holders = self.holders(job)
        if not holders:
            raise ModelNotFoundError(job.model)
        job.digest = holders[0].digest
        here = None
        if mode is not NodeMode.RUNNING:
            here = Word.PAUSED if mode is NodeMode.PAUSED else Word.DRAINING
        now = self._clock.mono()
        views = [self._view(job, holder, here if holder.local else None, now) for holder in holders]
        decision = placement.place(views, frozenset(job.tried), self._route(job.model), self._need(job, holders[0]))
        absent = () if job.origin is Origin.PEER else self._registry.absent(holders)
        after_s = round(now - job.created_mono, 3)
        if absent or after_s:
            decision = replace(decision, absent=absent, predicted=_after(decision, after_s))
        return decision

    def any(self, job: Job) -> bool:
        """Whether somebody could take ``job`` now, or keeps it until it may. Raises as ``holders`` does."""
        kept = (None, Word.PAUSED, Word.DRAINING)
        return not job.tried and any(
            holder.blocked in kept if holder.local else holder.blocked is None for holder in self.holders(job)
        )

    def _view(self, job: Job, holder: Holder, blocked: Word | None, now: float) -> HolderView:
        speed = self._rates.speed(holder.engine, identity_of(holder.digest, holder.model), holder.told, now)
        return self.lane(holder.engine, job.kind).view(holder, blocked, speed)

    def _need(self, job: Job, holder: Holder) -> Need:
        return self._rates.need(job, identity_of(holder.digest, holder.model))

    def holders(self, job: Job) -> list[Holder]:
        """The holders of the job's model with what rules each of them out for this job.

        Raises ModelNotFoundError, and BadRequestError when it has images and none of them takes any.
        """
        found = self._registry.find(job.model, job.kind)
        if job.sees:
            found = _seeing(job, found)
        if all(holder.local for holder in found):
            return found
        if job.origin is Origin.PEER:
            return [holder for holder in found if holder.local]
        enough = self._enough(job)
        return [self._for(job, holder, enough) for holder in found]

    def _for(self, job: Job, holder: Holder, enough: str) -> Holder:
        if holder.local:
            return holder
        if enough and holder.blocked is None:
            return replace(holder, blocked=Word.UNFIT, detail=enough)
        return replace(holder, others=0) if job.kind is Kind.EMBEDDING else holder

    def _enough(self, job: Job) -> str:
        """Why no further computer is tried in this round; empty when one may be."""
        if len({node for node, _ in job.tried if node != self._registry.node}) >= PEERS_MAX:
            return "Two other computers were tried already."
        if job.tried and self._registry.health.budget.spent:
            return "Too many requests had to be tried again lately."
        return ""

    def swap(self, job: Job, lane: Lane) -> bool | None:
        """Whether a job that waits elsewhere would need a load in ``lane``, which is free; None if it can't run there.

        A load is only worth it where nothing else runs.
        """
        try:
            holders = self.holders(job)
        except QuorumError:
            return None
        for holder in holders:
            if holder.engine == lane.engine and holder.blocked is None and lane.view(holder, None).free:
                if (holder.node, holder.engine) in job.tried or not (holder.warm or not lane.in_flight):
                    return None
                return None if self._later(job, holder, holders) else not holder.warm
        return None

    def _later(self, job: Job, here: Holder, holders: list[Holder]) -> bool:
        """Whether a job that is to be done soonest would be done later ``here`` than where it waits."""
        if job.lane is None or self._route(job.model) != Route.FASTEST:
            return False
        now, need = self._clock.mono(), self._need(job, here)
        there = next((holder for holder in holders if holder.engine == job.lane.engine), here)
        ends = [self._finish_s(self._view(job, holder, None, now), need) for holder in (here, there)]
        return ends[0] is not None and ends[1] is not None and ends[0] > ends[1]

    @staticmethod
    def _finish_s(view: HolderView, need: Need) -> float | None:
        expected = predict(view.speed, need, warm=view.warm, ahead=view.ahead)
        return expected.finish_s if expected is not None else None


def _after(decision: Decision, after_s: float) -> Predicted | None:
    """What is expected, counted from when the job was accepted."""
    seen = decision.predicted
    return with_fields(seen, after_s=after_s) if seen is not None and after_s else seen


def _seeing(job: Job, found: list[Holder]) -> list[Holder]:
    if all(holder.blind for holder in found):
        hint = "Choose a model with vision: the Models page shows which have it."
        raise BadRequestError(f"The model '{job.model}' can't see images.", hint, field="messages")
    return [replace(h, blocked=Word.UNFIT, detail="It can't see images.") if h.blind else h for h in found]


def refusal(job: Job, decision: Decision) -> QuorumError:
    """What a caller is told when nobody can run the job now."""
    why = ", ".join(f"{verdict.engine}: {verdict.verdict}" for verdict in decision.verdicts)
    detail = next((verdict.detail for verdict in decision.verdicts if verdict.detail), "")
    said = [f"Nobody can run '{job.model}' now.", detail, f"({why})"]
    return QuorumError("no_holder_available", " ".join(filter(None, said)), retry_after_s=5)
