"""Which models each paired computer held when it told last: outlives its loaded copies, its absence and our restarts.

So a model whose computer sleeps is known to be there, and a request for it hears who has it instead of "no such model".
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import peewee
from msgspec.structs import replace

from router.aio import Clock
from router.store import Store
from router.tables import Holder
from router.wire_snapshot import PeerModel

log = logging.getLogger(__name__)

ENGINE: Final = "peer"
_PUT: Final = (
    "INSERT INTO holders (node, engine, model, digest, record_json, updated_at) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (node, engine, model) DO UPDATE SET digest = excluded.digest, record_json = excluded.record_json, "
    "updated_at = excluded.updated_at"
)
_DROP: Final = "DELETE FROM holders WHERE node = ? AND engine = ? AND model = ?"


class Holders:
    """In memory what is on the disk; rows are written behind, and only when a model came, went or changed."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[str, dict[str, PeerModel]] = {}

    async def open(self) -> None:
        """Read what is stored; once, after ``Store.open``. A row that can't be read is left out."""

        def read(db: peewee.SqliteDatabase) -> list[Any]:
            return list(Holder.select().where(Holder.engine == ENGINE).order_by(Holder.node, Holder.model).execute(db))

        for row in await self._store.read(read):
            try:
                model = msgspec.json.decode(row.record_json, type=PeerModel)
            except (msgspec.DecodeError, ValueError):
                log.warning("what a paired computer held can't be read; it is told anew")
                continue
            self._known.setdefault(row.node, {})[model.name] = model

    def models(self, node: str) -> list[PeerModel]:
        """What a computer held when it told last; none of it counts as loaded."""
        return list(self._known.get(node, {}).values())

    def told(self, node: str, models: Sequence[PeerModel]) -> None:
        """A computer tells what it holds now."""
        now = {model.name: _lasting(model) for model in models}
        before = self._known.get(node, {})
        for name in before.keys() - now.keys():
            self._store.put(_DROP, (node, ENGINE, name))
        for name, model in now.items():
            old = before.get(name)
            if old is None or _identity(old) != _identity(model):
                record = msgspec.json.encode(model).decode()
                self._store.put(_PUT, (node, ENGINE, name, model.digest, record, self._clock.wall()))
        self._known[node] = now

    def forget(self, node: str) -> None:
        """A computer is paired no more."""
        self.told(node, ())
        self._known.pop(node, None)


def _lasting(model: PeerModel) -> PeerModel:
    return replace(model, resident=False, problem="")


def _identity(model: PeerModel) -> PeerModel:
    """``model`` without its speeds, which change with every job."""
    return replace(model, prefill_per_s=None, tokens_per_s=None, load_s=None)
