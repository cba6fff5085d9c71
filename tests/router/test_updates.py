"""A node inside another program says that it does not update itself."""

from __future__ import annotations

import pytest

from router.errors import QuorumError
from router.updates import NoUpdates
from router.wire_care import UpdateState


def test_it_refuses_and_says_why() -> None:
    updates = NoUpdates()

    assert updates.info.state is UpdateState.OFF
    for act in (updates.check, updates.install):
        with pytest.raises(QuorumError, match="does not update itself"):
            act()
