"""The bus: tells and never decides. Subscribers with a queue get a new snapshot instead of what they missed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

QUEUE_LIMIT = 256

OVERFLOW = object()
"""Put in a full queue in place of everything in it: the reader starts again from a snapshot."""


class Bus:
    """In-process publish and subscribe, on one loop. Listeners run inline and must be quick."""

    def __init__(self) -> None:
        self._listeners: dict[type, list[Callable[[Any], None]]] = {}
        self._queues: set[asyncio.Queue[Any]] = set()

    def listen(self, kind: type, listener: Callable[[Any], None]) -> None:
        """Call ``listener`` with every event of exactly the class ``kind``."""
        self._listeners.setdefault(kind, []).append(listener)

    def publish(self, event: object) -> None:
        """Tell everybody; a listener's failure is logged and stays its own."""
        for listener in self._listeners.get(type(event), ()):
            try:
                listener(event)
            except Exception:
                log.exception("a listener of %s failed", type(event).__name__)

    def push(self, item: object) -> None:
        """Give ``item`` to every open queue."""
        for queue in self._queues:
            if queue.full():
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(OVERFLOW)
            else:
                queue.put_nowait(item)

    @property
    def watched(self) -> bool:
        """Whether any queue is open, so that building items for ``push`` is worth it."""
        return bool(self._queues)

    @contextmanager
    def queue(self) -> Iterator[asyncio.Queue[Any]]:
        """A queue of everything pushed while the block runs; ``OVERFLOW`` in it means: take a new snapshot."""
        queue: asyncio.Queue[Any] = asyncio.Queue(QUEUE_LIMIT)
        self._queues.add(queue)
        try:
            yield queue
        finally:
            self._queues.discard(queue)
