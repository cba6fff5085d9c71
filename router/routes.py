"""Which route policy a model has: its own, else that of all."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache


def route_of(model: str, settings: Mapping[str, str]) -> str:
    """The policy for ``model`` as it was asked for: of ``model_routes``, else ``route``."""
    return _own(settings["model_routes"]).get(_normal(model)) or settings["route"]


@lru_cache(maxsize=8)
def _own(text: str) -> Mapping[str, str]:
    """``model=route`` entries, separated by commas; of two for one model the last counts."""
    entries = (entry.rpartition("=") for entry in text.split(","))
    return {_normal(model): route.strip() for model, _, route in entries if model.strip()}


def _normal(model: str) -> str:
    return model.strip().lower().removesuffix(":latest")
