"""From a decoded OpenAI body to one checked request. The raw body is kept; it is re-encoded only where it changed.

The rule for fields: those in the tables of ``fields.py`` are checked and pass; every other top-level field is dropped,
so nothing that only an engine's own code should say (``n_discard``, ``id_slot``, ``grammar``, ...) ever reaches one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from router.engines.base import Kind
from router.errors import BadRequestError
from router.web.fields import TABLES
from router.web.prompt import Prompt

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
_NO_LIMIT: Final = -1

_parts: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Checked:
    """One request in canonical form. ``body`` is JSON as the client sent it, less what was dropped.

    ``needs`` are capabilities the model must have: vision, audio, tools. ``prompt_bytes`` counts text, not images.
    ``max_tokens`` is None where the client set no bound.
    """

    kind: Kind
    model: str
    body: bytes
    stream: bool
    needs: frozenset[str] = frozenset()
    prompt_bytes: int = 0
    max_tokens: int | None = None
    include_usage: bool = False
    dropped: tuple[str, ...] = ()


def model_name(value: object, field: str = "model") -> str:
    """``value`` if it can be a model's name. Raises BadRequestError; never repeats what it refuses."""
    if value is None or value == "":
        raise BadRequestError(f"'{field}' is missing.", "Name a model; GET /v1/models lists them.", field=field)
    if not isinstance(value, str) or _NAME.fullmatch(value) is None or ".." in value:
        raise BadRequestError(
            f"'{field}' is not a model's name: 1 to 200 letters, digits and . _ : / @ + - are allowed.",
            "GET /v1/models lists the names.",
            field=field,
        )
    return value


def check(kind: Kind, decoded: dict[str, Any], body: bytes) -> Checked:
    """``decoded`` (from ``strict_json.decode(body)``) as a checked request. Raises BadRequestError naming the field."""
    model = model_name(decoded.get("model"))
    table = TABLES[kind]
    prompt = Prompt()
    dropped: list[str] = []
    for name, value in decoded.items():
        test = table.get(name)
        if test is None:
            dropped.append(name)
        elif value is not None:
            test(name, value, prompt)
    if not prompt.given:
        field = {Kind.CHAT: "messages", Kind.COMPLETION: "prompt", Kind.EMBEDDING: "input"}[kind]
        raise BadRequestError(f"'{field}' is missing.", field=field)
    asked_tokens = [decoded.get(name) for name in ("max_tokens", "max_completion_tokens") if name in table]
    max_tokens = next((number for number in asked_tokens if number not in (None, _NO_LIMIT)), None)
    dropped += [name for name in ("max_tokens", "max_completion_tokens") if decoded.get(name) == _NO_LIMIT]
    if dropped:
        body = without(body, dropped)
    if max_tokens is not None and decoded.get("max_tokens") is None:
        body = with_fields(body, max_tokens=max_tokens)  # the older name, which every engine knows
    options = decoded.get("stream_options") or {}
    return Checked(
        kind=kind,
        model=model,
        body=body,
        stream=kind is not Kind.EMBEDDING and decoded.get("stream") is True,
        needs=frozenset(prompt.needs),
        prompt_bytes=prompt.bytes,
        max_tokens=max_tokens,
        include_usage=options.get("include_usage") is True,
        dropped=tuple(dropped),
    )


def without(body: bytes, names: list[str]) -> bytes:
    """``body`` without the top-level fields ``names``; the others keep their bytes."""
    parts = _parts.decode(body)
    for name in names:
        parts.pop(name, None)
    return _encode(parts)


def with_model(body: bytes, model: str, name: str) -> bytes:
    """``body``, whose model is ``model``, for an engine that calls it ``name``; unchanged where they are the same."""
    return body if model == name else with_fields(body, model=name)


def with_fields(body: bytes, **fields: Any) -> bytes:
    """``body`` with top-level ``fields`` set; the others keep their bytes."""
    parts: dict[str, Any] = _parts.decode(body)
    return _encode(parts | fields)
