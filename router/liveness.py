"""Whether a paired computer is there: one state machine, moved by what its stream says and by time. No I/O, no clock.

Only authenticated words count: an open stream's snapshots and beats. What mDNS tells never gets here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from router.aio import Clock
from router.states import NodeMode, PeerState, check_peer

BEAT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds of silence after which a peer gets no new work (two beats missed), and after which it is offline."""

    silent_s: float = 11.9  # so that it is known everywhere within 12 s
    offline_s: float = 60.0


class Liveness:
    """The state of one paired peer and why it has it. ``moved`` hears of each change of either.

    ``heard_at`` is the wall time of its last word, None before the first; ``left``: that was a goodbye.
    """

    def __init__(self, clock: Clock, moved: Callable[[PeerState], None], patience: Patience | None = None) -> None:
        self.state = PeerState.OFFLINE
        self.reason = "It has not been reached yet."
        self.left = False
        self.heard_at: float | None = None
        self._clock = clock
        self._moved = moved
        self._patience = patience or Patience()
        self._heard = clock.mono()
        self._mode = NodeMode.RUNNING

    def told(self, mode: NodeMode) -> None:
        """A snapshot came."""
        self._hear()
        self.left = False
        self._mode = mode
        self._alive()

    def beat(self) -> None:
        """A beat came: it is as it said last."""
        self._hear()
        if self.state is PeerState.UNHEALTHY:
            self._alive()

    def _hear(self) -> None:
        self._heard = self._clock.mono()
        self.heard_at = self._clock.wall()

    def _alive(self) -> None:
        if self._mode.takes_work:
            self._move(PeerState.HEALTHY, "")
        else:
            self._move(PeerState.DRAINING, f"It is {'paused' if self._mode is NodeMode.PAUSED else 'draining'}.")

    def answered(self) -> None:
        """It is there again, whatever it said."""
        self.left = False

    def broke(self, why: str) -> None:
        """Its stream broke, or can't be opened: no new work at once; offline stays offline.

        That one which said goodbye can't be reached is no news.
        """
        if not self.left:
            self._move(PeerState.OFFLINE if self.state is PeerState.OFFLINE else PeerState.UNHEALTHY, why)

    def goodbye(self, *, asleep: bool = False) -> None:
        """It said that it goes, or sleeps."""
        self._hear()
        self.left = True
        self._move(PeerState.OFFLINE, "It is asleep." if asleep else "It was closed.")

    def look(self) -> None:
        """Time passed."""
        silent_s = self._clock.mono() - self._heard
        if silent_s >= self._patience.offline_s and self.state is not PeerState.OFFLINE:
            self._move(PeerState.OFFLINE, self.reason or "Nothing was heard of it for a minute.")
        elif silent_s >= self._patience.silent_s and self.state in (PeerState.HEALTHY, PeerState.DRAINING):
            self._move(PeerState.UNHEALTHY, f"Nothing was heard of it for {silent_s:.0f} s.")

    @property
    def left_s(self) -> float:
        """Seconds until silence would move it."""
        limit = self._patience.silent_s
        if self.state is PeerState.UNHEALTHY:
            limit = self._patience.offline_s
        return max(0.0, self._heard + limit - self._clock.mono())

    def _move(self, new: PeerState, reason: str) -> None:
        """The one function that moves: checks the table, then publishes."""
        if new is self.state and reason == self.reason:
            return
        if new is not self.state:
            check_peer(self.state, new)
        old, self.state, self.reason = self.state, new, reason
        self._moved(old)
