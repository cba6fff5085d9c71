"""Owns the jobs, the lanes and their leases. Synchronous, on the loop, without locks; acts only through ``Effects``.

The numbers are those of ``DESIGN.md``, "One request".
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator

from router.admission import Admission
from router.aio import Clock
from router.balance import Balance
from router.candidates import EMBEDDING_WIDTH as EMBEDDING_WIDTH
from router.candidates import Candidates, refusal
from router.errors import QuorumError, failure
from router.jobs import Effects as Effects
from router.jobs import Job, Outcome, Result
from router.lanes import Lane
from router.placement import Decision
from router.rates import Rates
from router.registry import Registry
from router.rounds import Over, Placed, Rounds, Step
from router.states import JobState, NodeMode, check_job
from router.survey import Survey
from router.wire import Ended, ErrorInfo, State

CRASHES_MAX = 3

_POISON = failure("poison", "This job stopped the node or its engine three times.")


class Scheduler:
    """All live jobs of this node. Every public method leaves the state consistent and the lanes pumped."""

    def __init__(
        self,
        registry: Registry,
        effects: Effects,
        clock: Clock,
        *,
        width: Callable[[str], int],
        route: Callable[[str], str],
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.jobs: dict[str, Job] = {}
        self.lanes: dict[tuple[str, bool], Lane] = {}
        self.mode = NodeMode.RUNNING
        self._registry = registry
        self._effects = effects
        self._clock = clock
        self._admission = Admission()
        self.stopping = False
        self._gathering = False
        self.rates = Rates()
        self._survey = Survey(self.jobs, self.lanes, registry, self.rates, clock)
        candidates = self._candidates = Candidates(registry, self.lanes, width, route, self.rates, clock)
        self._rounds = Rounds(registry, candidates, clock, jitter)
        self._balance = Balance(registry, self.jobs, self.lanes, candidates, self._opens, self._replace, self.recall)

    # -- the doors

    def submit(self, job: Job) -> None:
        """[2] Accept a job and place it, a held one once it is released.

        Raises ModelNotFoundError, QueueFullError, QuorumError; then nothing stays.
        """
        if self.stopping:
            raise QuorumError("no_holder_available", "This node is stopping.", "Start Quorum again.")
        self._admission.require(job, lambda: self.rates.turn_s(self.lanes.values()))
        decision = None if job.held and self._candidates.any(job) else self._rounds.place(job, self.mode)
        if decision is not None and decision.chosen is None:
            raise refusal(job, decision)
        self.jobs[job.id] = job
        self._registry.health.budget.request()
        self._admission.came(job)
        job.updated_at = job.created_at
        self._effects.moved(job, None)
        if not job.held and decision is not None:
            self._enqueue(job, decision)

    def release(self, *jobs: Job) -> None:
        """Held jobs may run now, all in line before the first is picked; one that ended meanwhile stays as it is."""
        self._gathering = True
        for job in jobs:
            job.held = False
            self._replace(job)
        self._gathering = False
        for lane in tuple(self.lanes.values()):
            self._pump(lane)

    def resume_job(self, job: Job) -> None:
        """Take back a job of an earlier run of this node (queued, loading or working then); a held one waits."""
        self.jobs[job.id] = job
        self._admission.came(job)
        if job.crashes >= CRASHES_MAX:
            self._end(job, JobState.FAILED, _POISON)
        elif not job.held:
            self._replace(job)

    def cancel(self, job_id: str) -> Job | None:
        """Cancel a live job; an ended one stays as it is. None: not a live job of this node."""
        job = self.jobs.get(job_id)
        if job is None:
            return None
        running = job.state.running
        if job.lane is not None:
            job.lane.remove(job)
        if running:
            self._halt(job, "cancelled", "")
        self._end(job, JobState.CANCELLED, failure("cancelled", "The job was cancelled."))
        if running and job.lane is not None:
            self._pump(job.lane)
        return job

    def to_front(self, job_id: str) -> bool:
        """Let a waiting job be next; False when it doesn't wait."""
        job = self.jobs.get(job_id)
        if job is None or job.lane is None or not job.ticket:
            return False
        self._admission.left(job)
        job.lane.to_front(job)
        self._admission.came(job)
        return True

    # -- what comes back of an attempt

    def loaded(self, job: Job, try_no: int) -> None:
        """The model is resident: the job works."""
        if job.try_no == try_no and job.state is JobState.LOADING:
            job.loading_s += self._clock.mono() - job.try_mono
            job.loading_pct = None
            self._move(job, JobState.WORKING)

    def progress(self, job: Job, try_no: int, percent: int) -> None:
        """The model's load came further."""
        if job.try_no == try_no and job.state is JobState.LOADING and job.loading_pct != percent:
            job.loading_pct = percent
            job.answer.tell(job.news())

    def heard(self, job: Job, try_no: int, state: State) -> None:
        """Another computer tells how the job stands there."""
        if job.try_no != try_no or not job.state.running:
            return
        job.answer.tell(job.heard(state))
        if state.state is JobState.QUEUED:
            self._balance.park(job)
        else:
            self._balance.parked.pop(job.id, None)

    def finished(self, job: Job, try_no: int, outcome: Outcome) -> None:
        """[5] An attempt ended. A result whose try is not the current one is discarded (fenced)."""
        if job.try_no != try_no or not job.state.running:
            return
        lane = self._release(job)
        error = outcome.error
        job.note_try(error.code if error else "ok", error.message if error else "", outcome.duration_s)
        job.crashes += outcome.crashed
        match outcome.result:
            case Result.DONE:
                self._end(job, JobState.DONE, None, outcome)
            case Result.REJECTED | Result.INTERRUPTED:
                self._end(job, JobState.FAILED, error, outcome)
            case Result.STOPPED:
                self._move(job, JobState.QUEUED)
            case Result.FAILED if outcome.crashed and job.crashes >= CRASHES_MAX:
                self._end(job, JobState.FAILED, _POISON, outcome)
            case Result.FAILED:
                error = error or failure("engine_failed", "The engine failed.")
                self._follow(job, self._rounds.after_failure(job, error, self.mode, lasting=outcome.lasting))
        self._check_drained()
        self._pump(lane)

    def _replace(self, job: Job) -> None:
        """Place a job that waits outside the lanes."""
        if self.stopping or self.jobs.get(job.id) is not job or job.state is not JobState.QUEUED or job.ticket:
            return
        self._follow(job, self._rounds.next(job, self.mode))

    def _follow(self, job: Job, step: Step) -> None:
        """Do what its round says is next."""
        if isinstance(step, Over):
            self._end(job, JobState.FAILED, step.error)
            return
        if job.state is not JobState.QUEUED:
            self._move(job, JobState.QUEUED)
        if isinstance(step, Placed):
            self._enqueue(job, step.decision)
            return
        job.why = step.why
        job.place, job.eta_s = None, step.eta_s
        job.answer.tell(job.news())
        self._effects.later(step.delay_s, lambda: self._replace(job))

    # -- lanes and leases

    def _enqueue(self, job: Job, decision: Decision) -> None:
        """[3] Into the lane of the chosen holder, which runs it at once when it is free."""
        assert decision.chosen is not None  # noqa: S101 - callers checked; this tells the type checker
        lane = self._candidates.lane(decision.chosen.engine, job.kind)
        job.lane_model = decision.chosen.model
        job.why = decision.reason
        lane.add(job)
        self._pump(lane)

    def _pump(self, lane: Lane) -> None:
        """Start what the lane has room for. Picking and taking the lease are one step."""
        while lane.waiting and lane.free and self._opens(lane):
            job = lane.pick(functools.partial(self._registry.warm, lane.engine), self._clock.mono())
            if job is None:
                return
            if not self._registry.takes(lane.engine, job.lane_model):
                self._replace(job)
                continue
            job.place = job.eta_s = None
            job.why = ""
            lane.in_flight += 1
            job.try_no += 1
            job.try_mono = self._clock.mono()
            if job.started_mono is None:
                job.started_mono = job.try_mono
                job.started_at = self._clock.wall()
            self._registry.used(lane.engine, job.lane_model, job.try_mono, +1)
            job.answer.restart(job.try_no)
            loading = self._registry.needs_load(lane.engine, job.lane_model, job.kind)
            self._move(job, JobState.LOADING if loading else JobState.WORKING)
            self._effects.start(job, job.try_no)
        self._balance.fill(lane)

    def _opens(self, lane: Lane) -> bool:
        """Whether the lane may start jobs now: while this computer is paused, others go on."""
        works = self.mode.takes_work or not self._registry.local(lane.engine)
        return works and self._registry.answers(lane.engine) and not (self.stopping or self._gathering)

    def recall(self, job: Job, why: str = "It still waited there.") -> None:
        """A job that runs elsewhere and has said nothing is taken back and placed anew; no attempt is charged."""
        lane = self._halt(job, "moved", why)
        self._move(job, JobState.QUEUED)
        self._replace(job)
        self._pump(lane)

    def _release(self, job: Job) -> Lane:
        """Give the lease back, exactly once: only a running job has one, and it stops running right after."""
        lane = job.lane
        assert lane is not None  # noqa: S101 - a running job was picked from a lane
        lane.in_flight -= 1
        self._balance.parked.pop(job.id, None)
        self._registry.used(lane.engine, job.lane_model, self._clock.mono(), -1)
        return lane

    def _halt(self, job: Job, result: str, detail: str) -> Lane:
        """End the running attempt; nothing comes back of it."""
        self._effects.stop(job)
        job.note_try(result, detail)
        return self._release(job)

    # -- moves

    def _move(self, job: Job, new: JobState) -> None:
        """The one function that moves a job: checks, then publishes."""
        old = job.state
        check_job(old, new)
        job.state = new
        if old is JobState.QUEUED:
            self._admission.left(job)
        elif new is JobState.QUEUED:
            self._admission.came(job)
        job.updated_at = self._clock.wall()
        self._effects.moved(job, old)
        if new.live:
            job.answer.tell(job.news())

    def _end(self, job: Job, state: JobState, error: ErrorInfo | None, outcome: Outcome | None = None) -> None:
        """A terminal move: receipt first, then the readers and whoever waits."""
        self.jobs.pop(job.id, None)
        job.error = error
        job.completed_at = self._clock.wall()
        job.why = ""
        job.receipt = job.served(outcome, self._clock.mono())
        self._move(job, state)
        job.answer.finish(Ended(state=state, receipt=job.receipt, error=error))
        if job.on_end is not None:
            job.on_end(job)
        if state is JobState.DONE:
            self.rates.learn(job)
        self._check_drained()

    # -- the node's mode

    def set_mode(self, mode: NodeMode) -> None:
        """Pause, drain or resume. Draining with nothing running is drained at once."""
        self.mode = mode
        self._check_drained()
        for lane in tuple(self.lanes.values()):
            self._pump(lane)

    @property
    def running_here(self) -> int:
        """Jobs that run on this computer's own engines."""
        return sum(lane.in_flight for lane in self.lanes.values() if lane.local)

    def _check_drained(self) -> None:
        if self.mode is NodeMode.DRAINING and not self.running_here:
            self.mode = NodeMode.DRAINED

    def refresh(self) -> None:
        """The registry changed: move waiting jobs off engines that are gone, adjust widths, pump."""
        for (engine, embedding), lane in tuple(self.lanes.items()):
            lane.width = self._candidates.width(engine, embedding)
            if not self._registry.has_engine(engine):
                self._balance.empty(lane)
                if not lane.in_flight:
                    del self.lanes[engine, embedding]
                continue
            self._balance.leave(lane)
            self._pump(lane)
        self._balance.open_lanes()

    def stop_accepting(self) -> None:
        """The node stops: nothing new is accepted or started."""
        self.stopping = True

    # -- looks

    @property
    def running(self) -> int:
        """Jobs that hold a lease."""
        return sum(lane.in_flight for lane in self.lanes.values())

    @property
    def waiting(self) -> int:
        """Jobs accepted and not running."""
        return len(self.jobs) - self.running

    def survey(self) -> None:
        """Note of every waiting job its place in its lane (1 for the next), when it should start, and why it waits."""
        self._survey.take(self.mode)

    def line(self) -> Iterator[Job]:
        """The waiting jobs, lane by lane in the order they will run."""
        self.survey()
        return self._survey.line()
