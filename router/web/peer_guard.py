"""The guard of the peer surface: who calls, decided from a request's head before a byte of its body is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from aiohttp import HttpVersion11, hdrs, web

from router.errors import failure
from router.trust import Peer, Trust
from router.web.answers import SAFE_HEADERS, Shape, error_answer
from router.web.guard import CHAT_BYTES
from router.wire_snapshot import OLDEST, PROTOCOL, PROTOCOL_HEADER

PREFIX: Final = "/peer/v1"
RUN: Final = f"{PREFIX}/run"
PAIR_1: Final = f"{PREFIX}/pair/1"
PAIR_2: Final = f"{PREFIX}/pair/2"
HELLO: Final = f"{PREFIX}/hello"
SPOKEN: Final = frozenset(map(str, range(OLDEST, PROTOCOL + 1)))
ENVELOPE_BYTES: Final = 64 * 1024
SMALL_BYTES: Final = 64 * 1024
PAIR_BYTES: Final = 16 * 1024
_TARGET: Final = re.compile(r"/peer/v1/[a-z0-9/]{1,64}")

PEER: Final = web.RequestKey("peer", Peer)


def body_limit(path: str) -> int:
    """Most bytes a body for ``path`` may have."""
    if path == RUN:
        return CHAT_BYTES + ENVELOPE_BYTES
    return PAIR_BYTES if path in (PAIR_1, PAIR_2) else SMALL_BYTES


class PeerGuard:
    """Decides over each request. ``pairing`` tells whether somebody may try a code now; ``called`` hears who calls."""

    def __init__(
        self, trust: Trust, pairing: Callable[[], bool], called: Callable[[str], None] = lambda node_id: None
    ) -> None:
        self._trust = trust
        self._pairing = pairing
        self._called = called

    def bound(self, addresses: Iterable[tuple[str, int]]) -> None:
        """Addresses say nothing here: whoever has the secret may call."""

    def check(self, request: web.BaseRequest) -> web.Response | None:
        """The refusal of ``request``, or None when it may go on. Reads no byte of the body."""
        path = request.raw_path
        if request.version != HttpVersion11 or _TARGET.fullmatch(path) is None:
            return _refuse("bad_request", "Only HTTP/1.1 and the paths of the peer surface are spoken here.")
        if hdrs.ORIGIN in request.headers or "Sec-Fetch-Site" in request.headers:
            return _refuse("forbidden", "Web pages may not call this surface.")
        if path not in (HELLO, PAIR_1, PAIR_2):
            # who it is comes first: a stranger learns nothing else
            peer = self._trust.authenticate(request.headers.get(hdrs.AUTHORIZATION, ""))
            if peer is None:
                return _refuse("unauthorized", "This computer is not paired with yours.", _PAIR_HINT)
            prove = getattr(request.protocol, "prove", None)
            if prove is not None and (code := prove(peer.node_id)):
                return _refuse(code, "You have too many connections here, or this one is another computer's.")
            request[PEER] = peer
            self._called(peer.node_id)
        elif path != HELLO and not self._pairing():
            return _refuse("forbidden", "No pairing is open on this computer, or its code is used up.", _PAIR_HINT)
        if path != HELLO and request.headers.get(PROTOCOL_HEADER) not in SPOKEN:
            return _refuse_version(request.headers.get(PROTOCOL_HEADER, ""))
        return _check_body(request, path)

    async def finish(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Put the headers every answer has; for ``Application.on_response_prepare``."""
        response.headers.update(SAFE_HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")


_PAIR_HINT: Final = "Pair the two computers on the Peers page, or with 'quorum pair'."
_VERSION: Final = re.compile(r"[0-9]{1,4}")


def _refuse_version(asked: str) -> web.Response:
    """Says which version is spoken here, in a header, too: a newer caller may know it."""
    named = f"version {asked}" if _VERSION.fullmatch(asked) else "none that is known"
    answer = _refuse(
        "bad_request",
        f"The computer that was called speaks version {PROTOCOL} of the protocol, the one that calls {named}.",
        "Install the same version of Quorum on both computers: update the older one.",
    )
    answer.headers[PROTOCOL_HEADER] = str(PROTOCOL)
    return answer


def _check_body(request: web.BaseRequest, path: str) -> web.Response | None:
    get = request.headers.get
    coding = get(hdrs.TRANSFER_ENCODING)
    if coding is not None and coding.lower() != "chunked":
        return _refuse("bad_request", "Transfer-Encoding must be 'chunked' or absent.")
    if hdrs.UPGRADE in request.headers:
        return _refuse("bad_request", "Nothing here changes its protocol.")
    if get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        return _refuse("unsupported_media_type", "Bodies must not be compressed.")
    if not request.body_exists:
        return None
    declared = request.content_length
    if declared is not None and declared > body_limit(path):
        return _refuse("payload_too_large", "The request is larger than this route takes.")
    if get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower() != "application/json":
        return _refuse("unsupported_media_type", "The body must be application/json.")
    return None


def _refuse(code: str, message: str, hint: str = "") -> web.Response:
    """Every refusal closes the connection: who is refused has no use for it."""
    answer = error_answer(Shape.CONTROL, failure(code, message, hint))
    answer.headers.update(SAFE_HEADERS)
    answer.force_close()
    return answer
