"""A model that stops the engine is set aside; a job that does is not blamed on the model."""

from __future__ import annotations

from router.engines.quarantine import Quarantine


def jobs(*names: str) -> frozenset[str]:
    return frozenset(names)


def test_two_crashes_while_loading_quarantine_the_file() -> None:
    quarantine = Quarantine()
    quarantine.crashed_loading("file", 0.0)
    assert quarantine.problem("file") == ""
    quarantine.crashed_loading("file", 1.0)
    assert "2 times while loading" in quarantine.problem("file")
    assert quarantine.problem("changed file") == ""


def test_crashes_under_two_different_jobs_quarantine_the_file() -> None:
    quarantine = Quarantine()
    quarantine.crashed_working("file", jobs("one"), 0.0)
    quarantine.crashed_working("file", jobs("two"), 1.0)
    assert "2 times while it answered" in quarantine.problem("file")


def test_one_job_that_crashes_it_again_and_again_does_not() -> None:
    quarantine = Quarantine()
    for at in range(3):
        quarantine.crashed_working("file", jobs("poison", f"beside-{at}"), float(at))
    assert quarantine.problem("file") == ""


def test_one_crash_with_two_jobs_is_one_crash_and_an_idle_death_blames_nobody() -> None:
    quarantine = Quarantine()
    quarantine.crashed_working("file", jobs("one", "two"), 0.0)
    quarantine.crashed_working("file", jobs(), 1.0)
    quarantine.crashed_working("file", jobs(), 2.0)
    assert quarantine.problem("file") == ""


def test_forgiving_begins_afresh() -> None:
    quarantine = Quarantine()
    quarantine.crashed_loading("file", 0.0)
    quarantine.crashed_loading("file", 0.0)
    quarantine.forgive("file")
    assert quarantine.problem("file") == ""
    assert quarantine.pause_s("file", 0.0) == 0.0


def test_the_pause_before_a_new_start_grows_and_ends_with_an_answer() -> None:
    quarantine = Quarantine()
    assert quarantine.pause_s("file", 0.0) == 0.0
    pauses = []
    for _ in range(9):
        quarantine.crashed_working("file", jobs("one"), 100.0)
        pauses.append(quarantine.pause_s("file", 100.0))
    assert pauses == [0, 1, 2, 4, 8, 16, 30, 30, 30]
    assert quarantine.pause_s("file", 125.0) == 5.0
    quarantine.worked("file")
    assert quarantine.pause_s("file", 100.0) == 0.0
