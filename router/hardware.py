"""What this computer has: memory, graphics memory, disk. Every figure may be 0 where it can't be told."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hardware:
    """One look at the memory of this computer, in bytes. ``gpu`` names the graphics processors, empty for none."""

    ram_total_bytes: int = 0
    ram_free_bytes: int = 0
    gpu: str = ""
    vram_total_bytes: int = 0
    vram_free_bytes: int = 0


class HardwareProbe:
    """Looks at the hardware. ``read`` and ``disk_free_bytes`` block for some milliseconds: call them in a thread."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._tried = False

    def read(self) -> Hardware:
        """Memory now."""
        memory = psutil.virtual_memory()
        names, total, free = self._graphics()
        return Hardware(int(memory.total), int(memory.available), ", ".join(names), total, free)

    def close(self) -> None:
        """Let go of the graphics driver."""
        if self._nvml is not None:
            with contextlib.suppress(Exception):
                self._nvml.nvmlShutdown()
            self._nvml, self._tried = None, False

    def _graphics(self) -> tuple[list[str], int, int]:
        if (nvml := self._driver()) is None:
            return [], 0, 0
        names: list[str] = []
        total = free = 0
        try:
            for index in range(nvml.nvmlDeviceGetCount()):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                memory = nvml.nvmlDeviceGetMemoryInfo(handle)
                name = nvml.nvmlDeviceGetName(handle)
                names.append(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name))
                total += int(memory.total)
                free += int(memory.free)
        except nvml.NVMLError as error:
            log.debug("the graphics driver does not answer: %s", error)
        return names, total, free

    def _driver(self) -> Any:
        """NVIDIA's library, started once; None where there is none."""
        if not self._tried:
            self._tried = True
            try:
                import pynvml

                pynvml.nvmlInit()
                self._nvml = pynvml
            except Exception as error:
                log.debug("no NVIDIA driver: %s", type(error).__name__)
        return self._nvml


def disk_free_bytes(folder: Path) -> int:
    """Free bytes of the disk that holds ``folder``; 0 where it can't be told."""
    try:
        return int(psutil.disk_usage(str(folder)).free)
    except OSError:
        return 0


def usual_threads() -> int:
    """Processor threads for an engine: the cores this process may use, less one for everything else.

    Threads of llama.cpp wait for each other at every step: with one core taken away from two threads a model
    gave 3 to 30 tokens/s instead of 80 with one thread (120 with two on an idle machine).
    """
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    return max(1, cores - 1)


def process_bytes(pid: int) -> int:
    """Resident memory of a process; 0 when it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
