"""The order that is shown is the order in which jobs are taken."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import example, given
from hypothesis import strategies as st

from router.jobs import Job
from router.lanes import Lane
from router.line import FORESEEN
from tests.fakes import make_job

SECONDS = {"a": 1.0, "b": 7.0, "c": 25.0}
LOAD_S = 4.0


def takes_s(job: Job, cold: bool) -> float:
    return SECONDS[job.lane_model] + (LOAD_S if cold else 0.0)


class Machine:
    """One engine that holds one model, or several until the next load, and a lane whose jobs take their time."""

    def __init__(self, resident: set[str]) -> None:
        self.lane = Lane("e", 1)
        self.resident = resident
        self.now = 1000.0
        self._seq = 0

    def add(self, model: str, person: str, batch: bool) -> Job:
        self._seq += 1
        job = make_job(self._seq, model, person=person, batch=batch, lane_model=model)
        self.lane.add(job)
        return job

    def take(self) -> Job | None:
        """The next job runs to its end."""
        job = self.lane.pick(self.resident.__contains__, self.now)
        if job is not None:
            cold = job.lane_model not in self.resident
            self.resident = {job.lane_model} if cold else self.resident
            self.now += takes_s(job, cold)
        return job

    def shown(self) -> list[str]:
        return [job.id for job in self.lane.order(self.resident.__contains__, self.now, takes_s)]

    def drained(self) -> Iterator[str]:
        while (job := self.take()) is not None:
            yield job.id


JOB = st.tuples(st.sampled_from("abc"), st.sampled_from(["anna", "ben", "chris"]), st.booleans())
STEP = st.one_of(JOB, JOB, st.sampled_from(["take", "cancel", "front"]))


@given(st.sets(st.sampled_from("abc")), st.lists(STEP, max_size=60), st.data())
@example({"a"}, [("a", "anna", False)] * 3 + [("a", "ben", False)], None)
def test_the_order_shown_is_the_order_taken_when_nobody_comes(
    resident: set[str], steps: list[str | tuple[str, str, bool]], data: st.DataObject | None
) -> None:
    machine = Machine(resident)
    waiting: list[Job] = []
    for step in steps:
        waiting = [job for job in waiting if job.ticket]
        if isinstance(step, tuple):
            waiting.append(machine.add(*step))
        elif step == "take":
            machine.take()
        elif waiting and data is not None:
            job = data.draw(st.sampled_from(waiting))
            (machine.lane.remove if step == "cancel" else machine.lane.to_front)(job)

    shown = machine.shown()

    assert shown == list(machine.drained())


def test_looking_changes_nothing() -> None:
    machine = Machine({"a"})
    for number in range(30):
        machine.add("ab"[number % 2], ["anna", "ben"][number % 3 == 0], number % 5 == 0)
    assert machine.shown() == machine.shown() == list(machine.drained())


def test_who_starves_is_shown_where_they_will_be_taken() -> None:
    machine = Machine({"c"})
    passed_over = machine.add("a", "anna", batch=True)
    late = [machine.add("c", "ben", batch=False) for _ in range(6)]  # 25 s each
    expected = [*(job.id for job in late[:3]), passed_over.id, *(job.id for job in late[3:])]
    assert machine.shown() == expected


def test_a_very_long_line_is_told_whole_and_its_next_thousand_exactly() -> None:
    machine = Machine({"a"})
    jobs = [machine.add("abc"[n % 3], f"p{n % 7}", batch=True) for n in range(10_000)]
    shown = machine.shown()
    assert sorted(shown) == sorted(job.id for job in jobs)
    taken = machine.drained()
    assert shown[:FORESEEN] == [next(taken) for _ in range(FORESEEN)]


def test_computers_of_one_name_and_a_key_called_like_them_take_turns() -> None:
    machine = Machine({"a"})
    many = [machine.add("a", "laptop", False) for _ in range(3)]
    others = [make_job(10 + number, "a", person="laptop", lane_model="a", peer_try=(node, "j", 1))
              for number, node in enumerate(("n1", "n2"))]  # fmt: skip
    for job in others:
        machine.lane.add(job)
    assert list(machine.drained()) == [many[0].id, others[0].id, others[1].id, many[1].id, many[2].id]
