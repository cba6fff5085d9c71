"""What a paired computer asks to be run, checked field by field."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from router.engines.base import Kind
from router.errors import BadRequestError
from router.web.canonical import model_name
from router.web.strict_json import decode

KEEP_ALIVE_MAX_S: Final = 604_800.0
_JOB: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_KINDS: Final = {kind.name.lower(): kind for kind in Kind} | {str(kind): kind for kind in Kind}
_raw: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])

Try = tuple[str, str, int]
"""The peer's node id, its job, the number of its try."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a peer asks for, checked. ``body`` is the canonical request in the words of the peer."""

    key: Try
    kind: Kind
    model: str
    digest: str | None
    body: bytes
    stream: bool
    deadline_s: float | None
    keep_alive_s: float | None


def read(node_id: str, raw: bytes) -> Asked:
    """A peer's request, checked like any client's. Raises BadRequestError naming the field."""
    said = decode(raw)
    kind = _KINDS.get(said["kind"]) if isinstance(said.get("kind"), str) else None
    if kind is None:
        raise BadRequestError(f"'kind' must be one of {', '.join(_KINDS)}.", field="kind")
    if not isinstance(said.get("body"), dict):
        raise BadRequestError("'body' must be an object.", field="body")
    if type(said.get("stream")) is not bool:
        raise BadRequestError("'stream' must be true or false.", field="stream")
    if said["stream"] is not (kind is not Kind.EMBEDDING and said["body"].get("stream") is True):
        raise BadRequestError("'stream' is not what the body says.", field="stream")
    digest = said.get("digest")
    if digest is not None and (not isinstance(digest, str) or _DIGEST.fullmatch(digest) is None):
        raise BadRequestError("'digest' must be a SHA-256 in hexadecimal.", field="digest")
    return Asked(
        key=try_of(node_id, said),
        kind=kind,
        model=model_name(said.get("model")),
        digest=digest,
        body=bytes(_raw.decode(raw)["body"]),
        stream=said["stream"],
        deadline_s=_seconds(said, "deadline_s", 0.0, math.inf),
        keep_alive_s=_seconds(said, "keep_alive_s", -1.0, KEEP_ALIVE_MAX_S),
    )


def try_of(node_id: str, said: dict[str, Any]) -> Try:
    """Which try of its it means. Raises BadRequestError naming the field."""
    return node_id, _job(said), _number(said)


def _job(said: dict[str, Any]) -> str:
    value = said.get("origin_job")
    if not isinstance(value, str) or _JOB.fullmatch(value) is None:
        raise BadRequestError("'origin_job' must be a job's id.", field="origin_job")
    return value


def _number(said: dict[str, Any]) -> int:
    value = said.get("try")
    if type(value) is not int or not 0 <= value < 2**31:
        raise BadRequestError("'try' must be a whole number.", field="try")
    return value


def _seconds(said: dict[str, Any], name: str, low: float, high: float) -> float | None:
    value = said.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not low <= value <= high:
        raise BadRequestError(f"'{name}' must be seconds, {low:g} to {high:g}.", field=name)
    return float(value)
