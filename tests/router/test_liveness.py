"""When a paired computer is healthy, unhealthy, draining, offline; time is the test's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.liveness import Liveness
from router.states import NodeMode, PeerState
from tests.fakes import FakeClock

HEALTHY, UNHEALTHY = PeerState.HEALTHY, PeerState.UNHEALTHY
DRAINING, OFFLINE = PeerState.DRAINING, PeerState.OFFLINE
RUNNING, PAUSED = NodeMode.RUNNING, NodeMode.PAUSED


class Peer:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.moves: list[tuple[PeerState, PeerState]] = []
        self.live = Liveness(self.clock, self.moved)

    def moved(self, old: PeerState) -> None:
        self.moves.append((old, self.live.state))

    def wait(self, seconds: float) -> PeerState:
        self.clock.advance(seconds)
        self.live.look()
        return self.live.state

    @property
    def state(self) -> PeerState:
        return self.live.state


def test_only_an_authenticated_word_makes_a_peer_healthy() -> None:
    peer = Peer()
    assert peer.state is OFFLINE
    peer.live.beat()
    assert peer.wait(1000) is OFFLINE
    peer.live.told(RUNNING)
    assert (peer.state, peer.live.reason, peer.moves) == (HEALTHY, "", [(OFFLINE, HEALTHY)])


def test_a_broken_stream_is_unhealthy_at_once_and_offline_after_a_minute() -> None:
    peer = Peer()
    peer.live.told(RUNNING)
    peer.clock.advance(3)
    peer.live.broke("The connection to it broke.")
    assert (peer.state, peer.live.reason) == (UNHEALTHY, "The connection to it broke.")
    assert peer.wait(56.9) is UNHEALTHY
    assert peer.wait(0.1) is OFFLINE
    assert peer.live.reason == "The connection to it broke."
    peer.live.broke("It can't be reached.")
    assert (peer.state, peer.live.reason) == (OFFLINE, "It can't be reached.")


def test_two_missed_beats_are_unhealthy_and_a_beat_heals() -> None:
    peer = Peer()
    peer.live.told(RUNNING)
    for _ in range(3):
        assert peer.wait(5) is HEALTHY
        peer.live.beat()
    assert round(peer.live.left_s, 6) == 11.9
    assert peer.wait(11.8) is HEALTHY
    assert peer.wait(0.2) is UNHEALTHY
    assert round(peer.live.left_s, 6) == 48
    peer.live.beat()
    assert (peer.state, peer.live.reason) == (HEALTHY, "")
    peer.wait(12)
    assert peer.wait(48) is OFFLINE


def test_a_peer_that_drains_or_pauses_says_so_and_comes_back_by_its_own_word() -> None:
    peer = Peer()
    peer.live.told(PAUSED)
    assert (peer.state, peer.live.reason) == (DRAINING, "It is paused.")
    peer.wait(12)
    assert peer.state is UNHEALTHY
    peer.live.beat()
    assert peer.state is DRAINING, "a beat says nothing new"
    peer.live.told(NodeMode.DRAINED)
    assert peer.live.reason == "It is draining."
    peer.live.told(RUNNING)
    assert peer.state is HEALTHY


def test_goodbye_is_offline_at_once_and_a_word_brings_it_back() -> None:
    peer = Peer()
    peer.live.told(RUNNING)
    peer.live.goodbye()
    assert (peer.state, peer.live.reason) == (OFFLINE, "It was closed.")
    peer.live.beat()
    assert peer.state is OFFLINE
    peer.live.told(RUNNING)
    assert peer.state is HEALTHY


def test_a_computer_that_sleeps_is_not_one_that_failed() -> None:
    peer = Peer()
    peer.live.told(RUNNING)
    peer.live.goodbye(asleep=True)
    assert (peer.state, peer.live.reason) == (OFFLINE, "It is asleep.")
    peer.live.told(RUNNING)
    assert (peer.state, peer.live.reason) == (HEALTHY, "")


def test_that_one_which_said_goodbye_is_not_reached_is_no_news_until_it_answers() -> None:
    peer = Peer()
    peer.live.told(RUNNING)
    assert (peer.live.left, peer.live.heard_at) == (False, peer.clock.wall())
    peer.live.goodbye()
    peer.live.broke("studio can't be reached.")
    assert (peer.live.left, peer.live.reason) == (True, "It was closed.")
    peer.live.answered()
    peer.live.broke("This computer is not paired with yours.")
    assert (peer.state, peer.live.reason) == (OFFLINE, "This computer is not paired with yours.")


def test_what_changes_nothing_is_not_told() -> None:
    peer = Peer()
    for _ in range(3):
        peer.live.told(RUNNING)
        peer.live.look()
        peer.live.beat()
    assert len(peer.moves) == 1


EVENTS = st.lists(
    st.sampled_from(["run", "pause", "drain", "beat", "broke", "goodbye"]) | st.floats(0, 100), max_size=40
)


@given(EVENTS)
def test_whatever_happens_in_whatever_order_only_allowed_moves_are_made(events: list[str | float]) -> None:
    peer = Peer()
    for event in events:
        match event:
            case "run":
                peer.live.told(RUNNING)
                assert peer.state is HEALTHY
            case "pause":
                peer.live.told(PAUSED)
                assert peer.state is DRAINING
            case "drain":
                peer.live.told(NodeMode.DRAINING)
            case "beat":
                peer.live.beat()
            case "broke":
                peer.live.broke("why")
                assert not peer.state.usable
            case "goodbye":
                peer.live.goodbye()
                assert peer.state is OFFLINE
            case float():
                peer.wait(event)
        assert (peer.live.reason == "") is (peer.state is HEALTHY)
