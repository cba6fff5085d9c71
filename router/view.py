"""What the page, the tray and the commands see: a snapshot, then coalesced changes. Tells and never decides."""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable

from router.events import Bus
from router.jobs import Job
from router.registry import Registry
from router.runner import JobMoved
from router.scheduler import Scheduler
from router.settings import Settings
from router.wire import Change, ChatInfo, EngineInfo, JobInfo, Message, NodeInfo, SettingInfo, Snapshot
from router.wire_peers import PairingInfo, PeerInfo

FLUSH_S = 0.05
NEWS_S = 2.0
RECENT_JOBS = 50
LIST_MAX = 500
LOOK_AT_JOB_S = 0.005
LOOK_MAX_S = 1.0
"""Between two looks at the line passes the first for each job in it, at most the second: each look tells all of it."""

_NOTHING = Change()


class View:
    """Collects what changed and pushes it at most every 50 ms."""

    def __init__(
        self,
        bus: Bus,
        registry: Registry,
        scheduler: Scheduler,
        settings: Settings,
        node: Callable[[], NodeInfo],
        width: Callable[[str], int],
    ) -> None:
        self._bus = bus
        self._registry = registry
        self._scheduler = scheduler
        self._settings = settings
        self._node = node
        self._width = width
        self._jobs: dict[str, Job] = {}
        self._chats: dict[str, ChatInfo] = {}
        self._messages: list[Message] = []
        self._gone: list[str] = []
        self._parts: set[str] = set()
        self._flush: asyncio.TimerHandle | None = None
        self._line: dict[str, tuple[int | None, float | None, str]] = {}
        self._next_look: asyncio.TimerHandle | None = None
        self._look_again = False
        self.recent: OrderedDict[str, JobInfo] = OrderedDict()
        self.on_info: list[Callable[[NodeInfo], object]] = []
        self.on_peers: Callable[[list[PeerInfo]], object] = lambda peers: None
        self.peers: Callable[[], list[PeerInfo]] = list
        self.pairing: Callable[[], PairingInfo] = PairingInfo
        bus.listen(JobMoved, self._job_moved)
        settings.listen(lambda _: self.changed("settings", "node"))

    # -- what changed

    def _job_moved(self, event: JobMoved) -> None:
        job = event.job
        if not job.state.live:
            self.recent[job.id] = job.info()
            if len(self.recent) > RECENT_JOBS:
                self.recent.popitem(last=False)
        if self._bus.watched:
            self._jobs[job.id] = job
        if self._bus.watched or self.on_info:
            self.changed("node")

    def changed(self, *parts: str) -> None:
        """Note that ``node``, ``engines``, ``models``, ``settings`` or ``peers`` (with pairing) changed."""
        self._parts.update(parts)
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_S, self._push)

    def chat(self, info: ChatInfo) -> None:
        """A conversation is new or changed."""
        self._chats[info.id] = info
        self.changed()

    def message(self, message: Message) -> None:
        """A message is new or changed."""
        self._messages.append(message)
        self.changed()

    def gone(self, item_id: str) -> None:
        """A conversation was deleted."""
        self._chats.pop(item_id, None)
        self._gone.append(item_id)
        self.changed()

    def _push(self) -> None:
        self._flush = None
        parts, self._parts = self._parts, set()
        jobs, self._jobs = self._jobs, {}
        chats, self._chats = self._chats, {}
        messages, self._messages = self._messages, []
        gone, self._gone = self._gone, []
        if "node" in parts:
            info = self._node()
            for listener in self.on_info:
                listener(info)
        if "peers" in parts:
            self.on_peers(self.peers())
        if not self._bus.watched:
            return
        jobs |= self._moved_up()
        change = Change(
            node=self._node() if "node" in parts else None,
            engines=self.engines() if "engines" in parts else None,
            models=self._registry.shown_infos() if "models" in parts else None,
            settings=self._settings.infos() if "settings" in parts else None,
            peers=self.peers() if "peers" in parts else None,
            pairing=self.pairing() if "peers" in parts else None,
            jobs=[job.info() for job in jobs.values() if (job.place or 0) <= LIST_MAX] or None,
            chats=list(chats.values()) or None,
            gone=gone or None,
        )
        if change != _NOTHING:
            self._bus.push(change)
        for message in messages:
            self._bus.push(Change(message=message))

    def _moved_up(self) -> dict[str, Job]:
        """The waiting jobs whose place, start or reason is not the one told last: each move in a line moves others."""
        waiting = self._scheduler.waiting
        if not waiting:
            self._line.clear()
            return {}
        if self._next_look is not None:
            self._look_again = True
            return {}
        self._next_look = asyncio.get_running_loop().call_later(
            min(LOOK_MAX_S, waiting * LOOK_AT_JOB_S), self._may_look
        )
        line = [job for job in self._scheduler.line() if (job.place or 0) <= LIST_MAX]
        told, self._line = self._line, {job.id: (job.place, job.eta_s, job.why) for job in line}
        return {job.id: job for job in line if told.get(job.id) != self._line[job.id]}

    def _may_look(self) -> None:
        self._next_look = None
        if self._look_again:
            self._look_again = False
            self.changed()

    async def news_on(self) -> None:
        """Tell those who wait and are followed where they stand, again and again."""
        while True:
            await asyncio.sleep(NEWS_S)
            if self._scheduler.waiting:
                for job in self._scheduler.line():
                    if job.answer.readers:
                        job.answer.tell(job.news())
                self.changed()

    # -- looks

    def engines(self) -> list[EngineInfo]:
        """The engines with what runs on them."""
        lanes = self._scheduler.lanes
        return self._registry.engine_infos(
            self._width, lambda engine: sum(lane.in_flight for lane in lanes.values() if lane.engine == engine)
        )

    def jobs(self, limit: int = LIST_MAX) -> list[JobInfo]:
        """Running, then waiting in the order they will run, then the last ended, newest first."""
        return [*self._live(limit), *self._ended()][:limit]

    def _live(self, limit: int) -> list[JobInfo]:
        live = self._scheduler.jobs.values()
        running = [job for job in live if job.state.running]
        waiting = list(self._scheduler.line())
        listed = {job.id for job in waiting}
        held = [job for job in live if not job.state.running and job.id not in listed]
        return [job.info() for job in itertools.islice(itertools.chain(running, waiting, held), limit)]

    def _ended(self) -> list[JobInfo]:
        return list(reversed(self.recent.values()))

    def remember(self, ended: Iterable[JobInfo]) -> None:
        """Jobs that an earlier run of this node ended, in the order they ended."""
        for info in ended:
            self.recent[info.id] = info

    def settings(self) -> list[SettingInfo]:
        """All settings."""
        return self._settings.infos()

    def snapshot(self, chats: list[ChatInfo]) -> Snapshot:
        """Everything a page shows at its start."""
        self._line.clear()  # what this page is told now, others were not
        return Snapshot(
            node=self._node(),
            engines=self.engines(),
            models=self._registry.shown_infos(),
            jobs=self._live(LIST_MAX) + self._ended(),
            chats=chats,
            settings=self._settings.infos(),
            peers=self.peers(),
            pairing=self.pairing(),
        )
