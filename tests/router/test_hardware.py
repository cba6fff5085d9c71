"""What the computer has, also where the graphics driver is absent or broken."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from router.hardware import HardwareProbe, disk_free_bytes, process_bytes, usual_threads


class NVMLError(Exception):
    """As pynvml raises it."""


def driver(**changed: Any) -> ModuleType:
    """A stand-in for NVIDIA's library with two cards."""
    module = ModuleType("pynvml")
    gib = 2**30
    parts = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": lambda index: SimpleNamespace(total=24 * gib, free=(20 - index) * gib),
        "nvmlDeviceGetName": lambda index: [b"RTX A", "RTX B"][index],
    }
    for name, part in (parts | changed).items():
        setattr(module, name, part)
    return module


def fails(*_: object) -> Any:
    raise NVMLError


def test_memory_and_disk_are_told(tmp_path: Path) -> None:
    hardware = HardwareProbe().read()
    assert 0 < hardware.ram_free_bytes <= hardware.ram_total_bytes
    assert disk_free_bytes(tmp_path) > 0
    assert disk_free_bytes(tmp_path / "missing") == 0
    assert process_bytes(os.getpid()) > 2**20
    assert process_bytes(2**22 + 1) == 0


@pytest.mark.parametrize(("physical", "allowed", "threads"), [(8, 16, 7), (8, 4, 3), (1, 1, 1), (None, 64, 7)])
def test_an_engine_leaves_one_core(
    monkeypatch: pytest.MonkeyPatch, physical: int | None, allowed: int, threads: int
) -> None:
    monkeypatch.setattr("psutil.cpu_count", lambda logical: physical)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(allowed)), raising=False)
    assert usual_threads() == threads


def test_cards_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver())
    probe = HardwareProbe()
    hardware = probe.read()
    assert hardware.gpu == "RTX A, RTX B"
    assert (hardware.vram_total_bytes, hardware.vram_free_bytes) == (48 * 2**30, 39 * 2**30)
    probe.close()


@pytest.mark.parametrize(
    "module", [driver(nvmlInit=fails), driver(nvmlDeviceGetCount=fails), driver(nvmlDeviceGetMemoryInfo=fails), None]
)
def test_without_a_working_driver_there_is_no_graphics_memory(
    module: ModuleType | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", module)
    hardware = HardwareProbe().read()
    assert (hardware.gpu, hardware.vram_total_bytes, hardware.vram_free_bytes) == ("", 0, 0)
    assert hardware.ram_total_bytes > 0
