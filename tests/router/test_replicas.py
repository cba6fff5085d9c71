"""Loaded copies: what runs on them, memory set aside for those on their way, and who hears that one is gone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.replicas import Replicas


@pytest.fixture
def gone() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def replicas(gone: list[tuple[str, str]]) -> Replicas:
    made = Replicas()
    made.on_removed.append(lambda engine, model: gone.append((engine, model)))
    return made


# -- memory set aside


def test_memory_is_set_aside_with_the_lease_and_once_for_all_that_wait_for_one_load(replicas: Replicas) -> None:
    replicas.lease("p", "m", 1.0, 100)
    replicas.lease("p", "m", 2.0, 100)
    replicas.lease("p", "n", 3.0, 10)
    replicas.lease("q", "m", 4.0, 1)
    assert (replicas.reserved_bytes("p"), replicas.reserved_bytes("q")) == (110, 1)


def test_the_next_word_of_the_computer_clears_it(replicas: Replicas) -> None:
    replicas.lease("p", "m", 1.0, 100)
    replicas.lease("q", "m", 1.0, 5)
    replicas.see("p", [])
    assert (replicas.reserved_bytes("p"), replicas.reserved_bytes("q")) == (0, 5)


def test_a_job_that_failed_gives_it_back(replicas: Replicas) -> None:
    replicas.lease("p", "m", 1.0, 100)
    replicas.lease("p", "m", 1.0, 100)
    replicas.release("p", "m", 2.0)
    assert replicas.reserved_bytes("p") == 100
    replicas.release("p", "m", 3.0)
    assert replicas.reserved_bytes("p") == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["lease", "release", "see", "clear", "forget", "sweep"]),
        st.sampled_from("pq"),
        st.sampled_from("mn"),
        st.integers(0, 9),
    ),
    max_size=60,
)


@given(STEPS)
def test_nothing_is_ever_counted_below_zero(steps: list[tuple[str, str, str, int]]) -> None:
    replicas, leases = Replicas(), {"p": 0, "q": 0}
    for step, engine, model, size in steps:
        match step:
            case "lease":
                replicas.lease(engine, model, 1.0, size)
                leases[engine] += 1
            case "release":
                before = replicas.get(engine, model).in_flight
                replicas.release(engine, model, 1.0)
                leases[engine] -= before > 0
            case "see":
                replicas.see(engine, [model])
            case "clear":
                replicas.clear(engine)
            case "forget":
                replicas.forget(engine)
            case "sweep":
                replicas.sweep(engine)
                leases[engine] = 0
        assert replicas.reserved_bytes(engine) >= 0
        assert replicas.in_flight(engine) == leases[engine] >= 0


# -- copies that go


def test_every_cache_that_depends_on_a_copy_hears_once_that_it_is_gone(
    replicas: Replicas, gone: list[tuple[str, str]]
) -> None:
    second: list[str] = []
    replicas.on_removed.append(lambda engine, model: second.append(model))
    replicas.see("p", ["m", "n"])
    replicas.see("q", ["m"])
    assert gone == []
    replicas.see("p", ["n"])
    replicas.see("p", ["n"])
    assert (gone, second) == ([("p", "m")], ["m"])


@pytest.mark.parametrize("away", ["clear", "forget"])
def test_an_engine_that_goes_takes_all_its_copies_along(
    replicas: Replicas, gone: list[tuple[str, str]], away: str
) -> None:
    replicas.see("p", ["m", "n"])
    replicas.lease("p", "m", 1.0)
    getattr(replicas, away)("p")
    assert sorted(gone) == [("p", "m"), ("p", "n")]
    assert replicas.in_flight("p") == 1, "what runs is counted to its end"


def test_a_listener_that_fails_keeps_nobody_else_from_hearing(replicas: Replicas, gone: list[tuple[str, str]]) -> None:
    def broken(engine: str, model: str) -> None:
        raise RuntimeError

    replicas.on_removed.insert(0, broken)
    replicas.see("p", ["m"])
    replicas.see("p", [])
    assert gone == [("p", "m")]


def test_a_copy_that_comes_back_can_go_again(replicas: Replicas, gone: list[tuple[str, str]]) -> None:
    for loaded in (["m"], [], ["m"], []):
        replicas.see("p", loaded)
    assert gone == [("p", "m"), ("p", "m")]


def test_what_was_swept_is_not_given_back_again(replicas: Replicas) -> None:
    replicas.lease("p", "m", 1.0, 7)
    replicas.sweep("p")
    replicas.release("p", "m", 2.0)
    assert (replicas.in_flight("p"), replicas.reserved_bytes("p")) == (0, 0)
