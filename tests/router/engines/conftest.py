"""Fixtures of the adapters' tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from router.aio import Tasks
from router.engines.http1 import Http1Transport
from router.engines.llama import LlamaEngine
from router.engines.llama_replica import Tuning
from router.engines.transport import HttpTransport, Transport
from router.library import Library
from tests.router.engines.fakes import FakeClock


@pytest.fixture
async def transport() -> AsyncIterator[Http1Transport]:
    """As the node has it."""
    made = Http1Transport(HttpTransport())
    yield made
    await made.close()


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    made = Tasks()
    yield made
    await made.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def settings() -> dict[str, Any]:
    return {
        "context": 2048,
        "threads": 1,
        "gpu_layers": -1,
        "max_loaded": 2,
        "keep_alive": 300.0,
        "concurrency": 0,
    }


@pytest.fixture
async def library(starter_model: Path, tmp_path: Path) -> Library:
    made = Library(starter=starter_model, home=tmp_path, environ={})
    await made.scan()
    return made


@pytest.fixture
async def engine(
    library: Library, settings: dict[str, Any], tasks: Tasks, clock: FakeClock, transport: Transport
) -> AsyncIterator[LlamaEngine]:
    """The built-in engine whose health is asked for often."""
    made = LlamaEngine(library, settings, tasks, clock, transport, Tuning(0.1, 0.3))
    await made.start()
    yield made
    await made.stop()
