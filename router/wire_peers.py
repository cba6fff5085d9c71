"""Values about other computers that cross a process border; the rest of them is in ``wire``."""

from __future__ import annotations

from enum import StrEnum

from router.states import PeerState
from router.wire_base import Wire


class PeerInfo(Wire, frozen=True, kw_only=True):
    """Another computer: paired with this one, or only seen in the network. ``reason`` says why its state is what it is.

    ``may_use`` and ``may_manage`` are what this computer allows it; ``granted`` is whether it lets this one use its
    models, and ``shared`` whether anybody. ``loaded`` are the ``models`` in its memory. ``latencies_s`` are the last
    times that a small request took there and back on an open connection, oldest first, one each 30 s; ``latency_s``
    the last of them. ``heard_at`` is when it was heard of last, since this node started. ``own_name`` is what this
    computer's owner calls it (then ``name`` is that, too), ``send`` whether this computer sends it work.
    """

    id: str
    name: str
    state: PeerState
    reason: str = ""
    paired: bool = False
    ignored: bool = False
    may_use: bool = False
    may_manage: bool = False
    addresses: list[str] = []
    port: int = 0
    version: str = ""
    in_flight: int = 0
    waiting: int = 0
    width: int = 0
    ram_total_bytes: int = 0
    ram_free_bytes: int = 0
    gpu: str = ""
    vram_total_bytes: int = 0
    vram_free_bytes: int = 0
    models: list[str] = []
    loaded: list[str] = []
    latency_s: float | None = None
    latencies_s: list[float] = []
    heard_at: float | None = None
    shared: bool = True
    granted: bool = True
    own_name: str = ""
    send: bool = True


class PairingInfo(Wire, frozen=True, kw_only=True):
    """Pairing as this computer offers it. ``state`` is closed, open, asking, paired or failed.

    ``code`` are the six digits to type on the other computer until ``until_at``; ``addresses`` (host, or host:port) are
    where that one finds this one. While it asks and afterwards, ``peer_id`` and ``peer_name`` say which one it is.
    """

    state: str = "closed"
    code: str = ""
    until_at: float | None = None
    addresses: list[str] = []
    peer_id: str = ""
    peer_name: str = ""
    detail: str = ""


class Level(StrEnum):
    """How much a finding of the doctor matters: nothing to do, worth knowing, something is wrong."""

    GOOD = "good"
    NOTE = "note"
    BAD = "bad"


class Fix(StrEnum):
    """What can be done about a finding from here: share this computer's models, pair again, give another address."""

    NONE = ""
    SHARE = "share"
    PAIR = "pair"
    ADDRESS = "address"


class Finding(Wire, frozen=True, kw_only=True):
    """What the doctor found of one computer: one sentence, and what to do. ``id`` and ``name`` are empty for this one.

    ``code`` is stable; ``at`` is the address (host:port) that it is about.
    """

    id: str = ""
    name: str = ""
    level: Level
    code: str
    sentence: str
    hint: str = ""
    at: str = ""
    fix: Fix = Fix.NONE


class DoctorReport(Wire, frozen=True, kw_only=True):
    """Answer of ``POST /local/v1/doctor``. ``green``: every paired computer is fine, and nothing is wrong here.

    ``here`` is about this computer and has at least one finding; ``peers`` has one of each paired computer.
    """

    at: float
    green: bool
    here: list[Finding]
    peers: list[Finding]


# Requests of the control surface.


class Examine(Wire, frozen=True, kw_only=True):
    """``POST /local/v1/doctor``: look at one paired computer only, or (empty) at all."""

    id: str = ""


class ReachAt(Wire, frozen=True, kw_only=True):
    """``POST /local/v1/peers/{id}/address``: where a paired computer is now (host or host:port)."""

    address: str


class JoinPairing(Wire, frozen=True, kw_only=True):
    """``POST /local/v1/pairing/join``: the six digits that the other computer shows, and which computer that is.

    Either ``node_id`` of one seen in the network, or ``address`` (host or host:port). ``may_use`` lets it use this
    computer's models.
    """

    code: str
    node_id: str = ""
    address: str = ""
    may_use: bool = True


class PairingAnswer(Wire, frozen=True, kw_only=True):
    """``POST /local/v1/pairing/answer``: whether the computer that asks is accepted, and may use this one's models."""

    accept: bool
    may_use: bool = True


class PeerPatch(Wire, frozen=True, kw_only=True):
    """``PATCH /local/v1/peers/{id}``: a field that is absent stays. An empty ``own_name`` takes the computer's own."""

    may_use: bool | None = None
    may_manage: bool | None = None
    ignored: bool | None = None
    own_name: str | None = None
    send: bool | None = None
