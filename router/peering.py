"""This node among others: listens for them, shows itself while it shares, keeps a link to each paired one.

What must be on follows from what is wanted, in ``settle`` alone; everything else only wakes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol

from router.aio import Tasks
from router.errors import QuorumError
from router.pairing import PairingDesk
from router.peer_looks import USUAL_PORT, Link, Seen
from router.settings import Settings
from router.states import PeerState
from router.trust import Peer, Trust
from router.web.network import lan_addresses

log = logging.getLogger(__name__)

LOOK_S: Final = 15.0


class Surface(Protocol):
    """The socket on which paired computers reach this one."""

    async def start(self, addresses: Sequence[str], port: int) -> int: ...
    async def goodbye(self, *, asleep: bool = False) -> None: ...
    def back(self) -> None: ...
    async def stop(self) -> None: ...


class Finder(Protocol):
    """mDNS: who is seen, and whether this node is."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def announce(self, name: str, addresses: Sequence[str], port: int) -> None: ...
    async def withdraw(self) -> None: ...
    async def refresh(self) -> None: ...
    def sightings(self) -> tuple[Seen, ...]: ...


class Peering:
    """From ``start`` to ``stop``; ``close`` is called last. ``changed`` hears of news of other computers."""

    def __init__(
        self,
        *,
        trust: Trust,
        desk: PairingDesk,
        surface: Surface,
        finder: Finder | None,
        link: Callable[[Peer], Link],
        settings: Settings,
        tasks: Tasks,
        name: Callable[[], str],
        changed: Callable[[], None],
        close: Callable[[], Awaitable[None]],
        addresses: Callable[[], list[str]] = lan_addresses,
    ) -> None:
        self.port = 0
        self.trouble = ""
        self._trust = trust
        self._desk = desk
        self._surface = surface
        self._finder = finder
        self._make_link = link
        self._settings = settings
        self._tasks = tasks
        self._name = name
        self._changed = changed
        self._close = close
        self._look = addresses
        self._addresses: list[str] = []
        self._listening: list[str] = []
        self._announced: tuple[str, tuple[str, ...], int] | None = None
        self._links: dict[str, tuple[Peer, Link]] = {}
        self._joining = False
        self._away = self._stale = False
        self._wake = asyncio.Event()
        self._settling = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    # -- life

    def start(self) -> None:
        """Begin to listen, to show this node and to reach for the paired ones, as far as the settings want it."""
        self._trust.listen(lambda _: self.poke())
        self._settings.listen(self._settings_changed)
        self._task = self._tasks.spawn("peering", self._run())

    async def goodbye(self, *, asleep: bool = False) -> None:
        """This node goes, or sleeps: whoever follows it sends it nothing more, and mDNS shows it to nobody."""
        self._away, self._announced = True, None
        parts = [self._surface.goodbye(asleep=asleep)] if self._listening else []
        parts += [self._finder.withdraw()] if self._finder is not None else []
        await asyncio.gather(*parts)

    def back(self) -> None:
        """This node slept: nothing that was open to others counts, and it shows itself and looks for them again."""
        self._away, self._announced, self._stale = False, None, True
        self._surface.back()
        for _, link in self._links.values():
            link.poke(anew=True)
        self.poke()

    async def stop(self) -> None:
        """Say goodbye and end everything; at most about a second."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._desk.close()
        if self._listening:
            await self._surface.stop()
        links, self._links = self._links, {}
        await asyncio.gather(*(link.stop() for _, link in links.values()), return_exceptions=True)
        if self._finder is not None:
            await self._finder.stop()
        await self._close()

    def poke(self) -> None:
        """Something about other computers changed: tell it, and see to what must be on."""
        self._wake.set()
        self._changed()

    def sighted(self) -> None:
        """Others are seen, elsewhere or no more: those that are not reached are tried at once."""
        seen = {one.node_id for one in self.sightings()}
        for node_id, (_, link) in self._links.items():
            if node_id in seen and link.state in (PeerState.OFFLINE, PeerState.UNHEALTHY):
                link.poke()
        self._changed()

    def _settings_changed(self, names: frozenset[str]) -> None:
        if names & {"share", "name"}:
            self.poke()

    async def _run(self) -> None:
        await self._try_to_settle()
        if self._finder is not None:
            await self._finder.start()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
            self._wake.clear()
            if self._stale and self._finder is not None:
                self._stale = False
                await self._finder.refresh()
            await self._try_to_settle()

    async def _try_to_settle(self) -> None:
        try:
            await self.settle()
        except (OSError, QuorumError) as error:
            self.trouble = str(error)
            log.warning("other computers can't reach this one: %s", error)
        else:
            self.trouble = ""

    async def settle(self) -> None:
        """Switch on and off what the settings, the pairings and an open pairing want. Raises OSError, QuorumError."""
        async with self._settling:
            self._addresses = await asyncio.to_thread(self._look)
            await self._settle_surface()
            await self._settle_announcement()
            await self._settle_links()

    async def _settle_surface(self) -> None:
        wanted = bool(self._settings["share"]) or self._desk.busy or self._joining or bool(self._trust.peers())
        addresses = self._addresses if wanted else []
        if addresses == self._listening:
            return
        if self._listening and not addresses:
            await self._surface.stop()
            self._listening = []
            return
        self.port = await self._surface.start(addresses, self._settings["peer_port"])
        self._listening = list(addresses)

    async def _settle_announcement(self) -> None:
        if self._finder is None:
            return
        shown = bool(self._settings["share"]) and bool(self._listening) and not self._away
        told = (self._name(), tuple(self._listening), self.port) if shown else None
        if told == self._announced:
            return
        self._announced = told
        if told is None:
            await self._finder.withdraw()
        else:
            await self._finder.announce(*told)

    async def _settle_links(self) -> None:
        wanted = {peer.node_id: peer for peer in self._trust.peers() if not peer.ignored}
        for node_id, (peer, link) in tuple(self._links.items()):
            known = wanted.get(node_id)
            if known is None or known.secret_out != peer.secret_out:
                del self._links[node_id]
                await link.stop()
            elif known != peer:
                self._links[node_id] = (known, link)
                link.renew(known)
        for node_id, peer in wanted.items():
            if node_id not in self._links:
                link = self._make_link(peer)
                self._links[node_id] = (peer, link)
                await link.start()
        self._changed()

    @asynccontextmanager
    async def joining(self) -> AsyncIterator[None]:
        """Listen meanwhile: a computer that this one pairs with is told at which port. Raises OSError, QuorumError."""
        self._joining = True
        try:
            await self.settle()
            yield
        finally:
            self._joining = False
            self.poke()

    # -- how this computer stands in its networks, and who is there

    def own(self) -> tuple[str, Sequence[str], int]:
        """Name, addresses and peer port, as this computer tells them to one that it pairs with."""
        return self._name(), self._addresses, self.port or int(self._settings["peer_port"]) or USUAL_PORT

    @property
    def addresses(self) -> Sequence[str]:
        """Those of this computer in its networks, as last looked."""
        return self._addresses

    @property
    def listens(self) -> bool:
        """Whether other computers can call this one."""
        return bool(self._listening)

    def line(self, node_id: str) -> Link | None:
        """The open line to a paired computer that is not ignored."""
        return self._links.get(node_id, (None, None))[1]

    def sightings(self) -> tuple[Seen, ...]:
        """Who is seen in the network now; nothing of it is trusted."""
        return self._finder.sightings() if self._finder is not None else ()
