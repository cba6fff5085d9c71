"""The tables of moves: everything listed is allowed, everything else raises."""

from __future__ import annotations

import itertools

import pytest

from router.states import (
    JOB_MOVES,
    PEER_MOVES,
    REPLICA_MOVES,
    IllegalMoveError,
    JobState,
    NodeMode,
    PeerState,
    ReplicaState,
    check_job,
    check_peer,
    check_replica,
)

LIVE = {JobState.QUEUED, JobState.LOADING, JobState.WORKING}


@pytest.mark.parametrize(("old", "new"), list(itertools.product(JobState, JobState)))
def test_a_job_makes_exactly_the_moves_of_the_design(old: JobState, new: JobState) -> None:
    allowed = {
        ("queued", "loading"),
        ("queued", "working"),
        ("loading", "working"),
        ("loading", "queued"),
        ("working", "done"),
        ("working", "queued"),
        *((live, end) for live in LIVE for end in ("failed", "cancelled")),
    }
    if (old, new) in allowed:
        check_job(old, new)
    else:
        with pytest.raises(IllegalMoveError, match=f"{old} -> {new}") as raised:
            check_job(old, new)
        assert (raised.value.old, raised.value.new) == (old, new)


def test_a_state_is_live_exactly_when_it_can_still_move() -> None:
    for state in JobState:
        assert state.live is bool(JOB_MOVES[state])
        assert state.running is (state in (JobState.LOADING, JobState.WORKING))


@pytest.mark.parametrize(("old", "new"), list(itertools.product(PeerState, PeerState)))
def test_a_peer_makes_only_listed_moves(old: PeerState, new: PeerState) -> None:
    if new in PEER_MOVES[old]:
        check_peer(old, new)
    else:
        with pytest.raises(IllegalMoveError):
            check_peer(old, new)


def test_silence_never_approves_a_peer() -> None:
    approving = {old for old in PeerState if PeerState.HEALTHY in PEER_MOVES[old]}
    assert PeerState.DISCOVERED not in approving
    assert PEER_MOVES[PeerState.OFFLINE] == {PeerState.HEALTHY, PeerState.DRAINING}
    assert [state for state in PeerState if state.usable] == [PeerState.HEALTHY]


@pytest.mark.parametrize(("old", "new"), list(itertools.product(ReplicaState, ReplicaState)))
def test_a_replica_makes_only_listed_moves(old: ReplicaState, new: ReplicaState) -> None:
    if new in REPLICA_MOVES[old]:
        check_replica(old, new)
    else:
        with pytest.raises(IllegalMoveError):
            check_replica(old, new)


def test_every_replica_state_can_end_idle_and_only_loaded_is_warm() -> None:
    assert all(ReplicaState.IDLE in moves for old, moves in REPLICA_MOVES.items() if old is not ReplicaState.IDLE)
    assert [state for state in ReplicaState if state.warm] == [ReplicaState.LOADED]


def test_only_a_running_node_takes_work() -> None:
    assert [mode for mode in NodeMode if mode.takes_work] == [NodeMode.RUNNING]
