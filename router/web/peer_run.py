"""Jobs that paired computers send: accepted or refused at once, run on this computer's own engines, kept nowhere."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from router.errors import ModelNotFoundError, QueueFullError, QuorumError, failure
from router.jobs import Job, Origin
from router.peer_state import Told
from router.trust import Peer
from router.web.answers import SSE_HEADERS, json_answer
from router.web.canonical import check, with_fields
from router.web.peer_guard import PEER, RUN, body_limit
from router.web.peer_request import Asked, Try, read, try_of
from router.web.peer_sink import PeerDialect, PeerSink, deaf_s
from router.web.service import Service
from router.web.strict_json import decode
from router.web.turnstile import Turnstile
from router.wire import Ended, ErrorInfo

BEAT_S: Final = 1.0
DEAF_S: Final = 15.0
JOBS_A_PEER: Final = 256
BYTES_A_PEER: Final = 256 * 2**20  # of its requests in memory
REMEMBERED: Final = 2_000  # tries of each peer
_ACCEPTED: Final = b": accepted\n\n"
_GRANT_HINT: Final = "Its user can allow it on the Peers page there."


@dataclass(slots=True)
class _Run:
    job: Job
    refusal: ErrorInfo | None = None


class PeerRuns:
    """The jobs of peers: each try runs once, and ends with the call that brought it."""

    def __init__(
        self,
        service: Service,
        told: Told,
        *,
        beat_s: float = BEAT_S,
        a_peer: int = JOBS_A_PEER,
        a_peer_bytes: int = BYTES_A_PEER,
    ) -> None:
        self._service = service
        self._told = told
        self._beat_s = beat_s
        self._most = a_peer
        self._most_bytes = a_peer_bytes
        self._bytes: Counter[str] = Counter()
        self._runs: dict[Try, _Run] = {}
        self._past: dict[str, OrderedDict[Try, None]] = {}
        self._horizon: dict[str, str] | None = None  # by peer: jobs with greater ids than this are in memory, if at all
        self._of_peer: Counter[str] = Counter()
        self._turnstile = Turnstile()
        self.asleep = False

    def __len__(self) -> int:
        return len(self._runs)

    async def open(self) -> None:
        """Before the first run: learn up to where earlier runs of this node have had jobs of peers."""
        if self._horizon is None:
            self._horizon = await self._service.archive.newest_of_peers()

    async def run(self, request: web.Request) -> web.StreamResponse:
        """``POST /peer/v1/run``. Refusals are QuorumError: their statuses are the contract's."""
        peer = request[PEER]
        self.check_door(peer)
        size = body_limit(RUN) if request.content_length is None else request.content_length
        if self._bytes[peer.node_id] + size > self._most_bytes:
            raise QueueFullError(1.0, "This computer has enough requests of yours in its memory.")
        self._bytes[peer.node_id] += size
        try:
            await self._turnstile.enter()
            asked = read(peer.node_id, await request.read())
            await self._recall(asked.key)
            self.check_door(peer)  # the grant may have gone meanwhile
            run = await self._accept(peer, asked)
            try:
                return await self._answer(request, run)
            finally:
                self._ended(asked.key)
                self._service.intake.client_left(run.job)
        finally:
            self._bytes[peer.node_id] -= size

    def check_door(self, peer: Peer) -> None:
        """Raise QuorumError unless ``peer`` may run jobs here now."""
        scheduler = self._service.scheduler
        if not self._told.may_use(peer):
            raise QuorumError("forbidden", "This computer's models are not shared with yours.", _GRANT_HINT)
        if self.asleep:
            raise QuorumError("no_holder_available", "This computer goes to sleep.", retry_after_s=5)
        if scheduler.stopping:
            raise QuorumError("no_holder_available", "This computer's Quorum is stopping.", retry_after_s=5)
        if not scheduler.mode.takes_work:
            raise QuorumError("paused", f"This computer is {scheduler.mode}.", retry_after_s=30)

    async def _accept(self, peer: Peer, asked: Asked) -> _Run:
        """The job, in line. Nothing of a refused one stays but that its try is known."""
        if asked.key in self._runs or asked.key in self._past.get(peer.node_id, ()):
            raise QuorumError("conflict", "This try runs already, or has ended.", "Number each try of a job anew.")
        if self._of_peer[peer.node_id] >= self._most:
            raise QueueFullError(1.0, "This computer has enough jobs of yours.")
        name = self._told.find(asked.model, asked.digest)
        if name is None:
            raise ModelNotFoundError(asked.model)
        checked = check(asked.kind, decode(asked.body), with_fields(asked.body, model=name))
        intake = self._service.intake
        job = intake.job(checked, Origin.PEER, keep_alive_s=asked.keep_alive_s)
        job.model = name
        job.person = peer.name
        job.peer_try = asked.key
        job.max_attempts = 1  # the peer knows more holders than this computer does
        job.deadline_s = asked.deadline_s
        run = self._runs[asked.key] = _Run(job)
        self._of_peer[peer.node_id] += 1
        try:
            await intake.submit(job)
        except BaseException:
            self._forget(asked.key)
            raise
        return run

    async def _answer(self, request: web.Request, run: _Run) -> web.StreamResponse:
        job = run.job
        dialect = PeerDialect(job.stream)
        sink = PeerSink(job, dialect)
        job.answer.attach(sink)
        try:
            response = web.StreamResponse(headers=SSE_HEADERS)
            response.enable_chunked_encoding()
            await response.prepare(request)
            self._service.scheduler.survey()
            await response.write(_ACCEPTED + dialect.waiting(job.news()))
            transport = request.transport
            if transport is None:
                return response
            sink.open(transport, chunked=True)
            while not sink.done.done():
                await asyncio.wait((sink.done,), timeout=self._beat_s)
                if not sink.done.done():
                    sink.beat()
                    if deaf_s(transport) > DEAF_S:
                        transport.abort()  # its cable is cut: nobody hears what is generated
            ended = sink.done.result()
            if run.refusal is not None:
                ended = Ended(state=ended.state, error=run.refusal)
            await response.write_eof(dialect.last(ended))
            return response
        finally:
            job.answer.detach(sink)

    async def cancel(self, request: web.Request) -> web.Response:
        """``POST /peer/v1/cancel``: ends the try, or keeps it from ever beginning."""
        peer = request[PEER]
        said = decode(await request.read())
        key = try_of(peer.node_id, said)
        run = self._runs.get(key)
        if run is None:
            self._remember(key)
        else:
            self._service.scheduler.cancel(run.job.id)
        return json_answer({"cancelled": run is not None})

    def refuse(self, peer_id: str, message: str) -> None:
        """End what runs for a peer: it may no longer use this computer."""
        self._end(failure("forbidden", message, _GRANT_HINT), [key for key in self._runs if key[0] == peer_id])

    def refuse_all(self, error: ErrorInfo) -> None:
        """End what runs for all of them, with ``error``."""
        self._end(error, list(self._runs))

    def _end(self, error: ErrorInfo, keys: list[Try]) -> None:
        ending = [self._runs[key] for key in keys]
        for run in sorted(ending, key=lambda run: run.job.state.running):  # else one that ends would start the next
            run.refusal = error
            self._service.scheduler.cancel(run.job.id)

    def _forget(self, key: Try) -> None:
        if self._runs.pop(key, None) is not None:
            self._of_peer[key[0]] -= 1
            if not self._of_peer[key[0]]:
                del self._of_peer[key[0]]

    def _ended(self, key: Try) -> None:
        self._forget(key)
        self._remember(key)

    async def _recall(self, key: Try) -> None:
        """A try of an earlier run of this node, or of long ago, is only in the store. New jobs need no look there."""
        node, job, _ = key
        if self._horizon is None or job > self._horizon.get(node, "") or key in self._runs:
            return
        if key not in self._past.get(node, ()) and await self._service.archive.had(*key):
            self._remember(key)

    def _remember(self, key: Try) -> None:
        past = self._past.setdefault(key[0], OrderedDict())
        past[key] = None
        if len(past) > REMEMBERED:
            (node, job, _), _ = past.popitem(last=False)
            if self._horizon is not None:
                self._horizon[node] = max(job, self._horizon.get(node, ""))
