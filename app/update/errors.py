"""What stops an update, as a user is told."""

from __future__ import annotations


class UpdateError(Exception):
    """One step failed and nothing was changed, unless ``message`` says so. ``hint`` is what to do, may be empty."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
