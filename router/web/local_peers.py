"""The control surface's routes of other computers: ``/local/v1/peers`` and ``/local/v1/pairing``."""

from __future__ import annotations

from typing import Protocol, TypeVar

import msgspec
from aiohttp import web

from router.errors import BadRequestError
from router.web.answers import json_answer
from router.web.strict_json import decode
from router.wire import Wire
from router.wire_peers import (
    DoctorReport,
    Examine,
    JoinPairing,
    PairingAnswer,
    PairingInfo,
    PeerInfo,
    PeerPatch,
    ReachAt,
)

T = TypeVar("T", bound=Wire)


class Peers(Protocol):
    """What the routes need of ``router.peers``. Failures are QuorumError."""

    def infos(self) -> list[PeerInfo]:
        """The paired computers and those seen, as the page lists them."""

    def pairing(self) -> PairingInfo:
        """Pairing as this computer offers it now."""

    async def open_pairing(self) -> PairingInfo:
        """Show digits that let one computer pair; an open pairing is replaced."""

    async def close_pairing(self) -> PairingInfo:
        """Take the digits back; one that asks is refused."""

    def answer(self, answer: PairingAnswer) -> PairingInfo:
        """What the user says to the one that asks."""

    async def join(self, asked: JoinPairing) -> PeerInfo:
        """Pair with the computer that shows the digits."""

    async def patch(self, peer_id: str, patch: PeerPatch) -> PeerInfo:
        """Change what a computer may do here, or whether it is shown."""

    async def unpair(self, peer_id: str) -> PeerInfo:
        """End the pairing at once; the computer as it was."""

    async def examine(self, peer_id: str) -> DoctorReport:
        """What the doctor says of one paired computer, or (empty) of all."""

    async def reach(self, peer_id: str, address: str) -> PeerInfo:
        """Follow a paired computer at the address that the user gives."""


class PeerRoutes:
    """Handlers behind the control token or the page's session."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        base = "/local/v1"
        app.router.add_get(f"{base}/peers", self.list)
        app.router.add_patch(f"{base}/peers/{{id}}", self.patch)
        app.router.add_delete(f"{base}/peers/{{id}}", self.unpair)
        app.router.add_post(f"{base}/peers/{{id}}/address", self.reach)
        app.router.add_post(f"{base}/doctor", self.examine)
        app.router.add_get(f"{base}/pairing", self.pairing)
        app.router.add_post(f"{base}/pairing/open", self.open)
        app.router.add_post(f"{base}/pairing/close", self.close)
        app.router.add_post(f"{base}/pairing/answer", self.answer)
        app.router.add_post(f"{base}/pairing/join", self.join)

    async def list(self, request: web.Request) -> web.Response:
        """``GET peers``: paired ones first."""
        return json_answer(self._peers.infos())

    async def patch(self, request: web.Request) -> web.Response:
        """``PATCH peers/{id}``."""
        return json_answer(await self._peers.patch(request.match_info["id"], await _body(request, PeerPatch)))

    async def unpair(self, request: web.Request) -> web.Response:
        """``DELETE peers/{id}``: the computer as it was."""
        return json_answer(await self._peers.unpair(request.match_info["id"]))

    async def reach(self, request: web.Request) -> web.Response:
        """``POST peers/{id}/address``: answers when the computer was found there."""
        asked = await _body(request, ReachAt)
        return json_answer(await self._peers.reach(request.match_info["id"], asked.address))

    async def examine(self, request: web.Request) -> web.Response:
        """``POST doctor``: answers after some seconds."""
        return json_answer(await self._peers.examine((await _body(request, Examine)).id))

    async def pairing(self, request: web.Request) -> web.Response:
        """``GET pairing``."""
        return json_answer(self._peers.pairing())

    async def open(self, request: web.Request) -> web.Response:
        """``POST pairing/open``: the digits, for 120 s."""
        return json_answer(await self._peers.open_pairing())

    async def close(self, request: web.Request) -> web.Response:
        """``POST pairing/close``."""
        return json_answer(await self._peers.close_pairing())

    async def answer(self, request: web.Request) -> web.Response:
        """``POST pairing/answer``."""
        return json_answer(self._peers.answer(await _body(request, PairingAnswer)))

    async def join(self, request: web.Request) -> web.Response:
        """``POST pairing/join``: answers when the other computer's user has."""
        return json_answer(await self._peers.join(await _body(request, JoinPairing)), status=201)


async def _body(request: web.Request, kind: type[T]) -> T:
    """The request's body as ``kind``. Raises BadRequestError naming the field."""
    try:
        return msgspec.convert(decode(await request.read()), kind)
    except msgspec.ValidationError as error:
        raise BadRequestError(f"The request is not as expected: {error}.") from error
