"""Paired computers as the tray's menu lists them: one short line each. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from app.service import PeerInfo, PeerState

NAME_LENGTH: Final = 40
ID_LETTERS: Final = 8


def peer_lines(peers: Sequence[PeerInfo]) -> list[str]:
    """``studio: ready, 2 models`` for each paired computer that isn't ignored, by name; equal names with their ids."""
    paired = sorted((peer for peer in peers if peer.paired and not peer.ignored), key=lambda one: (one.name, one.id))
    names = Counter(peer.name for peer in paired)
    return [f"{_name(peer, names[peer.name] > 1)}: {_state(peer)}" for peer in paired]


def _name(peer: PeerInfo, twin: bool) -> str:
    line = " ".join(peer.name.split())
    short = line if len(line) <= NAME_LENGTH else f"{line[: NAME_LENGTH - 1]}…"
    return f"{short} ({peer.id[:ID_LETTERS]})" if twin else short


def _state(peer: PeerInfo) -> str:
    match peer.state:
        case PeerState.HEALTHY:
            count = len(peer.models)
            return "ready, 1 model" if count == 1 else f"ready, {count or 'no'} models"
        case PeerState.DRAINING:
            return "draining" if "draining" in peer.reason else "paused"
        case PeerState.UNHEALTHY:
            return "not answering"
        case _:
            return "asleep" if "asleep" in peer.reason else "away"
