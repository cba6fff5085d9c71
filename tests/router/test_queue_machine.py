"""The queue as a state machine: whatever happens in whatever order, no job is lost, doubled or run where it may not."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from router.candidates import EMBEDDING_WIDTH, PEERS_MAX
from router.engines.base import Kind
from router.errors import QuorumError
from router.health import Failure
from router.jobs import Job, Origin, Outcome, Result
from router.states import JobState, NodeMode
from router.wire import State
from tests.fakes import Listener, MemoryEngine, listening
from tests.fakes_peer import MemoryPeer
from tests.world import FAULT, World

STEPS_MIN = 10_000
ENGINES = ("e", "f", "g")
PEERS = ("peer-p", "peer-q", "peer-r")
ALL = ENGINES + PEERS
MODELS = ("a", "b", "c")
ROUTES = {"a": "peers-first", "b": "fastest", "c": "local-first"}
HOLD = {"e": ("a", "b"), "f": ("b", "c"), "g": ("a", "c"), "peer-p": MODELS, "peer-q": ("a", "b"), "peer-r": ("b",)}
taken = 0


class Queue(RuleBasedStateMachine):
    """Three engines and three other computers that share three models; ``world`` is a scheduler with fake effects."""

    def __init__(self) -> None:
        super().__init__()
        self.engines = {name: MemoryEngine(name, HOLD[name], loads=name != "g", room=1) for name in ENGINES}
        self.engines |= {name: MemoryPeer(name.removeprefix("peer-"), HOLD[name]) for name in PEERS}
        self.accepted: dict[str, Job] = {}
        self.readers: dict[str, Listener] = {}
        self.tried: Counter[tuple[str, int, str]] = Counter()
        self.last_try: dict[str, int] = {}
        self.world = World(
            *(self.engines[name] for name in ENGINES),
            route=lambda model: ROUTES[model],
            jitter=lambda low, high: (low + high) / 2,
        )
        self.world.effects.on_start = self._started
        self.world.effects.stop = self._stopped  # type: ignore[method-assign] # seen, then as before

    def _started(self, job: Job, try_no: int) -> None:
        assert job.lane is not None
        assert not job.held, "started before it was stored"
        assert job.lane.in_flight <= job.lane.width, "more run at once than the lane is wide"
        local = job.lane.engine in ENGINES
        running = self.world.scheduler.mode is NodeMode.RUNNING
        assert running or not local, "started on this computer while paused or draining"
        assert local or job.origin is not Origin.PEER, "what came from a peer was sent on"
        assert local or self.world.registry.snapshots[job.lane.engine].mode.takes_work, "sent to a paused computer"
        assert job.decision is not None
        assert job.decision.chosen is not None
        assert (job.decision.chosen.engine, job.decision.chosen.model) == (job.lane.engine, job.lane_model)
        place = (job.id, job.attempt, job.lane.engine)
        self.tried[place] += 1
        assert self.tried[place] == 1, "a holder was tried twice in one round"
        nodes = {node for node, _ in job.tried if node != "here"}
        assert local or len(nodes) < PEERS_MAX, "a third computer was tried in one round"
        assert try_no > self.last_try.get(job.id, 0), "the try number did not grow"
        self.last_try[job.id] = try_no

    def _stopped(self, job: Job) -> None:
        """A job taken back from another computer's line may be sent there again."""
        assert job.lane is not None
        self.tried[job.id, job.attempt, job.lane.engine] -= 1

    def _some(self, pick: int, *, states: frozenset[JobState]) -> Job | None:
        jobs = [job for job in self.world.scheduler.jobs.values() if job.state in states]
        return jobs[pick % len(jobs)] if jobs else None

    # -- what clients do

    @initialize(count=st.integers(0, 6))
    def begin(self, count: int) -> None:
        for number in range(count):
            self._submit(MODELS[number % 3])

    def _submit(self, model: str, **changes: Any) -> None:
        job = self.world.job(model, **changes)
        try:
            self.world.scheduler.submit(job)
        except QuorumError:
            assert job.id not in self.world.scheduler.jobs
            return
        self.accepted[job.id] = job
        if job.id in self.world.scheduler.jobs:
            self.readers[job.id] = listening(job)

    @rule(
        model=st.sampled_from(MODELS),
        person=st.sampled_from(["", "anna", "ben"]),
        batch=st.booleans(),
        kind=st.sampled_from([Kind.CHAT, Kind.CHAT, Kind.EMBEDDING]),
        max_attempts=st.integers(1, 4),
        held=st.sampled_from([False, False, False, True]),
        origin=st.sampled_from([Origin.API, Origin.API, Origin.PEER]),
    )
    def submit(self, **job: Any) -> None:
        self._submit(**job)

    @rule(pick=st.integers(0, 99))
    def release(self, pick: int) -> None:
        """What a job waited for was stored, or is stored once more."""
        if self.accepted:
            self.world.scheduler.release(list(self.accepted.values())[pick % len(self.accepted)])

    @rule(pick=st.integers(0, 99))
    def cancel(self, pick: int) -> None:
        if self.accepted:
            job_id = list(self.accepted)[pick % len(self.accepted)]
            was = self.accepted[job_id].state
            cancelled = self.world.scheduler.cancel(job_id)
            assert (cancelled is not None) is was.live
            assert self.world.scheduler.cancel(job_id) is None

    @rule(pick=st.integers(0, 99))
    def to_front(self, pick: int) -> None:
        if (job := self._some(pick, states=frozenset({JobState.QUEUED}))) is not None:
            self.world.scheduler.to_front(job.id)

    # -- what engines do

    @rule(pick=st.integers(0, 99))
    def loaded(self, pick: int) -> None:
        job = self._some(pick, states=frozenset({JobState.LOADING}))
        if job is not None and job.lane is not None and job.lane.engine in self.world.registry.engines:
            self.world.load(job)

    @rule(pick=st.integers(0, 99), tokens=st.integers(0, 9))
    def done(self, pick: int, tokens: int) -> None:
        if (job := self._some(pick, states=frozenset({JobState.WORKING}))) is not None:
            self.world.scheduler.finished(job, job.try_no, Outcome(Result.DONE, completion_tokens=tokens))

    @rule(pick=st.integers(0, 99), crashed=st.booleans())
    def fail(self, pick: int, crashed: bool) -> None:
        if (job := self._some(pick, states=frozenset({JobState.LOADING, JobState.WORKING}))) is not None:
            self.world.fail(job, crashed=crashed)

    @rule(pick=st.integers(0, 99), result=st.sampled_from([Result.REJECTED, Result.INTERRUPTED]))
    def end_for_good(self, pick: int, result: Result) -> None:
        if (job := self._some(pick, states=frozenset({JobState.WORKING}))) is not None:
            self.world.end(job, result)

    @rule(pick=st.integers(0, 99), back=st.integers(1, 3), result=st.sampled_from(Result))
    def a_zombie_reports(self, pick: int, back: int, result: Result) -> None:
        if self.accepted:
            job = list(self.accepted.values())[pick % len(self.accepted)]
            before = (job.state, job.try_no, len(job.tries))
            self.world.scheduler.finished(job, job.try_no - back, Outcome(result, FAULT))
            self.world.scheduler.loaded(job, job.try_no - back)
            assert (job.state, job.try_no, len(job.tries)) == before

    @rule(name=st.sampled_from(ALL))
    def vanish(self, name: str) -> None:
        self.world.registry.remove(name)

    @rule(name=st.sampled_from(ALL))
    def appear(self, name: str) -> None:
        if name not in self.world.registry.engines:
            self.engines[name].resident = []
            self.world.appear(self.engines[name])

    @rule(name=st.sampled_from(ALL), ready=st.booleans())
    def look(self, name: str, ready: bool) -> None:
        if name in self.world.registry.engines:
            self.world.look(self.engines[name], ready=ready)

    # -- what other computers do

    @rule(
        name=st.sampled_from(PEERS), mode=st.sampled_from([NodeMode.RUNNING, NodeMode.PAUSED]), jobs=st.integers(0, 3)
    )
    def tells(self, name: str, mode: NodeMode, jobs: int) -> None:
        peer = self.engines[name]
        assert isinstance(peer, MemoryPeer)
        peer.mode, peer.in_flight = mode, jobs
        if name in self.world.registry.engines:
            self.world.look(peer)

    @rule(pick=st.integers(0, 99), state=st.sampled_from([JobState.QUEUED, JobState.LOADING, JobState.WORKING]))
    def hears(self, pick: int, state: JobState) -> None:
        """How a job stands at the computer it was sent to."""
        job = self._some(pick, states=frozenset({JobState.WORKING}))
        if job is not None and job.lane is not None and job.lane.engine in PEERS:
            self.world.scheduler.heard(job, job.try_no, State(state=state))

    @rule(name=st.sampled_from(PEERS), model=st.sampled_from(MODELS), failure=st.sampled_from([*Failure, None]))
    def fares(self, name: str, model: str, failure: Failure | None) -> None:
        health = self.world.registry.health
        if failure is None:
            health.succeeded(name, model)
        else:
            health.failed(name, model, failure)

    # -- what people and time do

    @rule(mode=st.sampled_from([NodeMode.RUNNING, NodeMode.RUNNING, NodeMode.PAUSED, NodeMode.DRAINING]))
    def set_mode(self, mode: NodeMode) -> None:
        self.world.scheduler.set_mode(mode)

    @rule(name=st.sampled_from(ALL), width=st.integers(1, 4))
    def set_width(self, name: str, width: int) -> None:
        self.world.width[name] = width
        self.world.scheduler.refresh()

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 61.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @precondition(lambda self: self.world.effects.timers)
    @rule(seconds=st.sampled_from([-86_400.0, -1.0, 3600.0]))
    def jump(self, seconds: float) -> None:
        self.world.clock.jump(seconds)

    # -- what must always be so

    @invariant()
    def every_accepted_job_is_in_exactly_one_state(self) -> None:
        global taken
        taken += 1
        live = self.world.scheduler.jobs
        ended = Counter(job.id for job in self.world.ended)
        assert set(live) | set(ended) == set(self.accepted)
        assert not set(live) & set(ended)
        assert set(ended.values()) <= {1}, "a job ended twice"
        for job in self.accepted.values():
            assert job.state.live is (job.id in live)
            reader = self.readers.get(job.id)
            assert reader is None or len(reader.ends) == (job.id in ended)

    @invariant()
    def leases_are_the_running_jobs(self) -> None:
        scheduler = self.world.scheduler
        running = [job for job in scheduler.jobs.values() if job.state.running]
        assert scheduler.running == len(running)
        held = Counter(id(job.lane) for job in running)
        waits = Counter(id(job.lane) for job in scheduler.jobs.values() if job.ticket)
        for lane in scheduler.lanes.values():
            assert lane.in_flight == held.pop(id(lane), 0)
            assert lane.waiting == waits.pop(id(lane), 0)
            assert lane.waiting >= 0
        assert not held, "a job runs in a lane that nobody knows"
        assert not waits, "a job waits in a lane that nobody knows"
        used = Counter((job.lane.engine, job.lane_model) for job in running if job.lane is not None)
        counted = {key: one.in_flight for key, one in self.world.registry.replicas._known.items() if one.in_flight}
        assert counted == used

    @invariant()
    def nobody_waits_while_there_is_room(self) -> None:
        scheduler = self.world.scheduler
        for lane in scheduler.lanes.values():
            if scheduler.mode.takes_work or lane.engine in PEERS:
                assert not lane.waiting or not lane.free
        if scheduler.mode in (NodeMode.DRAINING, NodeMode.DRAINED):
            assert (scheduler.mode is NodeMode.DRAINED) is (scheduler.running_here == 0)
        for (engine, embedding), lane in scheduler.lanes.items():
            if engine in self.world.registry.engines:
                width = self.world.width[engine]
                if not embedding:
                    width = max(1, width - self.world.registry.others(engine))
                assert lane.width == (max(width, EMBEDDING_WIDTH) if embedding else width)

    @invariant()
    def a_job_that_waits_is_in_a_lane_or_has_a_timer(self) -> None:
        queued = [job for job in self.world.scheduler.jobs.values() if job.state is JobState.QUEUED]
        waiting = [job for job in queued if not job.held]
        assert not any(job.ticket for job in queued if job.held)
        assert sum(not job.ticket for job in waiting) <= len(self.world.effects.timers)
        for job in waiting:
            assert job.attempt < job.max_attempts

    def teardown(self) -> None:
        """However it went: with engines back and time enough every accepted job ends, and ends once."""
        for name in ENGINES:
            self.appear(name)
            self.look(name, True)
        for name in PEERS:
            self.tells(name, NodeMode.RUNNING, 0)
        self.world.scheduler.set_mode(NodeMode.RUNNING)
        for job in self.accepted.values():
            self.world.scheduler.release(job)
        for _ in range(500):
            if not self.world.scheduler.jobs:
                break
            self.world.run_all(take_s=0.1)
            self.world.pass_time(61)
        assert not self.world.scheduler.jobs, "a job was lost on its way"
        self.every_accepted_job_is_in_exactly_one_state()
        self.leases_are_the_running_jobs()


def test_ten_thousand_steps_lose_no_job_and_double_none() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Queue,
        settings=settings(
            max_examples=400,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
    assert taken >= STEPS_MIN, f"only {taken} steps were taken"
