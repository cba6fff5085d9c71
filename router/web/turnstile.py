"""Lets a few requests of a burst begin in each turn of the loop.

The loop runs everything that is ready before it looks at the sockets again: of 64 requests that arrive together, each
would wait for the work of all the others before its first byte. With a few a turn, the first answers come back while
the last requests still begin.
"""

from __future__ import annotations

import asyncio
from collections import deque

A_TURN = 2


class Turnstile:
    """``await enter()`` at the start of a request; in order, at most ``a_turn`` in one turn of the loop."""

    def __init__(self, a_turn: int = A_TURN) -> None:
        self._a_turn = a_turn
        self._left = a_turn
        self._turning = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        """Go on at once, or in one of the next turns."""
        loop = asyncio.get_running_loop()
        if not self._turning:
            self._turning = True
            loop.call_soon(self._turn)
        if self._left and not self._waiting:
            self._left -= 1
            return
        place: asyncio.Future[None] = loop.create_future()
        self._waiting.append(place)
        await place

    def _turn(self) -> None:
        self._left = self._a_turn
        while self._left and self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                self._left -= 1
        self._turning = self._left < self._a_turn or bool(self._waiting)
        if self._turning:
            asyncio.get_running_loop().call_soon(self._turn)
