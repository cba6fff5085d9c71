"""The order in which waiting jobs run on one engine."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from hypothesis import given
from hypothesis import strategies as st

from router.jobs import Job
from router.lanes import Lane
from router.line import PASSED_OVER_MAX, PASSED_OVER_S
from tests.fakes import make_job


def lane_of(*jobs: Job, width: int = 1) -> Lane:
    lane = Lane("e", width)
    for job in jobs:
        job.lane_model = job.model
        lane.add(job)
    return lane


def pick(lane: Lane, *resident: str, now: float = 0.0) -> Job | None:
    return lane.pick(lambda model: model in resident, now)


def drain(lane: Lane, resident: Collection[str] = (), now: float = 0.0) -> Iterator[Job]:
    """Pick all; each job's model is resident after it ran, alone."""
    warm = set(resident)
    while (job := lane.pick(warm.__contains__, now)) is not None:
        warm.clear()
        warm.add(job.model)
        yield job


def seqs(jobs: Collection[Job] | Iterator[Job]) -> list[int]:
    return [job.seq for job in jobs]


def test_jobs_of_one_model_run_in_the_order_of_their_rows() -> None:
    lane = lane_of(make_job(3), make_job(1), make_job(2))
    assert seqs(drain(lane)) == [1, 2, 3]
    assert (lane.waiting, pick(lane)) == (0, None)


def test_interactive_jobs_run_before_batch_ones_whatever_is_loaded() -> None:
    lane = lane_of(make_job(1, batch=True), make_job(2, "other"), make_job(3))
    assert seqs(drain(lane, {"m"})) == [3, 2, 1]


def test_the_loaded_model_is_drained_before_a_swap() -> None:
    lane = lane_of(make_job(1, "a"), make_job(2, "b"), make_job(3, "a"), make_job(4, "b"))
    assert seqs(drain(lane, {"b"})) == [2, 4, 1, 3]


def test_a_hundred_jobs_alternating_between_two_models_need_two_loads() -> None:
    lane = lane_of(*(make_job(n, "ab"[n % 2]) for n in range(100)))
    models = [job.model for job in drain(lane)]
    assert models == ["a"] * 50 + ["b"] * 50


def test_the_swaps_of_a_mixed_queue_are_its_distinct_models() -> None:
    lane = lane_of(*(make_job(n, "abcde"[n % 5]) for n in range(500)))
    models = [job.model for job in drain(lane, {"c"})]
    assert sum(one != next_one for one, next_one in zip(["c", *models], models, strict=False)) == 4


def test_newcomers_for_the_loaded_model_pass_a_waiting_job_sixteen_times_and_no_more() -> None:
    lane = lane_of(make_job(1, "b"), make_job(2, "a"))
    ran = []
    for seq in range(3, 60):
        job = pick(lane, "a")
        assert job is not None
        ran.append(job.model)
        if job.model == "b":
            break
        late = make_job(seq, "a", lane_model="a")
        lane.add(late)
    assert ran == ["a"] * (1 + PASSED_OVER_MAX) + ["b"]  # the one that waited already, then the newcomers


def test_a_job_passed_over_for_sixty_seconds_goes_first() -> None:
    lane = lane_of(make_job(1, "b"), *(make_job(n, "a") for n in range(2, 20)))
    assert pick(lane, "a", now=100.0).model == "a"  # type: ignore[union-attr]
    assert pick(lane, "a", now=100.0 + PASSED_OVER_S - 0.1).model == "a"  # type: ignore[union-attr]
    assert pick(lane, "a", now=100.0 + PASSED_OVER_S).seq == 1  # type: ignore[union-attr]
    assert pick(lane, "a", now=100.0 + PASSED_OVER_S).model == "a"  # type: ignore[union-attr]


def test_a_batch_job_is_not_starved_by_newcomers_that_are_interactive() -> None:
    lane = lane_of(make_job(1, batch=True), make_job(2))
    ran = []
    for seq in range(3, 60):
        job = pick(lane, "m")
        assert job is not None
        if job.batch:
            break
        ran.append(job.seq)
        lane.add(make_job(seq, lane_model="m"))
    assert len(ran) == 1 + PASSED_OVER_MAX


def test_a_job_that_only_older_ones_precede_is_not_passed_over() -> None:
    lane = lane_of(*(make_job(n, "a") for n in range(1, 40)), make_job(50, "b"), make_job(60, "a"))
    assert seqs(drain(lane, {"a"}))[-3:] == [39, 60, 50]


def test_one_persons_hundred_jobs_do_not_make_another_person_wait() -> None:
    many = [make_job(n, person="anna") for n in range(100)]
    lane = lane_of(*many, make_job(200, person="ben"), make_job(201, person="ben"))
    assert [pick(lane, "m").person for _ in range(5)] == ["anna", "ben", "anna", "ben", "anna"]  # type: ignore[union-attr]


def test_turns_go_by_person_and_not_by_persons_and_models() -> None:
    jobs = [make_job(n, "ab"[n % 2], person="anna") for n in range(20)]
    jobs += [make_job(100 + n, "a", person="ben") for n in range(10)]
    lane = lane_of(*jobs)
    first = [pick(lane, "a", "b").person for _ in range(10)]  # type: ignore[union-attr]
    assert first.count("ben") == 5


def test_sixty_persons_each_get_a_turn_before_anyone_gets_a_second() -> None:
    lane = lane_of(*(make_job(60 * n + who, person=f"p{who}") for who in range(60) for n in range(3)))
    for _ in range(3):
        assert len({pick(lane, "m").person for _ in range(60)}) == 60  # type: ignore[union-attr]


def test_a_job_moved_to_the_front_is_the_very_next_whatever_is_loaded_or_starved() -> None:
    jobs = [make_job(n, "a") for n in range(1, 5)]
    batch, other = make_job(8, "b", batch=True), make_job(9, "c")
    lane = lane_of(*jobs, batch, other)
    pick(lane, "b", now=0.0)
    lane.to_front(other)
    lane.to_front(batch)
    assert [job.seq for job in lane.order(lambda model: model == "a")][:2] == [batch.seq, other.seq]
    assert pick(lane, "a", now=1000.0) is batch
    assert pick(lane, "a", now=1000.0) is other
    assert lane.waiting == 3


def test_a_removed_job_never_runs_and_is_counted_once() -> None:
    one, two = make_job(1), make_job(2)
    lane = lane_of(one, two)
    lane.remove(one)
    lane.remove(one)
    assert lane.waiting == 1
    lane.to_front(one)  # it does not wait: nothing happens
    assert seqs(drain(lane)) == [2]
    lane.remove(two)
    assert lane.waiting == 0


def test_a_job_that_comes_back_takes_its_old_place() -> None:
    first, second = make_job(1), make_job(2)
    lane = lane_of(first, second)
    assert pick(lane) is first
    lane.add(first)
    assert seqs(drain(lane)) == [1, 2]


def test_a_job_of_another_lane_is_left_alone() -> None:
    job = make_job(1)
    mine, other = lane_of(job), lane_of(make_job(2))
    other.remove(job)
    other.to_front(job)
    assert (mine.waiting, other.waiting, pick(mine)) == (1, 1, job)


def test_a_job_that_moved_to_another_lane_is_not_picked_in_the_first() -> None:
    job, other = make_job(1), make_job(2)
    first = lane_of(job, other)
    first.remove(job)
    second = lane_of(job)
    assert list(first.order(lambda _: True)) == [other]
    assert (pick(first), pick(first), pick(second)) == (other, None, job)


def test_a_lane_is_free_below_its_width() -> None:
    lane = Lane("e", 2)
    for in_flight, free in ((0, True), (1, True), (2, False), (3, False)):
        lane.in_flight = in_flight
        assert lane.free is free


JOBS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["anna", "ben"]), st.booleans(), st.booleans()), max_size=40
)


@given(JOBS, st.data())
def test_every_job_added_is_picked_exactly_once_and_every_removed_one_never(
    wanted: list[tuple[str, str, bool, bool]], data: st.DataObject
) -> None:
    jobs = [make_job(n, model, person=who, batch=batch) for n, (model, who, batch, _) in enumerate(wanted)]
    lane = lane_of(*jobs)
    gone = {job.id for job, (*_, removed) in zip(jobs, wanted, strict=True) if removed}
    for job in jobs:
        if job.id in gone:
            lane.remove(job)
    assert lane.waiting == len(jobs) - len(gone)
    assert {job.id for job in lane.order(lambda _: False)} == {job.id for job in jobs} - gone
    now, picked = 0.0, []
    while (job := pick(lane, data.draw(st.sampled_from("abc")), now=now)) is not None:
        picked.append(job.id)
        now += data.draw(st.sampled_from([0.0, 1.0, 61.0]))
    assert sorted(picked) == sorted({job.id for job in jobs} - gone)
    assert lane.waiting == 0
