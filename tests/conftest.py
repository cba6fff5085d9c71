"""Fixtures that every level uses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STARTER = "SmolLM2-135M-Instruct.Q4_1.gguf"

os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = "unix:path=/nonexistent/bus"  # nor do they keep this computer awake
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"  # tests leave the developer's own keyring alone


@pytest.fixture(scope="session")
def starter_model() -> Path:
    """The starter model that ``dev.py`` fetched; a missing one skips by name."""
    path = Path(os.environ.get("QUORUM_STARTER_MODEL", ROOT / ".dev" / "models" / STARTER))
    if not path.is_file():
        pytest.skip(f"starter model not at {path}: run 'python3 dev.py setup'")
    return path
