"""What the doctor says: one sentence for each thing that can be wrong, and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from router.doctor_judge import HereFacts, Knock, PeerFacts, Said, Way, Words, judge, judge_here
from router.states import NodeMode, PeerState
from router.wire_peers import Finding, Fix, Level
from router.wire_snapshot import PROTOCOL

OTHER = "b" * 52
FINE = Words(protocol=PROTOCOL, version="1.0", status=200, missed="", back_to="10.0.0.1", ahead_s=0.2)


def met(said: Said, *, way: Way = Way.LAN, address: str = "10.0.0.2", shown: str = "") -> Knock:
    return Knock(address, 7412, said, way, shown)


def facts(*knocks: Knock, **more: Any) -> PeerFacts:
    reached = any(knock.said is Said.PAIRED for knock in knocks)
    given: dict[str, Any] = {"state": PeerState.HEALTHY, "words": FINE} if reached else {}
    return PeerFacts(node_id="a" * 52, name="studio", knocks=knocks, **({"seen": True} | given | more))


def said_of(*knocks: Knock, **more: Any) -> Finding:
    return judge(facts(*knocks, **more), 7412)


def test_a_computer_that_is_fine_is_green() -> None:
    found = said_of(met(Said.PAIRED))

    assert (found.level, found.code, found.sentence) == (Level.GOOD, "good", "studio is fine: both ways work.")
    assert (found.id, found.at, found.hint, found.fix) == ("a" * 52, "10.0.0.2:7412", "", Fix.NONE)


@pytest.mark.parametrize(
    ("found", "code", "level", "words"),
    [
        (said_of(met(Said.REFUSED)), "refused", Level.BAD, "is on, but nothing listens at 10.0.0.2:7412"),
        (said_of(met(Said.SILENT), seen=False), "silent", Level.BAD, "does not answer at 10.0.0.2:7412"),
        (said_of(met(Said.SILENT), seen=True), "firewall", Level.BAD, "its port 7412 does not answer"),
        (said_of(met(Said.SILENT), seen=False, follows=True), "firewall", Level.BAD, "It reaches this computer"),
        (said_of(met(Said.UNREACHABLE), seen=False), "unreachable", Level.BAD, "No computer answers at 10.0.0.2"),
        (said_of(met(Said.NO_ROUTE), seen=False), "no-route", Level.BAD, "in no network with studio"),
        (said_of(met(Said.FROZEN)), "frozen", Level.BAD, "takes connections at 10.0.0.2:7412, but does not answer"),
        (said_of(met(Said.GARBLED)), "garbled", Level.BAD, "What answers at 10.0.0.2:7412 is not Quorum"),
        (said_of(met(Said.OTHER, shown=OTHER)), "changed", Level.BAD, "another certificate is shown"),
        (said_of(met(Said.OTHER, shown=OTHER), known_as="attic"), "moved", Level.BAD, "attic is now"),
        (said_of(met(Said.OTHER, shown=OTHER), known_as="studio"), "changed", Level.BAD, "another certificate"),
        (said_of(), "nowhere", Level.BAD, "No address of studio is known"),
        (said_of(met(Said.SILENT), seen=False, left=True, reason="It is asleep."), "away", Level.NOTE, "is asleep."),
        (said_of(met(Said.REFUSED), seen=False, left=True), "away", Level.NOTE, "studio was closed."),
    ],
)
def test_why_a_computer_is_not_reached(found: Finding, code: str, level: Level, words: str) -> None:
    assert (found.code, found.level) == (code, level)
    assert words in found.sentence
    assert found.hint


@pytest.mark.parametrize(
    ("more", "code", "level", "words"),
    [
        ({"mode": NodeMode.PAUSED, "state": PeerState.DRAINING}, "paused", Level.NOTE, "studio is paused by its owner"),
        ({"mode": NodeMode.DRAINING, "state": PeerState.DRAINING}, "draining", Level.NOTE, "studio is draining"),
        ({"shared": False}, "not-shared", Level.NOTE, "does not share its models"),
        ({"granted": False}, "not-granted", Level.NOTE, "does not let this computer use its models"),
        ({"seen": False}, "multicast", Level.BAD, "multicast is blocked between you"),
        ({"state": PeerState.UNHEALTHY, "reason": "It sent an endless line."}, "garbled", Level.BAD, "endless line"),
        ({"words": Words(status=0)}, "garbled", Level.BAD, "does not answer"),
        ({"words": Words(protocol=PROTOCOL, status=401)}, "forgotten", Level.BAD, "does not know this computer"),
        ({"words": Words(protocol=PROTOCOL + 2, version="9.0")}, "too-new", Level.BAD, "runs Quorum 9.0"),
    ],
)
def test_why_a_computer_that_is_reached_is_not_green(more: dict[str, Any], code: str, level: Level, words: str) -> None:
    found = said_of(met(Said.PAIRED), **more)

    assert (found.code, found.level) == (code, level)
    assert words in found.sentence
    assert found.hint


@pytest.mark.parametrize(
    ("missed", "words"),
    [
        ("timeout", "it can't reach this computer at 10.0.0.1:7413"),
        ("refused", "its connections to 10.0.0.1:7413 are refused"),
        ("certificate", "it finds another computer at 10.0.0.1:7413"),
    ],
)
def test_that_only_one_way_works_is_told_apart(missed: str, words: str) -> None:
    one_way = Words(protocol=PROTOCOL, status=200, missed=missed, back_to="10.0.0.1")
    found = judge(facts(met(Said.PAIRED), words=one_way), 7413)

    assert (found.code, found.level) == ("one-way", Level.BAD)
    assert found.sentence.startswith("You reach studio, but it")
    assert words in found.sentence


@pytest.mark.parametrize(
    ("ahead_s", "words"), [(300.0, "is 5 min ahead of"), (-61.0, "is 61 s behind"), (200_000.0, "is 2 days ahead of")]
)
def test_clocks_that_differ_are_told(ahead_s: float, words: str) -> None:
    found = said_of(met(Said.PAIRED), words=Words(protocol=PROTOCOL, status=200, missed="", ahead_s=ahead_s))

    assert (found.code, found.level) == ("clock", Level.BAD)
    assert words in found.sentence


def test_clocks_that_differ_by_less_than_a_minute_are_fine() -> None:
    near = Words(protocol=PROTOCOL, status=200, missed="", ahead_s=-59.0)
    assert said_of(met(Said.PAIRED), words=near).level is Level.GOOD


def test_a_call_back_that_was_not_made_says_nothing() -> None:
    assert said_of(met(Said.PAIRED), words=Words(protocol=PROTOCOL, status=429)).level is Level.GOOD


def test_a_vpn_alone_is_worth_knowing_and_explains_missing_announcements() -> None:
    found = said_of(met(Said.PAIRED, way=Way.VPN), met(Said.SILENT), seen=False)
    assert (found.code, found.level) == ("vpn", Level.NOTE)
    both = said_of(met(Said.PAIRED, way=Way.VPN), met(Said.PAIRED, address="10.0.0.3"))
    assert both.level is Level.GOOD


def test_behind_a_router_announcements_are_not_missed() -> None:
    assert said_of(met(Said.PAIRED, way=Way.ROUTED), seen=False).level is Level.GOOD


def test_nobody_who_looks_for_announcements_misses_none() -> None:
    assert said_of(met(Said.PAIRED), seen=None).level is Level.GOOD


def test_one_address_that_answers_is_enough() -> None:
    assert said_of(met(Said.SILENT), met(Said.OTHER, shown=OTHER), met(Said.PAIRED)).level is Level.GOOD


def test_an_ipv6_address_is_written_so_that_it_can_be_typed() -> None:
    assert said_of(met(Said.REFUSED, address="fd00::2")).at == "[fd00::2]:7412"


def test_what_can_be_mended_from_here_says_how() -> None:
    assert said_of(met(Said.OTHER, shown=OTHER)).fix is Fix.PAIR
    assert said_of(met(Said.PAIRED), words=Words(protocol=PROTOCOL, status=401)).fix is Fix.PAIR
    assert said_of(met(Said.SILENT), seen=False).fix is Fix.ADDRESS
    assert said_of(met(Said.PAIRED)).fix is Fix.NONE


# -- this computer


def here(**more: Any) -> list[Finding]:
    given: dict[str, Any] = {"addresses": ("10.0.0.1",), "sharing": True, "listens": True, "port": 7412, "seen": 1}
    return judge_here(HereFacts(**(given | more)))


def test_this_computer_is_fine() -> None:
    assert [(one.level, one.sentence) for one in here()] == [
        (Level.GOOD, "This computer is announced and listens at port 7412.")
    ]


@pytest.mark.parametrize(
    ("more", "code", "level", "words"),
    [
        ({"addresses": ()}, "no-network", Level.BAD, "in no network"),
        ({"sharing": False}, "sharing-off", Level.NOTE, "nothing is announced"),
        ({"port": 7413, "holder": "'nginx' (process 7)"}, "port-taken", Level.NOTE, "taken by 'nginx' (process 7)"),
        ({"trouble": "it is taken."}, "not-listening", Level.BAD, "can't reach this one: it is taken."),
        ({"browsing": False, "deaf": "'x' holds UDP port 5353"}, "mdns-port", Level.BAD, "'x' holds UDP port 5353"),
        ({"browsing": None}, "discovery-off", Level.NOTE, "switched off"),
        ({"seen": 0}, "nobody", Level.NOTE, "No other computer is seen"),
    ],
)
def test_what_is_wrong_here(more: dict[str, Any], code: str, level: Level, words: str) -> None:
    (found,) = here(**more)

    assert (found.code, found.level, found.id) == (code, level, "")
    assert words in found.sentence
    assert found.hint


def test_several_unseen_computers_are_one_cause() -> None:
    unseen = [facts(met(Said.PAIRED), seen=False)] * 2
    given = HereFacts(addresses=("10.0.0.1",), sharing=True, listens=True, port=7412, paired=2)
    assert [one.code for one in judge_here(given, unseen)] == ["multicast"]
    assert [one.code for one in judge_here(given, [*unseen, facts(met(Said.PAIRED))])] == ["good"]
    assert [one.code for one in judge_here(given, unseen[:1])] == ["good"]


def test_sharing_can_be_switched_on_from_the_finding() -> None:
    assert [one.fix for one in here(sharing=False)] == [Fix.SHARE]
