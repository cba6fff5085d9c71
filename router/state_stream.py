"""The open state stream of a paired computer: its bytes cut into events, and the sentence of one that refuses it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Protocol

import aiohttp

from router.peer_client import PeerFault, decoded, small
from router.wire_snapshot import SNAPSHOT_MAX_BYTES, one_line

ANSWER_S: Final = 3.0
SENTENCE_MAX: Final = 300

Event = tuple[bytes, bytes]


class SilentFault(PeerFault):
    """Nothing came in time."""


class SleptFault(SilentFault):
    """This computer slept: the stream says nothing of the peer any more."""


class Source(Protocol):
    """The body of the answer."""

    async def readany(self) -> bytes: ...


class StateStream:
    """Events are (name, data); a comment is (b"", b"")."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._rest = bytearray()
        self._reading: asyncio.Timeout | None = None
        self._void = False

    def make_void(self) -> None:
        """This computer slept: what is under way, or comes next, is a SleptFault at once."""
        self._void = True
        if self._reading is not None:
            with contextlib.suppress(RuntimeError):
                self._reading.reschedule(asyncio.get_running_loop().time())

    async def read(self, within_s: float) -> list[Event]:
        """The events that are whole after the next bytes, perhaps none. Raises PeerFault: it is silent, or broke."""
        try:
            async with asyncio.timeout(0.0 if self._void else within_s) as self._reading:
                data = await self._source.readany()
        except TimeoutError:
            raise (SleptFault if self._void else SilentFault)("Nothing was heard of it in time.", None) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise PeerFault("The connection to it broke.", None) from error
        finally:
            self._reading = None
        if not data:
            raise PeerFault("The connection to it broke.", None)
        return self._cut(data)

    def _cut(self, data: bytes) -> list[Event]:
        self._rest += data.replace(b"\r", b"")
        if b"\n\n" not in self._rest[-len(data) - 1 :]:
            if len(self._rest) > SNAPSHOT_MAX_BYTES:
                raise PeerFault("It sent an endless line.", None)
            return []
        *whole, rest = bytes(self._rest).split(b"\n\n")
        self._rest = bytearray(rest)
        return [_event(event) for event in whole if event]


def _event(event: bytes) -> Event:
    name, data = b"", []
    for line in event.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value
        elif field == b"data":
            data.append(value)
    return (name or b"message", b"\n".join(data)) if data or name else (b"", b"")


async def refusal(response: aiohttp.ClientResponse) -> PeerFault:
    """Why there is no stream, in its own sentence where it has one."""
    said = decoded(await _whole(response))
    error = said.get("error") if isinstance(said, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    told = one_line(message, SENTENCE_MAX) if isinstance(message, str) else ""
    if response.status in (401, 403):
        return PeerFault(told or "It does not know this computer any more: pair the two again.", None)
    return PeerFault(told or f"It answered {response.status}.", None)


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    try:
        async with asyncio.timeout(ANSWER_S):
            return await small(response)
    except TimeoutError:
        return b""
