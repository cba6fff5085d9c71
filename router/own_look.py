"""How this node looks: to the page and the commands, to the desktop, and in part to other computers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from router import __version__
from router.hardware import Hardware, HardwareProbe, disk_free_bytes
from router.mode import Mode
from router.registry import Registry
from router.scheduler import Scheduler
from router.sleep import Sleep
from router.store import Store
from router.updates import Updates
from router.web.front import Front
from router.wire import NodeInfo

LOOK_S: Final = 15.0


class OwnLook:
    """``address`` stays empty until the node listens; ``front``, ``sleep`` are put here before anybody asks."""

    front: Front
    sleep: Sleep

    def __init__(
        self,
        node_id: str,
        data_dir: Path,
        name: Callable[[], str],
        started_at: float,
        notice: str,
        registry: Registry,
        scheduler: Scheduler,
        mode: Mode,
        store: Store,
        updates: Updates,
    ) -> None:
        self.address = ""
        self._id = node_id
        self._dir = data_dir
        self._name = name
        self._started_at = started_at
        self._notice = notice
        self._registry = registry
        self._scheduler = scheduler
        self._mode = mode
        self._store = store
        self._updates = updates
        self._hardware = Hardware()
        self._disk_free = 0

    def info(self) -> NodeInfo:
        """This node now; memory and disk as last looked at, 0 before."""
        notice = " ".join(filter(None, (self._notice, *self.front.refused)))
        return NodeInfo(
            id=self._id,
            name=self._name(),
            version=__version__,
            mode=self._scheduler.mode,
            address=self.address,
            port=self.front.port,
            started_at=self._started_at,
            paused_until=self._mode.paused_until,
            running=self._scheduler.running,
            waiting=self._scheduler.waiting,
            models=sum(
                len(look.models) for name, look in self._registry.snapshots.items() if self._registry.local(name)
            ),
            ram_total_bytes=self._hardware.ram_total_bytes,
            ram_free_bytes=self._hardware.ram_free_bytes,
            gpu=self._hardware.gpu,
            vram_total_bytes=self._hardware.vram_total_bytes,
            vram_free_bytes=self._hardware.vram_free_bytes,
            disk_free_bytes=self._disk_free,
            data_dir=str(self._dir),
            notice=notice if self._store.healthy else "The disk of the data folder can't be written.",
            network=self.front.network,
            sleep=self.sleep.detail,
            update=self._updates.info,
        )

    async def look_on(self, changed: Callable[[], None]) -> None:
        """At memory and disk, in a thread: asking a graphics driver takes milliseconds."""
        probe = HardwareProbe()
        while True:
            self._hardware = await asyncio.to_thread(probe.read)
            self._disk_free = await asyncio.to_thread(disk_free_bytes, self._dir)
            changed()
            await asyncio.sleep(LOOK_S)
