"""What the node knows of updating itself: somebody else does it, and tells how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from router.aio import Tasks
from router.errors import QuorumError
from router.wire_care import UpdateInfo

if TYPE_CHECKING:
    from router.web.service import Service


class Updates(Protocol):
    """Updates of the program that the node runs in. All methods are called on the loop."""

    info: UpdateInfo

    def begin(self, service: Service, tasks: Tasks) -> None:
        """The node answers."""

    def check(self) -> None:
        """Look for a newer version. Raises QuorumError when that can't be."""

    def install(self) -> None:
        """Install it. Raises QuorumError when that can't be."""


class NoUpdates:
    """A node inside another program."""

    def __init__(self) -> None:
        self.info = UpdateInfo(refusal="This program does not update itself.")

    def begin(self, service: Service, tasks: Tasks) -> None:
        """Nothing to do."""

    def check(self) -> None:
        """Never."""
        raise QuorumError("conflict", self.info.refusal, "Install a newer version by hand.")

    install = check
