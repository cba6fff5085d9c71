"""How many jobs may wait, of all persons and of one."""

from __future__ import annotations

import pytest

from router.admission import INTERACTIVE_MAX, LONGEST_S, OWN_MAX, SPARE, Admission
from router.errors import QueueFullError
from tests.fakes import make_job

TURN_S = 2.0


def waiting(**persons: int) -> Admission:
    admission = Admission()
    for person, count in persons.items():
        for _ in range(count):
            admission.came(make_job(person=person))
    return admission


def refusal(admission: Admission, person: str) -> float | None:
    """When to come back; None: it is let in."""
    try:
        admission.require(make_job(person=person), lambda: TURN_S)
    except QueueFullError as error:
        return error.retry_after_s
    return None


def test_a_lone_person_may_use_the_whole_queue() -> None:
    assert refusal(waiting(anna=INTERACTIVE_MAX - 1), "anna") is None
    assert refusal(waiting(anna=INTERACTIVE_MAX), "anna") == TURN_S


def test_in_a_full_queue_everybody_else_has_places_of_their_own() -> None:
    assert refusal(waiting(anna=INTERACTIVE_MAX), "ben") is None
    assert refusal(waiting(anna=INTERACTIVE_MAX, ben=OWN_MAX - 1), "ben") is None
    assert refusal(waiting(anna=INTERACTIVE_MAX, ben=OWN_MAX), "ben") == TURN_S


def test_the_places_of_all_together_have_a_bound() -> None:
    persons = {f"p{number}": OWN_MAX for number in range(SPARE // OWN_MAX)}
    assert refusal(waiting(anna=INTERACTIVE_MAX, **persons), "ben") is not None
    assert refusal(waiting(anna=INTERACTIVE_MAX - 1, **persons), "ben") is None


def test_the_time_to_come_back_counts_the_turns_until_there_is_a_place() -> None:
    beyond = waiting(anna=INTERACTIVE_MAX, ben=20, chris=20)
    assert refusal(beyond, "anna") == 41 * TURN_S
    assert refusal(waiting(anna=INTERACTIVE_MAX, ben=OWN_MAX + 2), "ben") == 3 * TURN_S
    assert refusal(waiting(anna=INTERACTIVE_MAX + SPARE), "anna") == LONGEST_S


def test_the_classes_have_bounds_of_their_own() -> None:
    admission = waiting(anna=INTERACTIVE_MAX)
    admission.require(make_job(person="anna", batch=True), lambda: TURN_S)
    with pytest.raises(QueueFullError):
        admission.require(make_job(person="anna"), lambda: TURN_S)


def test_who_leaves_gives_the_place_back() -> None:
    admission, job = Admission(), make_job(person="anna")
    for _ in range(INTERACTIVE_MAX):
        admission.came(job)
    admission.left(job)
    assert refusal(admission, "anna") is None
    for _ in range(INTERACTIVE_MAX - 1):
        admission.left(job)
    assert refusal(admission, "anna") is None
