"""Sleep, wake and the end of the session, as this node goes through them.

Before: those that follow it hear that it sleeps, and look for another. While jobs run here it is kept awake. After:
nothing that was open is trusted, and everybody is looked for at once. The system's word is taken where it gives one;
a gap between two looks at the clock tells the same everywhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from typing import Final, Protocol

from yarl import URL

from router.aio import Clock, Tasks
from router.awake import LOOK_S, Gap
from router.engines.base import Engine
from router.peer_looks import Link
from router.power import Power, for_this_system
from router.runner import JobMoved
from router.scheduler import Scheduler
from router.states import PeerState
from router.wake_lock import WakeLock
from router.web.service import Service

log = logging.getLogger(__name__)

AGAIN_S: Final = 5.0  # a wake that is told twice is one
LOOKS_S: Final = (3.0, 8.0)  # after a wake: a network may come up later than the computer
SETTLE_S: Final = 2.8  # how long after a wake nobody is refused because others have not answered yet
STAYED_S: Final = 60.0  # awake after the goodbyes: nobody told that the sleep was called off


class Peers(Protocol):
    """This node among others."""

    async def goodbye(self, *, asleep: bool = False) -> None: ...
    def back(self) -> None: ...
    def poke(self) -> None: ...
    def line(self, node_id: str) -> Link | None: ...


class Sleep:
    """From ``start`` to ``stop``, which comes last of all: it lets the system go on with its shutdown.

    ``drop`` closes what is kept open to engines; ``changed`` hears when ``detail`` may say something else.
    """

    def __init__(
        self,
        service: Service,
        peers: Peers,
        tasks: Tasks,
        clock: Clock,
        drop: Callable[[], None] = lambda: None,
        changed: Callable[[], None] = lambda: None,
        *,
        power: Power | None = None,
        gap: Gap | None = None,
    ) -> None:
        self.asleep = False
        self._registry = service.registry
        self._scheduler = service.scheduler
        self._quit = service.quit
        self._peers = peers
        self._tasks = tasks
        self._clock = clock
        self._drop = drop
        self._power = power or for_this_system(tasks)
        self._gap = gap or Gap(clock)
        self._woken: float | None = None
        self._stayed: asyncio.TimerHandle | None = None
        self._lock = WakeLock(
            self._power,
            tasks,
            lambda: service.scheduler.running_here > 0,
            lambda: bool(service.settings["stay_awake"]),
            changed,
        )
        service.bus.listen(JobMoved, self._job_moved)

    def start(self) -> None:
        """Begin to listen and to look."""
        self._tasks.spawn("power", self._power.start(self))
        self._tasks.spawn("sleep", self._watch())
        self._lock.start()

    async def stop(self) -> None:
        """Let the computer sleep, or end, as it likes."""
        if self._stayed is not None:
            self._stayed.cancel()
        await self._lock.stop()
        await self._power.stop()

    @property
    def detail(self) -> str:
        """What the system does about it, in a few words."""
        return f"{self._power.detail}; kept awake now" if self._lock.held else self._power.detail

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """See whether time went by without this computer."""
        if missed_s := self._gap.look():
            log.info("this computer slept, or stood still, for %.0f s", missed_s)
            asyncio.get_running_loop().call_soon(self._again)  # before whatever is placed now takes its first step

    async def settle(self) -> None:
        """Nobody could take a request: just after a sleep, wait until the others have been asked whether they can."""
        self.look()
        await asyncio.sleep(0)
        if self._woken is None or self._clock.mono() - self._woken > SETTLE_S:
            return
        nodes = [getattr(engine, "node", "") for engine in self._registry.engines.values()]
        lines = [line for node in nodes if (line := self._peers.line(node)) is not None]
        await asyncio.gather(*(line.up(SETTLE_S) for line in lines if line.state is not PeerState.OFFLINE))

    def _job_moved(self, event: JobMoved) -> None:
        job = event.job
        if event.old is None:
            self.look()
        elif not self._lock.knows and job.state.running and job.lane and self._registry.local(job.lane.engine):
            self._lock.begun()

    # -- what the system tells

    async def sleeps(self) -> None:
        """Say goodbye."""
        log.info("this computer goes to sleep")
        self.asleep = True
        self._stayed = asyncio.get_running_loop().call_later(STAYED_S, self.woke)
        await self._peers.goodbye(asleep=True)

    def woke(self) -> None:
        """It is awake."""
        self._gap.look()
        if self.asleep or self._woken is None or self._clock.mono() - self._woken > AGAIN_S:
            log.info("this computer is awake")
            self._again()

    def shuts_down(self) -> None:
        """End in order: what runs gets its time, the rest waits for the next start."""
        log.info("this computer shuts down")
        self._quit()

    def _again(self) -> None:
        """Everything that was known of others is in doubt, and whoever was left alone gets another chance."""
        self.asleep = False
        self._woken = self._clock.mono()
        if self._stayed is not None:
            self._stayed.cancel()
            self._stayed = None
        self._registry.health.clear()
        self._drop()
        self._peers.back()
        for engine in [engine for engine in self._registry.engines.values() if elsewhere(engine)]:
            take_back(self._scheduler, engine.id, "This computer slept.")
        for later_s in LOOKS_S:
            asyncio.get_running_loop().call_later(later_s, self._peers.poke)


def elsewhere(engine: Engine) -> bool:
    """Whether an engine is reached through the network: a paired computer, or an address that is not this one's own."""
    if not getattr(engine, "local", True):
        return True
    host = URL(engine.url).host or "localhost"
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def take_back(scheduler: Scheduler, engine: str, why: str) -> None:
    """Jobs that run at an engine elsewhere and have said nothing yet are placed anew; no attempt is charged for it."""
    for job in tuple(scheduler.jobs.values()):
        if job.state.running and job.lane is not None and job.lane.engine == engine and not job.answer.events:
            scheduler.recall(job, why)
