"""The node's thread: how it starts, answers, tells and ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.service import NodeInfo, Service, StartError
from tests.app.fake_node import FakeNode

BOUND_S = 10.0


def make(tmp_path: Path, node: type[FakeNode] = FakeNode, **fake: Any) -> Service:
    options: Any = SimpleNamespace(data_dir=tmp_path)
    return Service(options, lambda options: node(options, **fake))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = make(tmp_path)
    yield made
    assert made.stop()


def test_start_returns_when_the_node_answers_and_stop_joins_its_thread(service: Service) -> None:
    service.start()

    assert service.address.startswith("http://127.0.0.1:")
    assert service.token == service.node.control_token
    assert service.stop()
    assert service.stop()
    assert "node" not in {thread.name for thread in threading.enumerate()}


def test_calls_run_on_the_nodes_thread_and_bring_back_value_or_error(service: Service) -> None:
    service.start()

    assert service.call(lambda: threading.current_thread().name) == "node"
    with pytest.raises(ZeroDivisionError):
        service.call(lambda: 1 // 0)
    done = threading.Event()
    service.call_soon(done.set)
    assert done.wait(BOUND_S)


def test_a_node_that_cannot_start_raises_its_own_error(tmp_path: Path) -> None:
    service = make(tmp_path, fail="Port 7411 is in use.")

    with pytest.raises(StartError) as caught:
        service.start()

    assert caught.value.message == "Port 7411 is in use."
    assert service.stop()


def test_an_unexpected_failure_at_the_start_is_a_start_error_too(tmp_path: Path) -> None:
    class Broken(FakeNode):
        async def start(self) -> None:
            raise OSError("no such thing")

    service = make(tmp_path, Broken)

    with pytest.raises(StartError, match="no such thing"):
        service.start()

    assert service.failed


def test_a_call_before_the_start_and_after_the_end_is_refused(service: Service) -> None:
    with pytest.raises(RuntimeError):
        service.call(int)
    service.start()
    service.stop()
    with pytest.raises(RuntimeError):
        service.call(int)


def test_changes_are_told_together_and_the_last_one_is_never_lost(service: Service) -> None:
    told: list[NodeInfo] = []
    last = threading.Event()

    def on_info(info: NodeInfo) -> None:
        told.append(info)
        if info.running == 500:
            last.set()

    service.on_info = on_info
    service.start()

    for number in range(1, 501):
        service.call_soon(service.node.work, number)  # type: ignore[attr-defined]

    assert last.wait(BOUND_S)
    assert len(told) < 50


def test_a_changed_setting_is_told(service: Service) -> None:
    told: list[tuple[str, object]] = []
    service.on_setting = lambda name, value: told.append((name, value))
    service.start()

    service.set("theme", "dark")

    assert told == [("theme", "dark")]
    assert service.setting("theme") == "dark"


def test_stop_during_a_slow_start_ends_it(tmp_path: Path) -> None:
    going, go = threading.Event(), threading.Event()

    class Slow(FakeNode):
        async def start(self) -> None:
            going.set()
            go.wait(BOUND_S)
            await super().start()

    service = make(tmp_path, Slow)
    service.begin()
    assert going.wait(BOUND_S)
    assert service.stop(0.05) is False
    go.set()

    assert service.stop()
    assert (tmp_path / "stopped").exists()


def test_a_node_that_hangs_at_its_end_is_given_up_in_time(tmp_path: Path) -> None:
    go = threading.Event()

    class Hanging(FakeNode):
        async def stop(self) -> None:
            go.wait(BOUND_S)
            await super().stop()

    service = make(tmp_path, Hanging)
    service.start()

    assert service.stop(0.1) is False
    go.set()
    assert service.stop()
