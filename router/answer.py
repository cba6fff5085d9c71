"""The answer of a job: followed by its readers, replayed to one that comes later, made void by another try."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from router.wire import Ended, State


class Reader(Protocol):
    """Somebody who follows an answer. Called on the loop, in order; must not block."""

    @property
    def keeps(self) -> bool:
        """Whether it only stores what it hears: what nobody else heard may still be said anew."""

    def content(self, events: bytes, seq: int) -> None:
        """Whole Server-Sent Events, the first of which has number ``seq`` in this try; or a whole JSON body."""

    def state(self, state: State) -> None:
        """The job moved, or something about its waiting changed."""

    def reset(self) -> None:
        """What came before is void: another try's answer follows."""

    def ended(self, ended: Ended) -> None:
        """The last call."""


class Gate(Protocol):
    """The source of an answer, which can be made to wait."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


@dataclass(slots=True)
class Answer:
    """What a job has said in its current try. Chunks are kept only for jobs asked to live on; ``size`` counts them.

    ``heard``: some of it reached a reader that does more than keep it. Only then another try would splice two answers.

    ``content_type`` is the engine's own; a stream's chunks are whole events, anything else is one JSON body.
    """

    keep: bool = False
    try_no: int = 0
    content_type: str = ""
    events: int = 0
    chunks: list[tuple[int, bytes]] = field(default_factory=list)
    size: int = 0
    heard: bool = False
    readers: list[Reader] = field(default_factory=list)
    end: Ended | None = None
    blocked: set[Reader] = field(default_factory=set)
    gate: Gate | None = None

    def block(self, reader: Reader) -> None:
        """``reader`` can't keep up: the relay reads no more until ``unblock``."""
        self.blocked.add(reader)
        if self.gate is not None:
            self.gate.pause()

    def unblock(self, reader: Reader) -> None:
        """``reader`` can take more, or left."""
        if reader in self.blocked:
            self.blocked.discard(reader)
            if not self.blocked and self.gate is not None:
                self.gate.resume()

    def attach(self, reader: Reader, after: tuple[int, int] | None = None) -> None:
        """Replay what ``reader`` missed since the event ``after`` (try, seq), then let it follow."""
        if after is not None and after[0] != self.try_no:
            reader.reset()
            after = None
        start = 0 if after is None else after[1] + 1
        if missed := self._since(start):
            self.heard = self.heard or not reader.keeps
            reader.content(missed, start)
        if self.end is not None:
            reader.ended(self.end)
        else:
            self.readers.append(reader)

    def _since(self, start: int) -> bytes:
        """What is kept from the event ``start`` on, in one piece."""
        parts = [data for seq, data in self.chunks if seq >= start]
        before = [(seq, data) for seq, data in self.chunks if seq < start]
        if before and self.content_type != "application/json":
            seq, data = before[-1]
            if seq + data.count(b"\n\n") > start:
                parts.insert(0, data.split(b"\n\n", start - seq)[-1])
        return b"".join(parts)

    def detach(self, reader: Reader) -> None:
        """Stop following; a reader that isn't there is left alone."""
        if reader in self.readers:
            self.readers.remove(reader)
        self.unblock(reader)

    def feed(self, data: bytes, events: int) -> None:
        """New content of the current try: ``events`` whole events, or a body (1)."""
        seq = self.events
        self.events += events
        if self.keep:
            self.chunks.append((seq, data))
            self.size += len(data)
        for reader in tuple(self.readers):
            self.heard = self.heard or not reader.keeps
            reader.content(data, seq)

    def restart(self, try_no: int) -> None:
        """Another try begins: what an earlier one said is void."""
        again = self.try_no > 0
        self.try_no = try_no
        self.events = 0
        self.heard = False
        self.chunks.clear()
        self.size = 0
        if again:
            for reader in tuple(self.readers):
                reader.reset()

    def tell(self, state: State) -> None:
        """Tell the readers of a move or of news about the waiting."""
        for reader in tuple(self.readers):
            reader.state(state)

    def finish(self, end: Ended) -> None:
        """The job has ended; readers are told and let go."""
        self.end = end
        readers, self.readers = self.readers, []
        for reader in readers:
            reader.ended(end)
