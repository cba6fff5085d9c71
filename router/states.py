"""The states of jobs, peers and replicas: members, what each means, and the moves each allows. Imports nothing else.

A move that the tables do not list raises ``IllegalMoveError``; one function per machine (``scheduler`` for jobs,
``registry`` for peers and replicas) calls ``check`` and publishes.
"""

from __future__ import annotations

from enum import StrEnum


class IllegalMoveError(RuntimeError):
    """A state machine was asked for a move that its table does not have: a bug, never an input error."""

    def __init__(self, machine: str, old: str, new: str) -> None:
        super().__init__(f"{machine}: {old} -> {new} is not a move")
        self.old = old
        self.new = new


class JobState(StrEnum):
    """Life of a job; ``live`` states may still end, ``running`` ones hold a lease on an engine."""

    QUEUED = "queued"
    LOADING = "loading"
    WORKING = "working"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def live(self) -> bool:
        return self in _JOB_LIVE

    @property
    def running(self) -> bool:
        return self is JobState.LOADING or self is JobState.WORKING


_JOB_LIVE = frozenset({JobState.QUEUED, JobState.LOADING, JobState.WORKING})
_ENDS = frozenset({JobState.FAILED, JobState.CANCELLED})

# loading and working return to queued only while no content byte was sent; the scheduler guards that.
JOB_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: _ENDS | {JobState.LOADING, JobState.WORKING},
    JobState.LOADING: _ENDS | {JobState.WORKING, JobState.QUEUED},
    JobState.WORKING: _ENDS | {JobState.DONE, JobState.QUEUED},
    JobState.DONE: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


class PeerState(StrEnum):
    """What this node knows of another one; ``usable`` peers are offered work."""

    DISCOVERED = "discovered"
    PENDING = "pending"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    OFFLINE = "offline"

    @property
    def usable(self) -> bool:
        return self is PeerState.HEALTHY


PEER_MOVES: dict[PeerState, frozenset[PeerState]] = {
    PeerState.DISCOVERED: frozenset({PeerState.PENDING}),
    PeerState.PENDING: frozenset({PeerState.HEALTHY, PeerState.DISCOVERED}),
    PeerState.HEALTHY: frozenset({PeerState.UNHEALTHY, PeerState.DRAINING, PeerState.OFFLINE}),
    PeerState.UNHEALTHY: frozenset({PeerState.HEALTHY, PeerState.DRAINING, PeerState.OFFLINE}),
    PeerState.DRAINING: frozenset({PeerState.HEALTHY, PeerState.UNHEALTHY, PeerState.OFFLINE}),
    PeerState.OFFLINE: frozenset({PeerState.HEALTHY, PeerState.DRAINING}),
}


class ReplicaState(StrEnum):
    """One loaded copy of a model on one engine; ``warm`` ones answer without a load."""

    STAGING = "staging"
    LOADING = "loading"
    LOADED = "loaded"
    UNLOADING = "unloading"
    IDLE = "idle"

    @property
    def warm(self) -> bool:
        return self is ReplicaState.LOADED


REPLICA_MOVES: dict[ReplicaState, frozenset[ReplicaState]] = {
    ReplicaState.IDLE: frozenset({ReplicaState.STAGING, ReplicaState.LOADING}),
    ReplicaState.STAGING: frozenset({ReplicaState.LOADING, ReplicaState.IDLE}),
    ReplicaState.LOADING: frozenset({ReplicaState.LOADED, ReplicaState.IDLE}),
    ReplicaState.LOADED: frozenset({ReplicaState.UNLOADING, ReplicaState.IDLE}),
    ReplicaState.UNLOADING: frozenset({ReplicaState.IDLE}),
}


class NodeMode(StrEnum):
    """Whether this node takes work: ``pause`` persists, ``drain`` ends with the process."""

    RUNNING = "running"
    PAUSED = "paused"
    DRAINING = "draining"
    DRAINED = "drained"

    @property
    def takes_work(self) -> bool:
        return self is NodeMode.RUNNING


def check_job(old: JobState, new: JobState) -> None:
    """Raise ``IllegalMoveError`` unless a job may go from ``old`` to ``new``."""
    if new not in JOB_MOVES[old]:
        raise IllegalMoveError("job", old, new)


def check_peer(old: PeerState, new: PeerState) -> None:
    """Raise ``IllegalMoveError`` unless a peer may go from ``old`` to ``new``."""
    if new not in PEER_MOVES[old]:
        raise IllegalMoveError("peer", old, new)


def check_replica(old: ReplicaState, new: ReplicaState) -> None:
    """Raise ``IllegalMoveError`` unless a replica may go from ``old`` to ``new``."""
    if new not in REPLICA_MOVES[old]:
        raise IllegalMoveError("replica", old, new)
