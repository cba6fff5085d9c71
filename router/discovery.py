"""mDNS: announces this node while it shares, and browses for others. What it sees are hints, never a decision."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import random
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from router.aio import Clock, Tasks
from router.sightings import UNPAIRED_MAX, Network, Sighting, Sightings, in_vpn, lan_first, own_networks, read
from router.wire_snapshot import PROTOCOL, one_line

log = logging.getLogger(__name__)

SERVICE: Final = "_quorum._tcp.local."
LOOK_S: Final = 15.0
AGAIN_S: Final = 60.0
RESOLVE_S: Final = 3.0
RESOLVERS: Final = 8
PENDING_MAX: Final = 512
TURN_S: Final = 0.01
REST: Final = 4  # times as long as it worked: a flood gets a fifth of this computer's time
GOODBYE_S: Final = 1.0
TTL_S: Final = 120
NAME_BYTES: Final = 63
_LABEL: Final = re.compile(r"[a-z2-7]{52}")


class Discovery:
    """From ``start`` to ``stop``. ``changed`` hears when somebody is seen anew, elsewhere or no more.

    ``paired`` gives the ids of paired nodes, whose sightings are never evicted. ``interfaces`` None: all there are.
    ``deaf`` says why others can't be looked for now; empty while they can.
    """

    def __init__(
        self,
        node_id: str,
        tasks: Tasks,
        clock: Clock,
        *,
        changed: Callable[[], None] = lambda: None,
        paired: Callable[[], Iterable[str]] = lambda: (),
        networks: Callable[[], tuple[Network, ...]] = own_networks,
        interfaces: Sequence[str] | None = None,
        service: str = SERVICE,
    ) -> None:
        self._node_id = node_id
        self._tasks = tasks
        self._clock = clock
        self._changed = changed
        self._paired = paired
        self._look_networks = networks
        self._interfaces = interfaces
        self._service = service
        self._seen = Sightings()
        self._networks: tuple[Network, ...] = ()
        self._zeroconf: Any = None
        self._browser: Any = None
        self._wanted: Any = None
        self._shown: Any = None
        self._publishing: asyncio.Task[None] | None = None
        self._pending: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._unresolved: dict[str, None] = {}
        self._wake_resolvers = asyncio.Event()
        self._running: list[asyncio.Task[None]] = []
        self.deaf = ""

    # -- life

    async def start(self) -> None:
        """Begin to browse. Where that can't be done (no network) it is tried again by and by."""
        self._networks = await asyncio.to_thread(self._look_networks)
        await self._open()
        self._running = [
            self._tasks.spawn("mdns look", self._look_on()),
            self._tasks.spawn("mdns take", self._take_on()),
            *(self._tasks.spawn("mdns resolve", self._resolve_on()) for _ in range(RESOLVERS)),
        ]

    async def stop(self) -> None:
        """Say goodbye and end; at most about a second."""
        await self.withdraw()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._running.clear()
        await self._close()

    async def refresh(self) -> None:
        """Browse again: this machine slept, or its networks changed."""
        self._networks = await asyncio.to_thread(self._look_networks)
        if self._zeroconf is None:
            await self._open()
            return
        try:
            if self._interfaces is None:
                await self._zeroconf.async_update_interfaces()
            await self._browse()
        except (OSError, RuntimeError) as error:
            self._trouble(error)
            await self._close()
            await self._open()

    async def _open(self) -> None:
        # zeroconf is imported here only: a node that doesn't look for others doesn't need it
        from zeroconf import InterfaceChoice, IPVersion
        from zeroconf.asyncio import AsyncZeroconf

        logging.getLogger("zeroconf").setLevel(logging.ERROR)
        interfaces = list(self._interfaces) if self._interfaces is not None else InterfaceChoice.All
        for version in (IPVersion.All, IPVersion.V4Only):
            try:
                self._zeroconf = AsyncZeroconf(interfaces=interfaces, ip_version=version)
                await self._zeroconf.zeroconf.async_wait_for_start()
                await self._browse()
            except (OSError, RuntimeError, ValueError) as error:
                self._trouble(error)
                await self._close()
                continue
            self.deaf = ""
            self._publish()
            return

    def _trouble(self, error: Exception) -> None:
        told, self.deaf = self.deaf, one_line(getattr(error, "strerror", None) or str(error) or type(error).__name__)
        if not told:
            log.warning("other computers can't be looked for now: %s", error)

    async def _close(self) -> None:
        zeroconf, self._zeroconf = self._zeroconf, None
        self._browser = self._shown = None
        if zeroconf is not None:
            with contextlib.suppress(TimeoutError, OSError, RuntimeError):
                async with asyncio.timeout(GOODBYE_S):
                    await zeroconf.async_close()

    async def _browse(self) -> None:
        from zeroconf.asyncio import AsyncServiceBrowser

        if self._browser is not None:
            await self._browser.async_cancel()
        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, self._service, handlers=[self._heard])

    # -- announcing

    async def announce(self, name: str, addresses: Sequence[str], port: int) -> None:
        """Show this node at ``addresses`` and ``port`` from now on, instead of as before; others see it 2 s later."""
        from zeroconf import ServiceInfo

        packed = [ipaddress.ip_address(a.partition("%")[0]).packed for a in lan_first(addresses, self._networks)]
        short = name.encode()[:NAME_BYTES].decode(errors="ignore")
        self._wanted = ServiceInfo(
            self._service,
            f"{self._node_id}.{self._service}",
            port=port,
            addresses=packed,
            properties={"v": str(PROTOCOL), "id": self._node_id, "name": short},
            server=f"quorum-{self._node_id[:16]}.local.",
            host_ttl=TTL_S,
            other_ttl=TTL_S,
        )
        self._publish()

    async def withdraw(self) -> None:
        """Show it no more; the goodbye has gone out when this returns."""
        self._wanted = None
        self._publish()
        if self._publishing is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S + 2):
                    await asyncio.shield(asyncio.gather(self._publishing, return_exceptions=True))

    def _publish(self) -> None:
        if (self._publishing is None or self._publishing.done()) and self._zeroconf is not None:
            self._publishing = self._tasks.spawn("mdns announce", self._publish_wanted())

    async def _publish_wanted(self) -> None:
        """Bring what is shown to what is wanted, which may change meanwhile."""
        while self._zeroconf is not None and self._shown is not self._wanted:
            wanted, shown = self._wanted, self._shown
            try:
                if wanted is None:
                    await (await self._zeroconf.async_unregister_service(shown))
                elif shown is None:
                    await (await self._zeroconf.async_register_service(wanted, cooperating_responders=True))
                else:
                    await (await self._zeroconf.async_update_service(wanted))
            except Exception as error:  # zeroconf has errors of its own, and sockets come and go
                log.warning("this computer can't be announced now: %s", type(error).__name__)
                return
            self._shown = wanted

    # -- browsing

    def _heard(self, zeroconf: Any, service_type: str, name: str, state_change: Any) -> None:
        """A name came, changed or went. Names that are no node id are not even looked up."""
        label = name.removesuffix(f".{self._service}").lower()
        if state_change.name == "Removed":
            if self._seen.drop(label):
                self._changed()
            return
        if label == self._node_id or _LABEL.fullmatch(label) is None:
            return
        if len(self._pending) < PENDING_MAX or label in self._paired():
            self._pending[label] = None
            self._wake.set()

    async def _take_on(self) -> None:
        """Look at what was heard of, paired nodes first. One packet can bring thousands of names up again."""
        loop = asyncio.get_running_loop()
        while True:
            while not self._pending:
                self._wake.clear()
                await self._wake.wait()
            began = loop.time()
            while self._pending and loop.time() - began < TURN_S:
                label = next((paired for paired in self._paired() if paired in self._pending), None)
                self._look_at(label or next(iter(self._pending)))
            await asyncio.sleep(REST * (loop.time() - began))

    def _look_at(self, label: str) -> None:
        del self._pending[label]
        if self._zeroconf is None:
            return
        info = self._info(label)
        if info.load_from_cache(self._zeroconf.zeroconf):  # an honest announcement comes with all of it
            self._take(label, info)
        elif len(self._unresolved) < PENDING_MAX:
            self._unresolved[label] = None
            self._wake_resolvers.set()

    def _info(self, label: str) -> Any:
        from zeroconf.asyncio import AsyncServiceInfo

        return AsyncServiceInfo(self._service, f"{label}.{self._service}")

    async def _resolve_on(self) -> None:
        """Look up what was only heard of, one name at a time in each of a few tasks."""
        while True:
            while not self._unresolved:
                self._wake_resolvers.clear()
                await self._wake_resolvers.wait()
            label = next(iter(self._unresolved))
            del self._unresolved[label]
            if self._zeroconf is not None:
                info = self._info(label)
                if await info.async_request(self._zeroconf.zeroconf, RESOLVE_S * 1000):
                    self._take(label, info)

    def _take(self, label: str, info: Any) -> None:
        from zeroconf import IPVersion

        try:
            addresses = info.parsed_scoped_addresses(IPVersion.All)
            sighting = read(label, addresses, info.port, info.properties, self._networks, self._node_id)
        except Exception as error:  # whatever a packet can make zeroconf raise must not end the browsing
            log.info("an announcement can't be read: %s", type(error).__name__)
            return
        if sighting is not None and self._seen.put(sighting, self._clock.mono(), frozenset(self._paired())):
            self._changed()

    async def _look_on(self) -> None:
        """Follow the networks of this computer, look again at those seen, and forget those gone for long."""
        looked = self._clock.mono()
        while True:
            await asyncio.sleep(LOOK_S)
            networks = await asyncio.to_thread(self._look_networks)
            if networks != self._networks or self._zeroconf is None:
                await self.refresh()
            self._publish()
            if self._clock.mono() - looked >= AGAIN_S:
                looked = self._clock.mono()
                for name in self._known_names():
                    self._heard(None, self._service, name, _SEEN)
            if self._seen.forget(self._clock.mono()):
                self._changed()

    def _known_names(self) -> list[str]:
        """Those seen, and some of those that are only remembered: a flood may have kept them from being looked at."""
        names = [f"{sighting.node_id}.{self._service}" for sighting in self._seen.all()]
        if self._zeroconf is not None:
            known = {record.alias for record in self._zeroconf.zeroconf.cache.async_entries_with_name(self._service)}
            rest = sorted(known.difference(names))
            names += random.sample(rest, min(len(rest), UNPAIRED_MAX))
        return names

    # -- looks

    def sightings(self) -> tuple[Sighting, ...]:
        """All that are seen now."""
        return self._seen.all()

    def places(self, node_id: str) -> list[tuple[str, int]]:
        """Where one node may be, the likeliest first."""
        sighting = self._seen.get(node_id)
        return [(address, sighting.port) for address in sighting.addresses] if sighting else []

    def name_of(self, node_id: str) -> str:
        """The name that one announces; empty for one that is not seen."""
        sighting = self._seen.get(node_id)
        return sighting.name if sighting else ""

    def count(self) -> int:
        """How many are seen."""
        return len(self._seen.all())

    async def sees(self, node_id: str) -> bool:
        """Whether one answers when it is asked for by multicast now; at most 3 s. Older sights don't count."""
        if self._zeroconf is None:
            return False
        zeroconf, info = self._zeroconf.zeroconf, self._info(node_id)
        zeroconf.cache.async_remove_records(list(zeroconf.cache.async_entries_with_name(info.name)))
        try:
            answered = bool(await info.async_request(zeroconf, RESOLVE_S * 1000))
        except (OSError, RuntimeError) as error:
            log.debug("nobody could be asked for: %s", type(error).__name__)
            return False
        if answered:
            self._take(node_id, info)
        return answered

    def far(self, host: str) -> bool:
        """Whether an address is in a VPN of this computer: one in the LAN is tried before it."""
        return in_vpn(host, self._networks)


class _Seen:
    """Stands for a change of state that zeroconf did not tell: it is looked at again."""

    name = "Updated"


_SEEN: Final = _Seen()
