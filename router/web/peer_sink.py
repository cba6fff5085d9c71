"""An answer on its way to a paired computer: its words, signs of life, and whether anybody is there to hear them."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import Final

import msgspec

from router.jobs import Job
from router.web.sink import StreamSink
from router.wire import Ended, State

_DONE: Final = b"data: [DONE]\n\n"
_BEAT: Final = b": beat\n\n"
_encode: Final = msgspec.json.Encoder().encode


class PeerDialect:
    """An answer as peers read it: the engine's events as they are, facts before the end, or the error."""

    content_type = "text/event-stream"

    def __init__(self, stream: bool) -> None:
        self._stream = stream

    def content(self, events: bytes) -> bytes:
        """Verbatim; the end is held back for the facts. A whole body goes in one line, which JSON allows."""
        if self._stream:
            return events.removesuffix(_DONE)
        return b"event: body\ndata: %b\n\n" % events.replace(b"\r", b" ").replace(b"\n", b" ")

    def waiting(self, state: State) -> bytes:
        """How the job stands."""
        return b"event: state\ndata: %b\n\n" % _encode(state)

    def last(self, ended: Ended) -> bytes:
        """Facts and the end; or the error, and no end."""
        if ended.error is not None:
            return b"event: error\ndata: %b\n\n" % _encode(ended.error)
        return b"event: facts\ndata: %b\n\n%b" % (_encode(ended.receipt), _DONE)


class PeerSink(StreamSink):
    """Writes to a peer what it is told of the job, too."""

    def __init__(self, job: Job, dialect: PeerDialect) -> None:
        super().__init__(job, dialect)
        self._peer_dialect = dialect

    def state(self, state: State) -> None:
        """News of the waiting."""
        self._write(self._peer_dialect.waiting(state))

    def beat(self) -> None:
        """A sign of life; one that doesn't read gets none."""
        if self not in self._job.answer.blocked:
            self._write(_BEAT)


def deaf_s(transport: asyncio.BaseTransport) -> float:
    """Seconds since the other side last acknowledged anything, while something is under way to it; 0 except on Linux.

    One that is there but doesn't read goes on acknowledging, so it is never taken for deaf.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or not hasattr(socket, "TCP_INFO") or not sys.platform.startswith("linux"):
        return 0.0
    try:
        told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
        unacknowledged, acknowledged_ms = struct.unpack_from("=I", told, 24)[0], struct.unpack_from("=I", told, 56)[0]
    except (OSError, struct.error):
        return 0.0
    return acknowledged_ms / 1000 if unacknowledged else 0.0
