"""The way to Qt's thread from any other: functions are queued there and run in order."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

from qtpy.QtCore import QObject, Qt, QThread, Signal, Slot

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class GuiThread(QObject):  # type: ignore[misc] # qtpy has no types
    """Make it on the GUI thread; ``soon`` and ``call`` work from everywhere."""

    _queued = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._queued.connect(self._run, Qt.ConnectionType.QueuedConnection)

    def soon(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Queue ``function`` and return at once; what it raises is logged."""
        self._queued.emit(lambda: function(*args, **kwargs))

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``function`` there and return its result, or raise what it raised."""
        if QThread.currentThread() is self.thread() or QThread.currentThread() == self.thread():
            return function(*args, **kwargs)
        answer: Future[T] = Future()

        def run() -> None:
            try:
                answer.set_result(function(*args, **kwargs))
            except Exception as error:
                answer.set_exception(error)

        self._queued.emit(run)
        return answer.result()

    @Slot(object)  # type: ignore[untyped-decorator]
    def _run(self, function: Any) -> None:
        try:
            function()
        except Exception:
            log.exception("a function on the GUI thread failed")
