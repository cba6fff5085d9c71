"""How other computers look: what a link knows goes before what was written down."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.errors import BadRequestError
from router.pairing import PairingAsk, PairingState, Phase
from router.peer_looks import paired_info, pairing_info, split_address
from router.states import PeerState
from router.trust import node_id_of
from tests.router.peer_kit import peer_of
from tests.router.test_peering import FakeLink

OTHER = node_id_of(bytes(range(32)))


def test_without_a_link_a_computer_is_away_and_its_name_is_the_one_written_down() -> None:
    info = paired_info(peer_of(OTHER), None)
    assert (info.name, info.state, info.reason, info.width, info.models) == ("laptop", PeerState.OFFLINE, "", 0, [])


def test_an_ignored_computer_says_so() -> None:
    info = paired_info(replace(peer_of(OTHER), ignored=True), None)
    assert (info.ignored, info.reason) == (True, "You ignore this computer.")


def test_a_link_tells_name_state_and_reason() -> None:
    link = FakeLink(peer_of(OTHER))
    link.state, link.reason = PeerState.UNHEALTHY, "It doesn't answer."
    info = paired_info(link.peer, link)
    assert (info.name, info.state, info.reason) == ("studio", PeerState.UNHEALTHY, "It doesn't answer.")


def test_how_far_away_a_computer_was_and_when_it_was_heard_of() -> None:
    link = FakeLink(peer_of(OTHER))
    info = paired_info(link.peer, link)
    assert (info.latency_s, info.latencies_s, info.heard_at) == (0.002, [0.003, 0.002], link.heard_at)
    link.latencies_s, link.heard_at = (), None
    info = paired_info(link.peer, link)
    assert (info.latency_s, info.latencies_s, info.heard_at) == (None, [], None)


def test_before_the_first_word_of_a_computer_nothing_is_made_up() -> None:
    link = FakeLink(peer_of(OTHER))
    link.snapshot = None
    info = paired_info(link.peer, link)
    assert (info.name, info.width, info.models, info.ram_total_bytes) == ("laptop", 0, [], 0)


def test_the_address_has_a_port_only_where_it_is_not_the_usual_one() -> None:
    state = PairingState(Phase.OPEN, "123456", 7.0)
    assert pairing_info(state, ["10.0.0.2", "fd00::2"], 7412).addresses == ["10.0.0.2", "fd00::2"]
    assert pairing_info(state, ["10.0.0.2", "fd00::2"], 7500).addresses == ["10.0.0.2:7500", "[fd00::2]:7500"]


def test_who_asks_is_named() -> None:
    asks = PairingState(Phase.ASKING, ask=PairingAsk(OTHER, "laptop", "10.0.0.2"))
    info = pairing_info(asks, [], 7412)
    assert (info.state, info.code, info.peer_id, info.peer_name) == ("asking", "", OTHER, "laptop")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("studio", ("studio", 7412)),
        (" 10.0.0.2:7500 ", ("10.0.0.2", 7500)),
        ("[fd00::2]:7500", ("fd00::2", 7500)),
        ("[fd00::2]", ("fd00::2", 7412)),
        ("fd00::2", ("fd00::2", 7412)),
    ],
)
def test_addresses_are_taken_as_people_write_them(text: str, meant: tuple[str, int]) -> None:
    assert split_address(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        *("", ":7412", "host:", "host:0", "host:99999", "host:x", "a b", "user@host", "h/p", "x" * 300),
        *("a..b", "x" * 70, "studio.\ud800", "a\x00b"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError):
        split_address(text)
