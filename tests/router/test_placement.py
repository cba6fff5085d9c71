"""Who is chosen, why, and what is said of everybody else."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.placement import Decision, HolderView, Route, Word, place
from router.prediction import Need, Speed
from tests.fakes import view

Pair = tuple[str, str]


def words(decision: Decision) -> dict[str, str]:
    return {verdict.node: verdict.verdict for verdict in decision.verdicts}


def chosen(decision: Decision) -> str | None:
    return decision.chosen.node if decision.chosen else None


PEER_WARM, PEER_COLD = view("peer-w"), view("peer-c", warm=False)
HERE_WARM, HERE_COLD = view(), view(warm=False)


@pytest.mark.parametrize(
    ("route", "order"),
    [
        (Route.PEERS_FIRST, ["peer-warm", "local-warm", "peer-cold", "local-cold"]),
        (Route.LOCAL_FIRST, ["local-warm", "local-cold", "peer-warm", "peer-cold"]),
        (Route.FASTEST, ["peer-warm", "local-warm", "peer-cold", "local-cold"]),
        ("", ["peer-warm", "local-warm", "peer-cold", "local-cold"]),
    ],
)
def test_each_policy_takes_the_first_free_class_of_its_order(route: str, order: list[str]) -> None:
    holders = {
        "peer-warm": view("p1"),
        "peer-cold": view("p2", warm=False),
        "local-warm": view("here", "warm"),
        "local-cold": view("here", "cold", warm=False),
    }
    while holders:
        if len(holders) == 1:
            holders["full"] = view("p9", in_flight=1)  # so that there is something to compare
        best = next(reason for reason in order if reason in holders)
        decision = place(list(holders.values()), route=route)
        assert (decision.reason, decision.chosen) == (best, holders[best])
        del holders[best]
        holders.pop("full", None)


def test_every_candidate_gets_its_verdict() -> None:
    blocked = [word for word in Word if word not in (Word.WARM, Word.COLD, Word.BUSY, Word.TRIED)]
    views = [
        view("warm"),
        view("cold", warm=False),
        view("busy", in_flight=1),
        view("tried"),
        *(view(word, blocked=word, detail=f"because {word}") for word in blocked),
    ]
    decision = place(views, frozenset({("tried", "e")}))
    assert words(decision) == {word.value: word.value for word in Word}
    assert {verdict.detail for verdict in decision.verdicts} == {"", *(f"because {word}" for word in blocked)}


@pytest.mark.parametrize("word", [w for w in Word if w not in (Word.WARM, Word.COLD, Word.BUSY, Word.TRIED)])
def test_a_blocked_holder_is_never_chosen_while_another_can_serve(word: Word) -> None:
    for other in (PEER_WARM, PEER_COLD, HERE_WARM, HERE_COLD, view(in_flight=5, waiting=5)):
        assert place([view("x", blocked=word), other]).chosen == other
        assert place([other, view("here", "f", blocked=word)]).chosen == other


@pytest.mark.parametrize("word", [Word.PAUSED, Word.DRAINING])
def test_a_job_waits_here_while_this_computer_is_paused_or_draining(word: Word) -> None:
    here = view(blocked=word)
    for views in ([here], [view("p", blocked=Word.UNHEALTHY), here]):
        decision = place(views)
        assert (decision.chosen, decision.reason) == (here, f"waits-{word}")
        assert words(decision)["here"] == word


def test_a_paused_peer_keeps_nothing() -> None:
    assert place([view("p", blocked=Word.PAUSED)]).chosen is None
    assert place([view("p", blocked=Word.PAUSED), view("q", blocked=Word.DRAINING)]).chosen is None


@pytest.mark.parametrize("word", [Word.MISSING, Word.UNHEALTHY, Word.UNTRUSTED, Word.UNFIT])
def test_nobody_is_chosen_when_nobody_can(word: Word) -> None:
    decision = place([view(blocked=word, detail="why")])
    assert (decision.chosen, decision.reason) == (None, "nobody")
    assert (decision.verdicts[0].verdict, decision.verdicts[0].detail) == (word, "why")
    assert place([]).chosen is None


def test_a_tried_holder_is_out_even_when_it_is_the_only_or_paused_one() -> None:
    tried = frozenset({("here", "e")})
    assert place([HERE_WARM], tried).chosen is None
    assert place([view(blocked=Word.PAUSED)], tried).chosen is None
    assert place([HERE_WARM, view(engine="f")], tried).chosen == view(engine="f")
    assert words(place([HERE_WARM], tried)) == {"here": "tried"}


def test_one_holder_needs_no_comparison_and_gets_the_same_answer() -> None:
    for only in (PEER_WARM, PEER_COLD, HERE_WARM, HERE_COLD, view(in_flight=1), view(waiting=1)):
        short, full = place([only]), place([only, view("x", blocked=Word.MISSING)])
        assert (short.chosen, short.reason, short.verdicts[0]) == (full.chosen, full.reason, full.verdicts[0])


def test_a_full_holder_is_busy_by_what_runs_and_what_waits() -> None:
    assert words(place([view(in_flight=1)])) == {"here": "busy"}
    assert words(place([view(waiting=1)])) == {"here": "busy"}
    assert words(place([view(in_flight=1, waiting=6, width=8)])) == {"here": "warm"}


def test_within_a_class_fewest_in_flight_then_longest_unused_then_most_memory() -> None:
    views = [
        view("p1", in_flight=1, width=8, last_used=1, free_vram_bytes=9),
        view("p2", in_flight=0, width=8, last_used=7, free_vram_bytes=9),
        view("p3", in_flight=0, width=8, last_used=5, free_vram_bytes=1),
        view("p4", in_flight=0, width=8, last_used=5, free_vram_bytes=2),
    ]
    ranked = []
    while len(views) > 1:
        best = place(views).chosen
        assert best is not None
        ranked.append(best.node)
        views.remove(best)
    assert ranked == ["p4", "p3", "p2"]


def test_the_fattest_computer_does_not_get_everything() -> None:
    used = {"fat": 0.0, "thin": 0.0}
    picks = []
    for now in range(1, 11):
        views = [view(n, last_used=at, free_vram_bytes=99 if n == "fat" else 1) for n, at in used.items()]
        picked = chosen(place(views))
        assert picked is not None
        picks.append(picked)
        used[picked] = now
    assert picks.count("fat") == picks.count("thin") == 5


def test_with_nobody_free_the_shortest_wait_is_taken_and_ties_go_to_a_warm_then_another_computer() -> None:
    long, short = view("p1", in_flight=1, waiting=3), view("p2", in_flight=8, waiting=4, width=8)
    decision = place([long, short, view(in_flight=1, waiting=1)])
    assert (decision.chosen, decision.reason) == (short, "shortest-wait")
    tie = [view(in_flight=1, warm=False), view("p", in_flight=1, warm=False), view("here", "w", in_flight=1)]
    assert place(tie).chosen == tie[2]
    assert place(tie[:2]).chosen == tie[1]


# -- with measured speeds

ASKED = Need(prompt_tokens=100, answer_tokens=100)


def paced(node: str, answer_s: float, **more: Any) -> HolderView:
    """A holder that reads at once and writes what is ``ASKED`` in ``answer_s``."""
    load_s = more.pop("load_s", None)
    return view(node, speed=Speed(prefill_per_s=1e9, decode_per_s=100 / answer_s, load_s=load_s), **more)


def test_fastest_takes_whoever_is_done_first_wherever_it_is() -> None:
    slow_peer, quick_here = paced("p", 9.0), paced("here", 2.0)
    decision = place([slow_peer, quick_here], route=Route.FASTEST, need=ASKED)
    assert (decision.chosen, decision.reason) == (quick_here, "soonest")
    assert decision.predicted is not None
    assert decision.predicted.finish_s == 2.0
    assert [verdict.predicted_s for verdict in decision.verdicts] == [9.0, 2.0]
    assert place([slow_peer, quick_here], need=ASKED).chosen == slow_peer, "peers first is peers first"


def test_fastest_waits_for_a_quick_one_rather_than_taking_a_free_slow_one() -> None:
    quick, slow = paced("p1", 2.0, in_flight=1), paced("p2", 60.0)
    decision = place([quick, slow], route=Route.FASTEST, need=ASKED)
    assert (decision.chosen, decision.reason) == (quick, "soonest")
    assert decision.predicted is not None
    assert (decision.predicted.wait_s, decision.predicted.finish_s) == (1.0, 3.0)
    long_line = paced("p1", 2.0, in_flight=1, waiting=40)
    assert place([long_line, slow], route=Route.FASTEST, need=ASKED).chosen == slow


def test_fastest_counts_the_load_of_one_that_is_cold() -> None:
    cold, warm = paced("p1", 1.0, warm=False, load_s=30.0), paced("p2", 9.0)
    assert place([cold, warm], route=Route.FASTEST, need=ASKED).chosen == warm
    assert place([cold, warm], route=Route.FASTEST, need=Need(100, 1000)).chosen == cold


def test_fastest_lets_an_unmeasured_one_that_is_free_and_warm_show_what_it_can() -> None:
    known, unknown = paced("p1", 2.0), view("here")
    assert place([known, unknown], route=Route.FASTEST, need=ASKED).chosen == unknown
    assert place([known, view("here", in_flight=1)], route=Route.FASTEST, need=ASKED).chosen == known
    assert place([known, view("here", warm=False)], route=Route.FASTEST, need=ASKED).chosen == known
    busy = paced("p1", 2.0, in_flight=1)
    assert place([busy, view("here", warm=False)], route=Route.FASTEST, need=ASKED).chosen == view("here", warm=False)


def test_fastest_falls_back_to_the_chain_while_nothing_is_measured() -> None:
    views = [view("here"), view("p1"), view("p2", in_flight=1)]
    decision = place(views, route=Route.FASTEST, need=ASKED)
    assert (decision.chosen, decision.reason, decision.predicted) == (views[1], "peer-warm", None)


def test_within_a_class_the_predicted_finish_replaces_the_order_once_all_are_measured() -> None:
    idle, quick = paced("p1", 9.0, width=8), paced("p2", 3.0, width=8, in_flight=4, last_used=9)
    assert place([idle, quick], need=ASKED).chosen == quick
    assert place([view("p1", width=8), quick], need=ASKED).chosen == view("p1", width=8), "an unknown one: the chain"
    busy = [paced("p1", 9.0, in_flight=1), paced("p2", 1.0, in_flight=1, waiting=3)]
    assert place(busy, need=ASKED).chosen == busy[1], "the shortest wait is a time, not a number of jobs"


def test_among_those_about_as_quick_the_order_stays() -> None:
    views = [paced("p1", 3.0, width=8, in_flight=2), paced("p2", 3.2, width=8, in_flight=1), paced("p3", 3.1, width=8)]
    assert place(views, need=ASKED).chosen == views[2]


def test_local_first_takes_this_computer_however_slow() -> None:
    assert chosen(place([paced("p", 1.0), paced("here", 60.0)], route=Route.LOCAL_FIRST, need=ASKED)) == "here"


VIEWS = st.lists(
    st.builds(
        view,
        st.sampled_from(["here", "p1", "p2", "p3"]),
        st.sampled_from(["e", "f"]),
        warm=st.booleans(),
        in_flight=st.integers(0, 3),
        waiting=st.integers(0, 3),
        width=st.integers(1, 3),
        last_used=st.floats(0, 9),
        free_vram_bytes=st.integers(0, 9),
        speed=st.builds(Speed, *[st.none() | st.sampled_from([1.0, 50.0])] * 4),
        blocked=st.none() | st.sampled_from([Word.PAUSED, Word.DRAINING, Word.UNHEALTHY, Word.UNTRUSTED, Word.UNFIT]),
    ),
    max_size=6,
    unique_by=lambda v: (v.node, v.engine),
)
TRIED = st.frozensets(st.tuples(st.sampled_from(["here", "p1", "p2", "p3"]), st.sampled_from(["e", "f"])))


NEEDS = st.sampled_from([Need(), Need(10), Need(10, 10)])


@given(VIEWS, TRIED, st.sampled_from(["", *Route]), NEEDS)
def test_somebody_usable_is_always_found_and_nobody_else(
    views: list[HolderView], tried: frozenset[Pair], route: str, need: Need
) -> None:
    decision = place(views, tried, route, need)
    assert [(v.node, v.engine) for v in decision.verdicts] == [(v.node, v.engine) for v in views]
    open_ones = [v for v in views if (v.node, v.engine) not in tried]
    usable = [v for v in open_ones if v.blocked is None]
    kept = [v for v in open_ones if v.local and v.blocked in (Word.PAUSED, Word.DRAINING)]
    assert (decision.chosen is not None) == bool(usable or kept)
    if decision.chosen is not None:
        assert decision.chosen in (usable or kept)
        if any(v.free for v in usable) and decision.reason != "soonest":
            assert decision.chosen.free
    assert decision == place(views, tried, route, need)


@given(VIEWS)
def test_the_order_of_the_candidates_does_not_matter_for_the_class(views: list[HolderView]) -> None:
    reasons = {place(list(order)).reason for order in itertools.islice(itertools.permutations(views), 24)}
    assert len(reasons) == 1 or len(views) == 0
