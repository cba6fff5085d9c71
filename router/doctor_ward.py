"""What the doctor is told by this node itself: who is paired and seen, and how this computer stands in its networks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

import psutil

from router.doctor import Line
from router.doctor_judge import HereFacts
from router.peer_client import Place
from router.settings import Settings
from router.trust import Peer, Trust

MDNS_PORT: Final = 5353
CALLS_S: Final = 45.0
"""A computer that is there calls at least every 30 s, to measure how far away this one is."""

BEATS_S: Final = 6.0
"""One beat and a little: so much later than its last word a call can come of a computer that was there all the time."""


class Lookout(Protocol):
    """Discovery, as far as the doctor asks it. ``deaf`` says why it can't look for others; empty while it can."""

    @property
    def deaf(self) -> str: ...
    def places(self, node_id: str) -> list[Place]: ...
    def name_of(self, node_id: str) -> str: ...
    def count(self) -> int: ...
    async def sees(self, node_id: str) -> bool: ...


class Standing(Protocol):
    """This node among others: where it listens now, why not, and its lines to others."""

    port: int

    @property
    def addresses(self) -> Sequence[str]: ...
    @property
    def listens(self) -> bool: ...
    @property
    def trouble(self) -> str: ...
    def line(self, node_id: str) -> Line | None: ...


class OwnWard:
    """Answers the doctor. ``lookout`` is None where discovery is switched off."""

    def __init__(
        self,
        trust: Trust,
        standing: Standing,
        lookout: Lookout | None,
        settings: Settings,
        called_at: Callable[[str], float | None],
        wall: Callable[[], float],
    ) -> None:
        self._trust = trust
        self._standing = standing
        self._lookout = lookout
        self._settings = settings
        self._called_at = called_at
        self._wall = wall

    def patients(self) -> Sequence[tuple[Peer, Line | None]]:
        """The paired computers, each with the line to it."""
        return [(peer, self._standing.line(peer.node_id)) for peer in self._trust.peers()]

    def places(self, node_id: str) -> Sequence[Place]:
        """Where it is announced."""
        return self._lookout.places(node_id) if self._lookout is not None else ()

    def follows(self, node_id: str) -> bool:
        """Whether a computer called this one just now, after its own last word: it is there, and only one way is shut.

        A line that was open to it says nothing: after a power cut it stands open for minutes.
        """
        line, at = self._standing.line(node_id), self._called_at(node_id)
        if line is None or at is None or self._wall() - at > CALLS_S:
            return False
        return at > (line.heard_at or 0.0) + BEATS_S

    def name_of(self, node_id: str) -> str:
        """The name of a computer that is paired or seen; empty for an unknown one."""
        peer = self._trust.get(node_id)
        if peer is not None:
            return peer.name
        return self._lookout.name_of(node_id) if self._lookout is not None else ""

    async def sees(self, node_id: str) -> bool | None:
        """Whether its announcements arrive; None where nobody looks for them."""
        if self._lookout is None or self._lookout.deaf:
            return None
        return await self._lookout.sees(node_id)

    def here(self) -> HereFacts:
        """This computer now. Blocks for some milliseconds where a port is held by another program."""
        standing, wanted = self._standing, int(self._settings["peer_port"])
        moved = standing.listens and wanted not in (0, standing.port)
        deaf = self._lookout.deaf if self._lookout is not None else ""
        who = holder(MDNS_PORT, "udp") if deaf else ""
        return HereFacts(
            addresses=tuple(standing.addresses),
            sharing=bool(self._settings["share"]),
            listens=standing.listens,
            wanted_port=wanted,
            port=standing.port,
            holder=holder(wanted, "tcp") if moved else "",
            trouble=standing.trouble,
            browsing=None if self._lookout is None else not deaf,
            deaf=f"{who} holds UDP port {MDNS_PORT}" if who else deaf,
            seen=self._lookout.count() if self._lookout is not None else 0,
            paired=len(self._trust.peers()),
        )


def holder(port: int, kind: str) -> str:
    """Another program that has a port of this computer (``tcp``: listens at it), where the system tells which."""
    with suppress(psutil.Error, OSError):
        for one in psutil.net_connections(kind):
            listens = kind == "udp" or one.status == psutil.CONN_LISTEN
            if listens and one.laddr and one.laddr.port == port and one.pid not in (None, os.getpid()):
                return f"'{psutil.Process(one.pid).name()}' (process {one.pid})"
    return ""
