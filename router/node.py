"""One node: builds everything, starts it in order, stops it in reverse. The composition root; it decides nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import msgspec

from router import __version__, awake, logs
from router.access import Access
from router.aio import SystemClock, Tasks
from router.archive import Archive
from router.chats import Chats
from router.conversation import Conversations
from router.database import OpenReport
from router.events import Bus
from router.idempotency import Once
from router.identity import load_identity, make_private, write_private
from router.intake import Intake
from router.job_rows import JobRows
from router.kept import open_kept
from router.leftover import Leftover
from router.local_engines import LocalEngines
from router.metrics import Metrics
from router.mode import Mode
from router.own_look import OwnLook
from router.peering_parts import open_peering
from router.records import Records
from router.registry import Registry
from router.relay import Limits
from router.room import Room
from router.roster import Roster
from router.routes import route_of
from router.runner import JobMoved, Runner
from router.scheduler import Scheduler
from router.sessions import ModelFiles, Sessions
from router.settings import NodeOptions, Settings
from router.sleep import Sleep
from router.store import Store
from router.token_count import count_tokens
from router.updates import NoUpdates, Updates
from router.view import RECENT_JOBS, View
from router.web.front import Front
from router.web.service import Service
from router.webhook_sender import Sender
from router.webhooks import SECRET_FILE, Webhooks
from router.wire import Change, NodeInfo
from router.wire_peers import PeerInfo

__all__ = ["Node", "NodeOptions"]

log = logging.getLogger(__name__)

DATABASE = "quorum.db"
SETTINGS = "settings.json"
GRACE_S = 10.0
STARTING_S = 20.0


class Node:
    """One node on the running loop. ``start`` raises StartError; ``stop`` takes about 10 s at most."""

    def __init__(self, options: NodeOptions) -> None:
        self.on_info: Callable[[NodeInfo], None] | None = None
        self.on_peers: Callable[[list[PeerInfo]], None] | None = None
        self.on_show: Callable[[], None] | None = None
        self.on_quit: Callable[[], None] | None = None
        self.updates: Updates = NoUpdates()
        self.control_token = secrets.token_hex(32)
        self.address = ""
        self._dir = options.data_dir
        self._level = options.log_level
        self._discovery = options.discovery
        make_private(self._dir)
        self.settings = Settings(self._dir / SETTINGS, overrides=options.overrides)
        self._clock = SystemClock()
        self._tasks = Tasks()
        self._bus = Bus()
        self._started_at = self._clock.wall()
        self._looked = asyncio.Event()

    # -- life

    async def start(self) -> None:
        """Open the store, start engines, listen, and take up what an earlier run left. Raises StartError."""
        awake.install(asyncio.get_running_loop())
        logs.setup(self._level, self._dir)
        self._identity = load_identity(self._dir)
        self._id = self._identity.node_id
        self._store = Store(self._dir / DATABASE)
        report = await self._store.open()
        try:
            await self._build(report)
            await self._leftover.read()
            self._view.remember(await self._archive.ended(RECENT_JOBS))
            self._leftover.take_up()
            await self._front.start()
        except BaseException:
            await self._close()
            raise
        self.address = self._own_look.address = self._front.address
        write_private(self._dir / "control.token", self.control_token.encode())
        told = {"address": self.address, "pid": os.getpid(), "version": __version__}
        write_private(self._dir / "node.json", msgspec.json.encode(told))
        self._tasks.spawn("look", self._own_look.look_on(lambda: self._view.changed("node")))
        self._tasks.spawn("news", self._view.news_on())
        self._tasks.spawn("prune", self._room.prune_on())
        self._tasks.spawn("engines", self._begin())
        self._peering.start()
        self._sleep.start()
        self.updates.begin(self._shared, self._tasks)
        log.info("listening at %s", self.address)

    async def _build(self, report: OpenReport) -> None:
        rows = JobRows(self._store)
        await rows.open()
        self._rows = rows
        self._registry = Registry(self._id, self.name, self._registry_changed)
        self._roster = Roster(self._registry, self._tasks, self._clock, self._tell)
        runner = Runner(self._registry, self._bus, self._tasks, self._clock, self._roster.poll_now, Limits())
        self._scheduler = Scheduler(
            self._registry, runner, self._clock, width=self._width, route=lambda model: route_of(model, self.settings)
        )
        runner.scheduler = self._scheduler
        self._runner = runner
        self._mode = Mode(
            self._scheduler,
            self._dir / "mode.json",
            self._tasks,
            self._clock,
            self._roster.unload_all,
            lambda: self._view.changed("node"),
        )
        self._own_look = OwnLook(
            self._id,
            self._dir,
            self.name,
            self._started_at,
            report.notice,
            self._registry,
            self._scheduler,
            self._mode,
            self._store,
            self.updates,
        )
        self._view = View(self._bus, self._registry, self._scheduler, self.settings, self.info, self._width)
        self._view.on_info.append(lambda info: _called(self.on_info, info))
        self._view.on_peers = lambda peers: _called(self.on_peers, peers)
        self._records = Records(rows, report.boot_id, lambda: bool(self.settings["forget_bodies"]))
        self._archive = Archive(rows, self._scheduler)
        self._metrics = Metrics(self.info)
        sender = Sender(lambda: bool(self.settings["webhook_private"]))
        self._webhooks = Webhooks(self._store, self._tasks, self._clock, sender, self._dir / SECRET_FILE)
        await self._webhooks.open()
        self._access = Access(self._store, self._clock, self._scheduler)
        await self._access.open()
        told = (self._records.moved, self._metrics.moved, self._webhooks.moved, self._access.moved, self._job_moved)
        for listener in told:
            self._bus.listen(JobMoved, listener)
        self._room = Room(rows, self.settings, self._clock)
        self._intake = Intake(
            self._scheduler,
            self._registry,
            self.settings,
            self._clock,
            self._look_again,
            self._records,
            self._room,
            self._access.person,
        )
        self._intake.start_after(rows.last_row_id)
        self._kept = await open_kept(
            self._store,
            self._archive,
            self._intake,
            self._scheduler,
            self._tasks,
            self._clock,
            self._room,
            self._dir,
        )
        files = ModelFiles(self._store, self._clock)
        await files.open()
        self._engines = LocalEngines(self.settings, self._dir, files, self._roster, self._tasks, self._clock)
        chats = Chats(self._store, self._clock)
        self._chats = chats
        self._conversations = Conversations(chats, self._intake, self._view, self._tasks, self._clock)
        self._leftover = Leftover(self._records, chats, self._conversations, self._scheduler, self._bus, self._clock)
        sessions = Sessions(self._store, self._clock)
        await sessions.open()
        self._shared = service = self._service()
        self._peering, self._peers = await open_peering(
            service, self._identity, self._store, self._dir, self._clock, self._tasks, self._width, self._discovery
        )
        self._front = Front(service, sessions, self.control_token, self._metrics, self._tasks, self._peers)
        self._sleep = Sleep(service, self._peering, self._tasks, self._clock, self._engines.drop_connections)
        self._own_look.front, self._own_look.sleep = self._front, self._sleep
        self.settings.listen(self._settings_changed)

    def _service(self) -> Service:
        return Service(
            bus=self._bus,
            registry=self._registry,
            scheduler=self._scheduler,
            settings=self.settings,
            intake=self._intake,
            view=self._view,
            chats=self._chats,
            conversations=self._conversations,
            archive=self._archive,
            access=self._access,
            kept=self._kept,
            once=Once(self._rows, self._archive, self._intake, self._tasks),
            webhooks=self._webhooks,
            updates=self.updates,
            info=self.info,
            pause=self.pause,
            resume=self.resume,
            drain=self.drain,
            show=lambda: _called(self.on_show),
            quit=lambda: _called(self.on_quit),
            load=self._roster.load,
            unload=self._roster.unload,
            add_models=self._engines.add_models,
            count_tokens=partial(count_tokens, self._registry),
        )

    async def _begin(self) -> None:
        """Engines first, then the jobs that wait for them."""
        self._mode.restore()
        await self._engines.start(self._front.own_addresses)
        self._front.accept()
        self._looked.set()
        self._leftover.release()
        self._kept.batches.start()
        await self._leftover.give_up()
        await self._roster.poll_on()

    async def _look_again(self) -> None:
        """Somebody asked for a model that isn't known: just after the start, the engines' first look is still due."""
        if self._looked.is_set():
            await self._sleep.settle()
            await self._roster.repoll()
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(STARTING_S):
                    await self._looked.wait()

    async def ready(self) -> None:
        """Wait until every engine has been looked at once."""
        await self._looked.wait()

    async def stop(self) -> None:
        """Let running jobs finish for 10 s; what is left waits, uncharged, for the next start."""
        self._scheduler.stop_accepting()
        await self._peering.goodbye()
        await self._runner.finish_all(GRACE_S)
        await self._front.stop()
        await self._close()
        for name in ("node.json", "control.token"):
            (self._dir / name).unlink(missing_ok=True)
        logs.close()

    async def _close(self) -> None:
        for part in ("_peering", "_engines"):
            if hasattr(self, part):
                await getattr(self, part).stop()
        await self._tasks.close()
        if hasattr(self, "_webhooks"):
            await self._webhooks.close()
        await self._store.close()
        if hasattr(self, "_sleep"):
            await self._sleep.stop()

    # -- what the desktop uses

    def name(self) -> str:
        """This computer's name as others see it."""
        return str(self.settings["name"]) or socket.gethostname().split(".")[0] or "this computer"

    def info(self) -> NodeInfo:
        """This node now."""
        return self._own_look.info()

    def running_for_others(self) -> int:
        """Jobs that run on this computer's engines for paired computers and holders of an API key."""
        leased = [(job, job.lane.engine) for job in self._scheduler.jobs.values() if job.lane and job.state.running]
        return sum(job.for_others and self._registry.local(engine) for job, engine in leased)

    def pause(self, for_s: float | None = None) -> None:
        """Take no new work; after ``for_s`` seconds resume."""
        self._mode.pause(for_s)

    def resume(self) -> None:
        """Take work again."""
        self._mode.resume()

    def drain(self) -> None:
        """Take no new work and say when nothing runs any more."""
        self._mode.drain()

    # -- listeners and tickers

    def _width(self, engine_id: str) -> int:
        engine = self._registry.engines.get(engine_id)
        usual = engine.width if engine else 1
        if engine is None or engine.kind in ("builtin", "peer"):
            return usual
        return int(self.settings["concurrency"]) or usual

    def _job_moved(self, event: JobMoved) -> None:
        job = event.job
        if not job.state.live:
            if job.keep:
                self._archive.keep(job)
            if self.settings["forget_bodies"]:
                self._archive.blank(job)
            self._mode.job_ended()

    def _registry_changed(self) -> None:
        self._view.changed("models", "engines", "node")
        self._scheduler.refresh()

    def _settings_changed(self, names: frozenset[str]) -> None:
        if "concurrency" in names:
            self._scheduler.refresh()
        if self.settings["forget_bodies"]:
            self._archive.blank_all()

    def _tell(self, notice: str) -> None:
        log.warning("%s", notice)
        self._bus.push(Change(notice=notice))


def _called(listener: Callable[..., None] | None, *told: object) -> bool:
    if listener is None:
        return False
    listener(*told)
    return True
