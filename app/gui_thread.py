"""The way to Qt's thread from any other: functions are queued there and run in order."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

from PySide6.QtCore import QObject, Qt, Signal, Slot

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class GuiThread(QObject):
    """Make it on the GUI thread; ``soon`` and ``call`` work from everywhere."""

    _queued = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._ident = threading.get_ident()
        self._queued.connect(self._run, Qt.ConnectionType.QueuedConnection)

    def soon(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Queue ``function`` and return at once; what it raises is logged."""
        self._queued.emit(lambda: function(*args, **kwargs))

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``function`` there and return its result, or raise what it raised."""
        if threading.get_ident() == self._ident:
            return function(*args, **kwargs)
        answer: Future[T] = Future()

        def run() -> None:
            try:
                answer.set_result(function(*args, **kwargs))
            except Exception as error:
                answer.set_exception(error)

        self._queued.emit(run)
        return answer.result()

    @Slot(object)
    def _run(self, function: Any) -> None:
        try:
            function()
        except Exception:
            log.exception("a function on the GUI thread failed")
