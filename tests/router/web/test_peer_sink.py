"""How an answer reads to a paired computer."""

from __future__ import annotations

from router.web.peer_sink import PeerDialect
from tests.fakes import DONE, chunk


def test_a_last_event_alone_leaves_nothing_to_send() -> None:
    dialect = PeerDialect(stream=True)
    assert dialect.content(DONE) == b""
    assert dialect.content(chunk("a") + DONE) == chunk("a")
