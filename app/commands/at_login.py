"""What a start by the system's own autostart entry asks: does this user want Quorum to start at login?"""

from __future__ import annotations

from router.errors import StartError
from router.settings import NodeOptions, Settings


def wanted(options: NodeOptions) -> bool:
    """Whether *Start at login* is on for the data folder; off where its settings can't be read."""
    try:
        settings = Settings(options.data_dir / "settings.json", overrides=options.overrides)
    except StartError:
        return False
    return bool(settings["start_at_login"])
