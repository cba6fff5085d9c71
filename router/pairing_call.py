"""How a computer that wants to be paired calls the other one: pinned, bounded, and every failure in a sentence."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import aiohttp
import msgspec

from router.errors import BadRequestError, QuorumError
from router.peer_tls import pin_of, url_of
from router.web.strict_json import decode

log = logging.getLogger(__name__)

BODY_BYTES: Final = 16 * 1024
PROTOCOL: Final = "1"


class PairingError(QuorumError):
    """Two computers could not be paired; the message says why."""

    def __init__(self, message: str, hint: str = "", *, code: str = "forbidden", status: int = 0) -> None:
        super().__init__(code, message, hint or "Open pairing on the other computer again, and type its new code.",
                         status=status)  # fmt: skip


class Caller:
    """Calls of A, pinned to the certificate it saw first."""

    def __init__(self, session: aiohttp.ClientSession, address: str, port: int, fingerprint: bytes) -> None:
        self._session = session
        self._address = address
        self._port = port
        self._pin = pin_of(fingerprint)

    async def __call__(self, path: str, said: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """The answer to a POST. Raises PairingError."""
        try:
            async with (
                asyncio.timeout(limit_s),
                self._session.post(
                    url_of(self._address, self._port, path),
                    data=msgspec.json.encode(said),
                    headers={"Content-Type": "application/json", "X-Quorum-Protocol": PROTOCOL},
                    ssl=self._pin,
                    allow_redirects=False,
                ) as answer,
            ):
                body = b""
                async for piece in answer.content.iter_any():
                    body += piece
                    if len(body) > BODY_BYTES:
                        raise PairingError("The other computer's answer is too long.")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unreachable(error) from error
        try:
            told = decode(body)
        except BadRequestError as error:
            raise PairingError("The other computer's answer can't be read.") from error
        if answer.status != 200:
            raise PairingError(_refusal(told) or f"The other computer answered {answer.status}.")
        return told


def _refusal(told: dict[str, Any]) -> str:
    error = told.get("error")
    said = error.get("message") if isinstance(error, dict) else None
    return "".join(letter for letter in said if letter.isprintable())[:200] if isinstance(said, str) else ""


def unreachable(error: BaseException) -> PairingError:
    """What the user is told when the other computer can't be called."""
    log.info("pairing failed: %s", type(error).__name__)
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        return PairingError("Another computer answered meanwhile: somebody may be between you and it.")
    return PairingError(
        "The other computer can't be reached at that address.",
        "Check the address, that both are in one network, and that pairing is open there.",
        code="peer_failed",
    )
