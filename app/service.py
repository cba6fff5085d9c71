"""The node in a background thread. ``call`` and ``call_soon`` are the only door between the threads.

The rest of ``app`` knows the router only through the names of this module.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from router.errors import BadRequestError, StartError
from router.states import NodeMode, PeerState
from router.wire import NodeInfo
from router.wire_peers import PeerInfo

if TYPE_CHECKING:
    from router.node import Node
    from router.settings import NodeOptions, Value

__all__ = ["BadRequestError", "NodeInfo", "NodeMode", "PeerInfo", "PeerState", "Service", "StartError"]

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

CALL_S = 10.0
STOP_S = 15.0
TELL_S = 0.1
"""Changes are told at most this often; under load each job is one."""


class Service:
    """One node and the thread its loop runs in.

    ``on_info``, ``on_peers``, ``on_setting``, ``on_show`` and ``on_quit`` are called there and must return at once;
    ``on_end`` is called when the thread ends although nobody asked it to. Set them before ``begin``.
    """

    def __init__(self, options: NodeOptions, make_node: Callable[[NodeOptions], Node] | None = None) -> None:
        self.options = options
        self._make_node = make_node
        self.on_info: Callable[[NodeInfo], None] = lambda info: None
        self.on_peers: Callable[[list[PeerInfo]], None] = lambda peers: None
        self.on_setting: Callable[[str, Value], None] = lambda name, value: None
        self.on_show: Callable[[], None] | None = None
        self.on_quit: Callable[[], None] | None = None
        self.on_end: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="node")
        self._ready = threading.Event()
        self._asked_to_stop = threading.Event()
        self.failed = False
        self._error: StartError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._node: Node | None = None
        self._latest: NodeInfo | None = None
        self._latest_peers: list[PeerInfo] | None = None

    def start(self) -> None:
        """Start the node and return when it answers. Raises StartError."""
        self.begin()
        self.wait()

    def begin(self) -> None:
        """Start the thread and return at once; ``wait`` tells how it went."""
        self._thread.start()

    def wait(self) -> None:
        """Return when the node answers. Raises StartError, also when ``stop`` came first."""
        self._ready.wait()
        if self._error is not None:
            raise self._error

    def stop(self, timeout_s: float = STOP_S) -> bool:
        """Stop the node and join the thread; False when it still runs after ``timeout_s``. May be called twice."""
        self._asked_to_stop.set()
        if self._loop is not None and self._stopping is not None:
            try:
                self._loop.call_soon_threadsafe(self._stopping.set)
            except RuntimeError:
                log.debug("the node's loop has ended already")
        if self._thread.ident is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``function`` on the node's loop and return its result, or raise what it raised.

        Raises TimeoutError after 10 s, RuntimeError when the node does not run.
        """
        if threading.current_thread() is self._thread:
            return function(*args, **kwargs)
        answer: Future[T] = Future()

        def run() -> None:
            try:
                answer.set_result(function(*args, **kwargs))
            except Exception as error:
                answer.set_exception(error)

        self.call_soon(run)
        return answer.result(CALL_S)

    def call_soon(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run ``function`` on the node's loop some time soon. Raises RuntimeError when the node does not run."""
        if self._loop is None:
            raise RuntimeError("the node does not run")
        self._loop.call_soon_threadsafe(lambda: function(*args, **kwargs))

    @property
    def node(self) -> Node:
        """The node; touch it only inside ``call``, except for its address and token, which never change."""
        if self._node is None:
            raise RuntimeError("the node does not run")
        return self._node

    @property
    def address(self) -> str:
        """Where the node answers, e.g. ``http://127.0.0.1:7411``."""
        return self.node.address

    @property
    def token(self) -> str:
        """The control token of this start."""
        return self.node.control_token

    def info(self) -> NodeInfo:
        """The node as it is now."""
        return self.call(self.node.info)

    def running_for_others(self) -> int:
        """Jobs that run here for paired computers and holders of an API key."""
        return self.call(self.node.running_for_others)

    def pause(self, for_s: float | None = None) -> None:
        """Take no new work, until resumed or for ``for_s`` seconds."""
        self.call(self.node.pause, for_s)

    def resume(self) -> None:
        """Take work again."""
        self.call(self.node.resume)

    def drain(self) -> None:
        """Take no new work and report when the running work has ended."""
        self.call(self.node.drain)

    def setting(self, name: str) -> Value:
        """The value in force of one setting."""
        value: Value = self.call(self.node.settings.__getitem__, name)
        return value

    def chosen(self, name: str) -> bool:
        """Whether somebody has made the setting, here or in the environment."""
        infos = self.call(self.node.settings.infos)
        return next(info.source for info in infos if info.name == name) != "default"

    def set(self, name: str, value: Value) -> None:
        """Change one setting. Raises BadRequestError when it is fixed by the environment."""
        self.call(self.node.settings.update, {name: value})

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except StartError as error:
            self._error = error
        except Exception as error:
            self.failed = True
            log.exception("the node failed")
            if not self._ready.is_set():
                self._error = StartError(f"The node could not start: {error}", "See the log for the details.")
        finally:
            if not self._ready.is_set() and self._error is None:
                self._error = StartError("The node was stopped before it had started.", "Start it again.")
            failed_start = not self._ready.is_set()
            self._ready.set()
            if not failed_start and not self._asked_to_stop.is_set():
                self.on_end()

    async def _live(self) -> None:
        make_node = self._make_node
        if make_node is None:
            from router.node import Node

            make_node = Node
        from app.update.updater import Program, Updater

        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        node = make_node(self.options)
        node.on_info = self._changed
        node.on_peers = self._peers_changed
        node.on_show = self.on_show
        node.on_quit = self.on_quit
        node.updates = Updater(Program(service=False))  # the window's process can't become another one
        await node.start()
        gc.freeze()
        self._node = node
        try:
            node.settings.listen(self._settings_changed)
            self._changed(node.info())
            self._ready.set()
            if not self._asked_to_stop.is_set():
                await self._stopping.wait()
        finally:
            await asyncio.wait_for(node.stop(), STOP_S)

    def _changed(self, info: NodeInfo) -> None:
        self._tell_soon()
        self._latest = info

    def _peers_changed(self, peers: list[PeerInfo]) -> None:
        self._tell_soon()
        self._latest_peers = peers

    def _tell_soon(self) -> None:
        if self._latest is None and self._latest_peers is None:
            asyncio.get_running_loop().call_later(TELL_S, self._tell)

    def _tell(self) -> None:
        info, self._latest = self._latest, None
        peers, self._latest_peers = self._latest_peers, None
        if info is not None:
            self.on_info(info)
        if peers is not None:
            self.on_peers(peers)

    def _settings_changed(self, names: frozenset[str]) -> None:
        for name in sorted(names):
            self.on_setting(name, self.node.settings[name])
