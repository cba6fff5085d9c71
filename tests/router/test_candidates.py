"""Who may run a job: two other computers a round, then this one; what comes from a peer stays here."""

from __future__ import annotations

import pytest

from router.engines.base import Kind
from router.errors import BadRequestError, ModelNotFoundError, QuorumError
from router.health import BUDGET_LEAST, Failure
from router.jobs import Job, Origin
from router.prediction import Speed
from router.states import JobState, NodeMode
from tests.fakes import MemoryEngine
from tests.fakes_peer import MemoryPeer
from tests.world import World

FAILED, QUEUED, WORKING = JobState.FAILED, JobState.QUEUED, JobState.WORKING


def own() -> MemoryEngine:
    return MemoryEngine(loads=False)


def peers(count: int) -> list[MemoryPeer]:
    return [MemoryPeer(f"p{number}") for number in range(1, count + 1)]


def at(job: Job) -> str:
    assert job.lane is not None
    return job.lane.engine


def words(job: Job) -> dict[str, str]:
    assert job.decision is not None
    return {verdict.engine: verdict.verdict for verdict in job.decision.verdicts}


def test_another_computer_serves_first_and_this_one_last() -> None:
    world = World(own(), *peers(2))
    jobs = [world.submit() for _ in range(3)]
    assert [at(job) for job in jobs] == ["peer-p1", "peer-p2", "e"]
    assert [job.state for job in jobs] == [WORKING] * 3


def test_two_other_computers_are_tried_once_each_then_this_one() -> None:
    world = World(own(), *peers(4))
    job = world.submit()
    for _ in range(2):
        world.fail(job)
    assert (at(job), job.state, job.attempt) == ("e", WORKING, 0)
    assert sorted(words(job).values()) == ["tried", "tried", "unfit", "unfit", "warm"]
    world.end(job)
    assert job.receipt is not None
    assert [(seen.engine, seen.result) for seen in job.receipt.tries] == [
        ("peer-p1", "engine_failed"),
        ("peer-p2", "engine_failed"),
        ("e", "ok"),
    ]
    assert (job.receipt.node, job.receipt.engine) == ("here", "e")


def test_all_computers_bad_is_a_new_round_later() -> None:
    world = World(own(), *peers(2))
    job = world.submit()
    for _ in range(3):
        world.fail(job)
    assert (job.state, job.attempt, job.tried) == (QUEUED, 1, set())
    world.pass_time(1)
    assert at(job) == "peer-p1"


def test_with_the_budget_of_retries_spent_this_computer_is_next() -> None:
    world = World(own(), *peers(2))
    for _ in range(BUDGET_LEAST):
        world.registry.health.budget.retry()
    job = world.submit()
    assert at(job) == "peer-p1"
    world.fail(job)
    assert at(job) == "e"
    assert words(job) == {"peer-p1": "tried", "peer-p2": "unfit", "e": "warm"}


def test_retries_at_other_computers_spend_the_budget_and_those_here_do_not() -> None:
    world = World(own(), *peers(2))
    for _ in range(BUDGET_LEAST):
        assert not world.registry.health.budget.spent
        job = world.submit()
        world.fail(job)
        world.end(job)
    assert world.registry.health.budget.spent


@pytest.mark.parametrize("mode", [NodeMode.RUNNING, NodeMode.PAUSED])
def test_what_comes_from_a_peer_is_never_sent_on(mode: NodeMode) -> None:
    world = World(own(), *peers(1))
    world.scheduler.set_mode(mode)
    job = world.submit(origin=Origin.PEER)
    assert at(job) == "e"
    lone = World(*peers(1))
    with pytest.raises(ModelNotFoundError):
        lone.submit(origin=Origin.PEER)
    assert lone.scheduler.jobs == {}


def test_an_ejected_computer_gets_one_trial_when_its_time_is_over() -> None:
    world = World(own(), peer := MemoryPeer(width=4))
    world.registry.health.failed(peer.id, "m", Failure.SILENT, "It did not answer.")
    assert [at(world.submit()), words(world.running[0])] == ["e", {"e": "warm", "peer-p": "unhealthy"}]
    world.pass_time(5)
    trial, other = world.submit(), world.submit()
    assert (at(trial), at(other), other.state) == (peer.id, "e", QUEUED)
    world.registry.health.succeeded(peer.id, "m")
    assert (at(other), other.state) == (peer.id, WORKING)


def test_a_computer_that_is_full_with_the_jobs_of_others_is_busy_not_dead() -> None:
    world = World(peer := MemoryPeer(width=2))
    peer.in_flight = 2
    world.look(peer)
    first, second = world.submit(), world.submit()
    assert words(first) == {peer.id: "busy"}
    assert (first.state, second.state) == (WORKING, QUEUED), "one stands in its line, the others can still go elsewhere"
    peer.in_flight = 1
    world.look(peer)
    peer.in_flight = 2
    assert second.state is WORKING


def test_embeddings_at_another_computer_do_not_wait_for_the_chats_of_others() -> None:
    world = World(own(), peer := MemoryPeer(width=1))
    peer.in_flight = 1
    world.look(peer)
    assert at(world.submit(kind=Kind.EMBEDDING)) == peer.id
    assert at(world.submit()) == "e"


def test_a_request_that_nobody_can_take_says_why_of_each() -> None:
    world = World(one := MemoryPeer("p1"), two := MemoryPeer("p2"))
    world.look(one, ready=False, detail="It is offline.")
    two.mode = NodeMode.PAUSED
    world.look(two)
    with pytest.raises(QuorumError, match=r"It is offline.*peer-p1: unhealthy, peer-p2: paused") as raised:
        world.submit()
    assert raised.value.code == "no_holder_available"


def test_fastest_sends_to_whom_the_measured_speeds_favour_and_the_receipt_says_what_was_expected() -> None:
    here, quick, slow = own(), MemoryPeer("p1"), MemoryPeer("p2")
    quick.speeds, slow.speeds = {"m": Speed(1000.0, 200.0)}, {"m": Speed(1000.0, 1.0)}
    world = World(here, quick, slow, route="fastest")
    first = world.submit(body=b"x" * 400)
    assert at(first) == "e", "never measured, warm and free: it shows what it can"
    world.clock.advance(30)
    world.end(first, duration_s=30.0, ttft_s=1.0, prompt_tokens=100, completion_tokens=58, tokens_per_s=2.0)
    second = world.submit(body=b"x" * 400)
    assert (at(second), second.decision.reason if second.decision else "") == ("peer-p1", "soonest")
    world.clock.advance(1)
    world.end(second, duration_s=1.0)
    assert second.receipt is not None
    assert second.receipt.predicted is not None
    assert (second.receipt.predicted.prefill_s, second.receipt.predicted.decode_s) == (0.1, 0.29)
    said = {verdict.engine: verdict.predicted_s for verdict in second.receipt.verdicts}
    assert said == {"e": 30.0, "peer-p1": 0.39, "peer-p2": 58.1}


def test_a_job_that_waits_for_the_quickest_is_not_pulled_to_a_slow_one_that_is_free() -> None:
    quick, slow = MemoryPeer("p1"), MemoryPeer("p2")
    quick.speeds, slow.speeds = {"m": Speed(1000.0, 200.0)}, {"m": Speed(1000.0, 1.0)}
    world = World(quick, slow, route="fastest")
    first, second = world.submit(), world.submit()
    assert (at(first), at(second), second.state) == ("peer-p1", "peer-p1", QUEUED)
    world.look(slow, in_flight=0, version="2")
    assert (at(second), second.state) == ("peer-p1", QUEUED)
    world.end(first)
    assert (at(second), second.state) == ("peer-p1", WORKING)
    plain = World(MemoryPeer("p1"), MemoryPeer("p2"))
    assert {at(plain.submit()), at(plain.submit())} == {"peer-p1", "peer-p2"}


def test_a_receipt_gives_every_computer_its_verdict_also_those_that_do_not_hold_the_model() -> None:
    world = World(own(), MemoryPeer("p1"), MemoryPeer("p2", ("other",)))
    job = world.submit()
    world.end(job)
    assert job.receipt is not None
    said = {(verdict.node, verdict.verdict) for verdict in job.receipt.verdicts}
    assert said == {("here", "warm"), ("p1", "warm"), ("p2", "missing")}
    assert job.receipt.by_name


def test_what_is_expected_after_a_failover_is_of_the_one_that_served() -> None:
    one, two = MemoryPeer("p1"), MemoryPeer("p2")
    for peer in (one, two):
        peer.speeds = {"m": Speed(1000.0, 100.0)}
    world = World(one, two)
    job = world.submit()
    world.clock.advance(2.5)
    world.fail(job)
    world.end(job)
    assert job.receipt is not None
    assert job.receipt.predicted is not None
    assert (job.receipt.engine, job.receipt.predicted.after_s) == ("peer-p2", 2.5)
    assert job.receipt.reason == "peer-warm"


def test_the_expected_reuse_of_prompts_leaves_with_the_loaded_copy() -> None:
    world = World(here := own())
    here.resident = ["m"]
    world.look(here)
    job = world.submit()
    world.end(job, duration_s=1.0, prompt_tokens=100, cached_tokens=80, prefill_per_s=10.0, tokens_per_s=10.0)
    asked = world.submit()
    assert asked.decision is not None
    assert asked.decision.predicted is not None
    before_s = asked.decision.predicted.prefill_s
    here.resident = []
    world.look(here)
    world.end(asked)
    again = world.submit()
    assert again.decision is not None
    assert again.decision.predicted is not None
    assert again.decision.predicted.prefill_s > before_s


class BuiltIn(MemoryEngine):
    """An engine that knows what its models can do: answer text."""

    kind = "builtin"


def test_images_for_a_model_that_is_known_to_see_none_are_refused_at_once() -> None:
    world = World(BuiltIn())
    with pytest.raises(BadRequestError, match="'m' can't see images") as caught:
        world.submit(sees=True)
    assert (caught.value.status, world.scheduler.jobs) == (400, {})
    assert world.submit().state is JobState.LOADING


def test_images_go_to_the_holder_that_may_see_them() -> None:
    world = World(BuiltIn("e"), MemoryEngine("f"))
    job = world.submit(sees=True)
    assert (at(job), words(job)["e"]) == ("f", "unfit")
