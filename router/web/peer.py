"""The peer surface: what paired computers may ask of this one, over TLS, on their own port.

It listens only from ``start`` on: while models are shared, pairing is open, or somebody is paired.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from aiohttp import web

from router import __version__
from router.aio import Tasks
from router.errors import BadRequestError, QuorumError, failure
from router.identity import Identity
from router.pairing import PairingDesk
from router.peer_state import StateFeed, Told
from router.peer_tls import certificate_at, server_context
from router.trust import Trust
from router.web.answers import json_answer
from router.web.peer_guard import HELLO, PAIR_1, PAIR_2, PEER, PREFIX, RUN, PeerGuard
from router.web.peer_listener import PeerLimits, PeerListener
from router.web.peer_run import PeerRuns
from router.web.service import Service
from router.web.strict_json import decode
from router.wire_snapshot import PROTOCOL

CALLBACK_S: Final = 2.0
CALLBACKS: Final = 10
CALLBACKS_IN_S: Final = 60.0


class PeerSurface:
    """Answers peers from ``start`` to ``stop``; may be started again. ``width`` tells an engine's jobs at once."""

    def __init__(
        self,
        service: Service,
        identity: Identity,
        trust: Trust,
        desk: PairingDesk,
        tasks: Tasks,
        width: Callable[[str], int],
        limits: PeerLimits | None = None,
    ) -> None:
        self._service = service
        self._identity = identity
        self._trust = trust
        self._desk = desk
        self._tasks = tasks
        self._limits = limits
        self._told = Told(service.registry, service.scheduler, service.settings, service.info, width)
        self.feed = StateFeed(self._told, trust)
        self.runs = PeerRuns(service, self._told)
        self.came: Callable[[str], None] = lambda node_id: None
        self._listener: PeerListener | None = None
        self._calling_back: set[str] = set()
        self._called_back: dict[str, deque[float]] = {}
        self._called_at: dict[str, float] = {}
        service.view.on_info.append(lambda _: self.feed.changed())
        service.settings.listen(self._settings_changed)
        trust.listen(self._trust_changed)

    @property
    def port(self) -> int:
        """The port in use; 0 while it does not listen."""
        return self._listener.port if self._listener else 0

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """(host, port) of each socket."""
        return self._listener.addresses if self._listener else []

    @property
    def connections(self) -> int:
        """Open connections now, without those that still shake hands."""
        return self._listener.connections if self._listener else 0

    async def start(self, addresses: Sequence[str], port: int) -> int:
        """Listen at ``addresses`` on ``port``, the next that is free when it is busy (0: any). The port in use.

        Raises StartError when nothing can be had. Already listening: only the addresses are brought up to date.
        """
        if self._listener is not None:
            await self._listener.follow(addresses)
            return self._listener.port
        app = web.Application()
        app.router.add_get(HELLO, self.hello)
        app.router.add_post(PAIR_1, self.pair_1)
        app.router.add_post(PAIR_2, self.pair_2)
        app.router.add_post(RUN, self.runs.run)
        app.router.add_post(f"{PREFIX}/cancel", self.runs.cancel)
        app.router.add_get(f"{PREFIX}/state", self.state)
        app.router.add_post(f"{PREFIX}/callback", self.callback)
        guard = PeerGuard(self._trust, lambda: self._desk.is_open, self._called)
        listener = PeerListener(app, guard, server_context(self._identity), self._tasks, self._limits)
        await self.runs.open()
        await listener.open(addresses, port)
        self._listener = listener
        return listener.port

    def called_at(self, node_id: str) -> float | None:
        """Wall time at which a paired computer called this one last; None: not since it started."""
        return self._called_at.get(node_id)

    def _called(self, node_id: str) -> None:
        self._called_at[node_id] = time.time()

    async def follow(self, addresses: Sequence[str]) -> None:
        """The addresses of this computer changed."""
        if self._listener is not None:
            await self._listener.follow(addresses)

    async def goodbye(self, *, asleep: bool = False) -> None:
        """Tell all that follow this node that it goes, or sleeps; then nothing runs here for them until ``back``."""
        self.runs.asleep = asleep
        await self.feed.goodbye(asleep=asleep)
        if asleep:
            self.runs.refuse_all(failure("no_holder_available", "That computer goes to sleep."))

    def back(self) -> None:
        """It is awake again."""
        self.feed.asleep = self.runs.asleep = False

    async def stop(self) -> None:
        """Say goodbye, take no more connections, end those that are open."""
        listener, self._listener = self._listener, None
        if listener is not None:
            await self.feed.goodbye()
            self.runs.refuse_all(failure("no_holder_available", "That computer's Quorum is stopping."))
            await listener.stop()

    # -- what others decide

    def _trust_changed(self, node_id: str) -> None:
        """A peer was revoked, ignored, or may do less: what runs for it ends now."""
        peer = self._trust.get(node_id)
        if peer is None or peer.ignored:
            self.runs.refuse(node_id, "The two computers are no longer paired.")
            if self._listener is not None:
                self._listener.doors.cut(node_id)
        elif not self._told.may_use(peer):
            self.runs.refuse(node_id, "This computer's models are not shared with yours any more.")
        self.feed.changed()

    def _settings_changed(self, names: frozenset[str]) -> None:
        if "share" in names and not self._service.settings["share"]:
            self.runs.refuse_all(failure("forbidden", "This computer's models are not shared any more."))
        if "share" in names or "name" in names:
            self.feed.changed()

    # -- routes

    async def hello(self, request: web.Request) -> web.Response:
        """``GET /peer/v1/hello``, for everybody: which node this is, and which protocol it speaks."""
        return json_answer({"node_id": self._identity.node_id, "protocol": PROTOCOL, "version": __version__})

    async def pair_1(self, request: web.Request) -> web.Response:
        """``POST /peer/v1/pair/1``, while pairing is open."""
        return json_answer(await self._desk.first(decode(await request.read())))

    async def pair_2(self, request: web.Request) -> web.Response:
        """``POST /peer/v1/pair/2``: answers once the user has."""
        return json_answer(await self._desk.second(decode(await request.read()), request.remote or ""))

    async def state(self, request: web.Request) -> web.StreamResponse:
        """``GET /peer/v1/state``. Who asks is there: ``came`` hears of it."""
        self.came(request[PEER].node_id)
        return await self.feed.serve(request, request[PEER].node_id)

    async def callback(self, request: web.Request) -> web.Response:
        """``POST /peer/v1/callback`` {"port"}: can this computer reach the one that asks, at the address it has here?

        Only the caller's own address is called, seldom, and nothing but TLS is said there: it is of no use to look for
        open ports behind a router. ``at`` is this computer's wall time.
        """
        peer = request[PEER]
        port = decode(await request.read()).get("port")
        if type(port) is not int or not 1024 <= port < 65_536:
            raise BadRequestError("'port' must be between 1024 and 65535.", field="port")
        if peer.node_id in self._calling_back or not self._may_call_back(peer.node_id):
            raise QuorumError("queue_full", "This computer called yours back just now.", retry_after_s=CALLBACK_S)
        self._calling_back.add(peer.node_id)
        address = request.remote or ""
        try:
            same = await certificate_at(address, port, timeout_s=CALLBACK_S) == peer.certificate_sha256
            detail = "" if same else "certificate"
        except TimeoutError:
            detail = "timeout"
        except OSError:
            detail = "refused"
        finally:
            self._calling_back.discard(peer.node_id)
        return json_answer({"reached": not detail, "address": address, "detail": detail, "at": time.time()})

    def _may_call_back(self, node_id: str) -> bool:
        """Count one call back in, unless there were enough in the last minute."""
        now = asyncio.get_running_loop().time()
        calls = self._called_back.setdefault(node_id, deque(maxlen=CALLBACKS))
        if len(calls) == CALLBACKS and now - calls[0] < CALLBACKS_IN_S:
            return False
        calls.append(now)
        return True
