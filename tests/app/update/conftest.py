"""Fixtures of the update's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.app.update import kit


@pytest.fixture
def signer() -> kit.Signer:
    return kit.Signer()


@pytest_asyncio.fixture
async def feed() -> AsyncIterator[kit.Feed]:
    async with kit.feed() as made:
        yield made
