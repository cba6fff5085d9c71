"""What a node tells a paired one about itself, and the only way in for what a peer tells."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from router.library_places import NAME
from router.states import NodeMode
from router.wire_base import Wire

PROTOCOL: Final = 1
OLDEST: Final = max(1, PROTOCOL - 1)  # one version back is spoken, too
PROTOCOL_HEADER: Final = "X-Quorum-Protocol"
SNAPSHOT_MAX_BYTES: Final = 2 * 2**20
MODELS_MAX: Final = 1000
LABELS_MAX: Final = 64
COUNT_MAX: Final = 2**53
WIDTH_MAX: Final = 4096
TEXT_MAX: Final = 200
NODE_NAME_MAX: Final = 63
CAPABILITIES: Final = frozenset({"chat", "embedding", "vision", "tools", "thinking"})

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class PeerModel(Wire, frozen=True, kw_only=True):
    """One model of a peer, as it tells it. ``name`` is its public name there, by which a run asks for it.

    ``resident``: it answers without a load. Rates are tokens a second and ``load_s`` seconds, as measured there, None
    while unknown.
    """

    name: str
    digest: str | None = None
    size_bytes: int | None = None
    context: int | None = None
    capabilities: list[str] = []
    family: str = ""
    parameters: str = ""
    quantisation: str = ""
    resident: bool = False
    engine_kind: str = ""
    problem: str = ""
    prefill_per_s: float | None = None
    tokens_per_s: float | None = None
    load_s: float | None = None


class PeerSnapshot(Wire, frozen=True, kw_only=True):
    """One look at a node. Unknown fields are ignored, absent ones take their defaults.

    ``width`` jobs run at once there; ``in_flight`` and ``waiting`` count all its jobs, whoever asked. ``shared``: its
    models are shared at all; ``granted``: with the one that is told this.
    """

    node_id: str
    name: str = ""
    version: str = ""
    protocol: int = PROTOCOL
    mode: NodeMode = NodeMode.RUNNING
    width: int = 1
    in_flight: int = 0
    waiting: int = 0
    ram_total_bytes: int = 0
    ram_free_bytes: int = 0
    vram_total_bytes: int = 0
    vram_free_bytes: int = 0
    gpu: str = ""
    models: list[PeerModel] = []
    labels: list[str] = []
    shared: bool = True
    granted: bool = True


_DECODER: Final = msgspec.json.Decoder(PeerSnapshot)


def read_snapshot(data: bytes, node_id: str) -> PeerSnapshot:
    """What the peer ``node_id`` tells, with every text and number in bounds. Raises ValueError when it can't be used.

    Models whose name breaks the rules for names, or that come twice, are left out.
    """
    if len(data) > SNAPSHOT_MAX_BYTES:
        raise ValueError("its state is of absurd size")
    try:
        told = _DECODER.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise ValueError("its state can't be read") from None
    if told.node_id != node_id:
        raise ValueError("it tells the state of another computer")
    if len(told.models) > MODELS_MAX:
        raise ValueError("it tells of too many models")
    models = {model.name: _model(model) for model in told.models if NAME.match(model.name)}
    return PeerSnapshot(
        node_id=node_id,
        name=one_line(told.name, NODE_NAME_MAX),
        version=one_line(told.version, NODE_NAME_MAX),
        protocol=told.protocol,
        mode=told.mode,
        width=max(1, min(told.width, WIDTH_MAX)),
        in_flight=_count(told.in_flight),
        waiting=_count(told.waiting),
        ram_total_bytes=_count(told.ram_total_bytes),
        ram_free_bytes=_count(told.ram_free_bytes),
        vram_total_bytes=_count(told.vram_total_bytes),
        vram_free_bytes=_count(told.vram_free_bytes),
        gpu=one_line(told.gpu),
        models=list(models.values()),
        labels=[one_line(label) for label in told.labels[:LABELS_MAX]],
        shared=told.shared,
        granted=told.granted,
    )


def _model(model: PeerModel) -> PeerModel:
    digest = model.digest if model.digest is not None and _DIGEST.fullmatch(model.digest) else None
    return PeerModel(
        name=model.name,
        digest=digest,
        size_bytes=_maybe(model.size_bytes),
        context=_maybe(model.context),
        capabilities=sorted(CAPABILITIES & set(model.capabilities)),
        family=one_line(model.family),
        parameters=one_line(model.parameters),
        quantisation=one_line(model.quantisation),
        resident=model.resident,
        engine_kind=one_line(model.engine_kind),
        problem=one_line(model.problem),
        prefill_per_s=_rate(model.prefill_per_s),
        tokens_per_s=_rate(model.tokens_per_s),
        load_s=_rate(model.load_s),
    )


def one_line(text: str, longest: int = TEXT_MAX) -> str:
    """``text`` as one line of at most ``longest`` printable characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text[: 4 * longest]).strip()[:longest]


def _count(value: int) -> int:
    return max(0, min(value, COUNT_MAX))


def _maybe(value: int | None) -> int | None:
    return value if value is not None and 0 <= value <= COUNT_MAX else None


def _rate(value: float | None) -> float | None:
    return value if value is not None and 0 <= value <= COUNT_MAX else None
