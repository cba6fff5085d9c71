"""Pairing two computers with six digits: SPAKE2 bound to both certificates, three attempts, no guessing offline.

The side that shows the digits is B, the one where they are typed is A. B answers A's message with its own and with
nothing else: only A's confirmation, which a wrong code can't make, brings B's. The numbers are those of the trust page.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from router import pairing_code
from router.aio import Clock
from router.errors import BadRequestError, StoreError
from router.identity import Identity
from router.pairing_call import Caller, PairingError, unreachable
from router.pairing_code import CODE_DIGITS, MESSAGE_BYTES, derive, hexadecimal, text
from router.peer_tls import certificate_at, client_session
from router.trust import ADDRESSES_MAX, Peer, Trust, clean_name, fingerprint_of, node_id_of, secret_hash
from router.web.network import is_lan

__all__ = ["Answer", "Opened", "PairingAsk", "PairingDesk", "PairingError", "PairingState", "Phase", "join"]

OPEN_S: Final = 120.0
ATTEMPTS: Final = 3
ANSWER_S: Final = 120.0  # how long the user of B may think
STEP_S: Final = 10.0
_PORT: Final = 7412


class Phase(StrEnum):
    """Where a pairing that this computer offers stands."""

    CLOSED = "closed"
    OPEN = "open"
    ASKING = "asking"
    PAIRED = "paired"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PairingAsk:
    """Who typed the right code: what the user of B is asked about."""

    node_id: str
    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the user of B says: whether to pair, and what the other computer may do here."""

    accept: bool
    may_use: bool = False
    may_manage: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """The six digits to type on the other computer, until the wall time ``until``."""

    code: str
    until: float


@dataclass(frozen=True, slots=True)
class PairingState:
    """For the page. ``detail`` says in one sentence why it failed."""

    phase: Phase = Phase.CLOSED
    code: str = ""
    until: float | None = None
    attempts_left: int = 0
    ask: PairingAsk | None = None
    detail: str = ""


Accept = Callable[[PairingAsk], Awaitable[Answer]]


@dataclass(slots=True)
class _Offer:
    code: str
    until: float
    until_mono: float
    accept: Accept
    left: int = ATTEMPTS


class PairingDesk:
    """The side that shows the digits. One open pairing at a time; ``changed`` hears of each step.

    ``own`` tells this computer's name, addresses and peer port.
    """

    def __init__(
        self,
        identity: Identity,
        trust: Trust,
        clock: Clock,
        own: Callable[[], tuple[str, Sequence[str], int]],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.state = PairingState()
        self._id = identity.node_id
        self._trust = trust
        self._clock = clock
        self._own = own
        self._changed = changed
        self._offer: _Offer | None = None
        self._sessions: dict[str, tuple[_Offer, bytes, bytes]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[Any] | None = None

    @property
    def is_open(self) -> bool:
        """Whether somebody may try a code now."""
        return self._current() is not None

    @property
    def busy(self) -> bool:
        """Whether the port of the peer surface is needed: a code may be tried, or the user is being asked."""
        return self.is_open or self.state.phase is Phase.ASKING

    def open(self, accept: Accept) -> Opened:
        """Show a new code for 120 s. ``accept`` asks the user once somebody typed it right. An older one is void.

        So is a question that is open.
        """
        self.close()
        code = f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}d}"
        now, mono = self._clock.wall(), self._clock.mono()
        self._offer = _Offer(code, now + OPEN_S, mono + OPEN_S, accept)
        self._timer = asyncio.get_running_loop().call_later(OPEN_S, self._expired, self._offer)
        self._set(PairingState(Phase.OPEN, code, self._offer.until, ATTEMPTS))
        return Opened(code, self._offer.until)

    def close(self) -> None:
        """The code is void, and nobody is asked any more."""
        if self._asking is not None:
            self._asking.cancel()
        self._end(PairingState())

    def _expired(self, offer: _Offer) -> None:
        if self._offer is offer:
            self._end(PairingState(Phase.FAILED, detail="Nobody typed the code in time."))

    def _end(self, state: PairingState) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._offer = None
        self._sessions.clear()
        self._set(state)

    def _set(self, state: PairingState) -> None:
        if state != self.state:
            self.state = state
            self._changed()

    def _current(self) -> _Offer | None:
        offer = self._offer
        if offer is None or self._clock.mono() >= offer.until_mono:
            return None
        return offer

    # -- what the peer surface passes on

    async def first(self, asked: dict[str, Any]) -> dict[str, Any]:
        """``pair/1``: A's fingerprint and message; the attempt counts now. Raises PairingError, BadRequestError."""
        offer = self._current()
        if offer is None or offer.left <= 0:
            raise _closed()
        offer.left -= 1  # before anything is looked at
        self._set(PairingState(Phase.OPEN, offer.code, offer.until, offer.left))
        theirs = hexadecimal(asked, "fingerprint", 32)
        message = hexadecimal(asked, "message", MESSAGE_BYTES)
        if theirs == fingerprint_of(self._id):
            raise PairingError("This computer can't be paired with itself.")
        made = await asyncio.to_thread(pairing_code.answer, offer.code, theirs, fingerprint_of(self._id), message)
        if made is None:
            self._missed(offer)
            raise BadRequestError("'message' is no message of a pairing.", field="message")
        if self._offer is not offer:
            raise _closed()
        own, key = made
        session = secrets.token_hex(16)
        self._sessions[session] = (offer, key, theirs)
        return {"session": session, "message": own.hex()}

    async def second(self, asked: dict[str, Any], address: str) -> dict[str, Any]:
        """``pair/2``: A's confirmation, checked in constant time; then the user is asked. Raises PairingError."""
        found = self._sessions.pop(str(asked.get("session"))[:64], None)
        confirmation = hexadecimal(asked, "confirmation", 32)
        offer = self._current()
        if found is None or offer is None or found[0] is not offer:
            raise _closed()
        _, key, theirs = found
        if not hmac.compare_digest(confirmation, derive(key, b"confirm A")):
            self._missed(offer)
            raise PairingError("The code is wrong.", "Look at the six digits again; a code allows three attempts.")
        if not pairing_code.proven(asked, theirs, confirmation):
            self._missed(offer)
            raise PairingError("The certificate is not that of the computer that asks.")
        ask = PairingAsk(node_id_of(theirs), clean_name(text(asked, "name")), address)
        self._end(PairingState(Phase.ASKING, ask=ask))  # the code has done its work: nobody else can use it
        answer = await self._asked(offer, ask)
        peer = Peer(
            node_id=ask.node_id,
            name=ask.name,
            certificate_sha256=theirs,
            secret_out=derive(key, b"B->A").hex(),
            secret_in_sha256=secret_hash(derive(key, b"A->B").hex()),
            addresses=_addresses(asked, address),
            port=pairing_code.port(asked, _PORT),
            may_use=answer.may_use,
            may_manage=answer.may_manage,
        )
        try:
            await self._trust.add(peer)
        except (StoreError, OSError):
            self._asked_about(ask, Phase.FAILED, "The disk of the data folder can't be written.")
            raise
        self._asked_about(ask, Phase.PAIRED)
        name, addresses, port = self._own()
        return {
            "confirmation": derive(key, b"confirm B").hex(),
            "name": name,
            "addresses": list(addresses),
            "port": port,
            "may_use": answer.may_use,
        }

    async def _asked(self, offer: _Offer, ask: PairingAsk) -> Answer:
        """What the user says. Raises PairingError when that is no, or nothing in time."""
        self._asking = asyncio.current_task()
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await offer.accept(ask)
        except TimeoutError:
            self._asked_about(ask, Phase.FAILED, "Nobody answered in time.")
            raise PairingError("Nobody answered at the other computer.") from None
        except asyncio.CancelledError:
            self._asked_about(ask, Phase.FAILED, "The other computer went away.")
            raise
        finally:
            self._asking = None
        if not answer.accept:
            self._asked_about(ask, Phase.FAILED, "You declined.")
            raise PairingError("The other computer's user declined.")
        return answer

    def _asked_about(self, ask: PairingAsk, phase: Phase, detail: str = "") -> None:
        """How it ended with the one that the user was asked about, unless newer digits are shown or it was closed."""
        if self.state.phase is Phase.ASKING and self.state.ask is ask:
            self._set(PairingState(phase, ask=ask, detail=detail))

    def _missed(self, offer: _Offer) -> None:
        """An attempt failed; after the last, and with none under way, the code is void."""
        if self._offer is offer and offer.left <= 0 and not self._sessions:
            self._end(PairingState(Phase.FAILED, detail="A wrong code was typed three times."))


async def join(
    address: str,
    port: int,
    code: str,
    identity: Identity,
    trust: Trust,
    own: tuple[str, Sequence[str], int],
    *,
    may_use: bool,
    may_manage: bool = False,
    expected: str = "",
) -> Peer:
    """Pair with the computer at ``address`` that shows ``code``; ``may_use`` is what it may do here.

    ``own`` are this computer's name, addresses and peer port; ``expected`` is the node id that was chosen from a list.
    Raises PairingError and StoreError; then nothing was stored here.
    """
    digits = "".join(code.split())
    if len(digits) != CODE_DIGITS or not (digits.isascii() and digits.isdigit()):
        raise PairingError("The code must be six digits.", code="bad_request")
    try:
        theirs = await certificate_at(address, port)
    except (OSError, TimeoutError) as error:
        raise unreachable(error) from error
    mine = fingerprint_of(identity.node_id)
    if theirs == mine:
        raise PairingError("This computer can't be paired with itself.")
    if expected and node_id_of(theirs) != expected:
        raise PairingError("Another computer answers at that address.", "Choose it from the list again.")
    async with client_session() as session:
        call = Caller(session, address, port, theirs)
        side, message = await asyncio.to_thread(pairing_code.begin, digits, mine, theirs)
        got = await call("/peer/v1/pair/1", {"fingerprint": mine.hex(), "message": message.hex()}, STEP_S)
        key = await asyncio.to_thread(pairing_code.finish, side, _peers_hex(got, "message", MESSAGE_BYTES))
        if key is None:
            raise PairingError("The other computer's answer is no message of a pairing.")
        confirmation = derive(key, b"confirm A")
        proof = await asyncio.to_thread(pairing_code.prove, identity.certificate, identity.key, confirmation)
        name, addresses, own_port = own
        said = {
            "session": text(got, "session"),
            "confirmation": confirmation.hex(),
            "name": name,
            "addresses": list(addresses),
            "port": own_port,
            **proof,
        }
        told = await call("/peer/v1/pair/2", said, ANSWER_S + STEP_S)
    if not hmac.compare_digest(_peers_hex(told, "confirmation", 32), derive(key, b"confirm B")):
        raise PairingError("The other computer does not know the code: somebody may be between you and it.")
    peer = Peer(
        node_id=node_id_of(theirs),
        name=clean_name(text(told, "name")),
        certificate_sha256=theirs,
        secret_out=derive(key, b"A->B").hex(),
        secret_in_sha256=secret_hash(derive(key, b"B->A").hex()),
        addresses=_addresses(told, address),
        port=port,
        may_use=may_use,
        may_manage=may_manage,
    )
    await trust.add(peer)
    return trust.get(peer.node_id) or peer


def _peers_hex(told: dict[str, Any], name: str, size: int) -> bytes:
    try:
        return hexadecimal(told, name, size)
    except BadRequestError as error:
        raise PairingError("The other computer's answer can't be read.") from error


def _closed() -> PairingError:
    return PairingError("No pairing is open on this computer, or its code is used up.")


def _addresses(said: dict[str, Any], seen: str) -> tuple[str, ...]:
    """Where the other one was just seen, then what it says of itself, which is tried no more than anything else."""
    listed = said.get("addresses")
    told = [one for one in listed if isinstance(one, str) and is_lan(one)] if isinstance(listed, list) else []
    return tuple(dict.fromkeys([seen, *told]))[:ADDRESSES_MAX]
