"""What Quorum needs of Debian and Ubuntu, and how it gets there by apt. Standard library only.

A name may have alternatives behind a bar (releases name the same library differently); a bar at the end means that
the system may have none of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import IO

from steps import StepError, Steps, call, clean_environment, digest_of, output_of

ENGINE = ("libgomp1", "libstdc++6")
WINDOW = (
    "libegl1", "libgl1", "libopengl0", "libgbm1", "libdrm2", "libx11-6", "libx11-xcb1", "libxext6", "libxkbcommon0",
    "libxkbcommon-x11-0", "libxcb1", "libxcb-cursor0", "libxcb-dri3-0", "libxcb-icccm4", "libxcb-image0",
    "libxcb-keysyms1", "libxcb-randr0", "libxcb-render-util0", "libxcb-shape0", "libxcb-shm0", "libxcb-sync1",
    "libxcb-xfixes0", "libxcb-xinerama0", "libxcb-xkb1", "libxcomposite1", "libxdamage1", "libxfixes3", "libxkbfile1",
    "libxrandr2", "libxtst6", "libwayland-client0", "libwayland-cursor0", "libwayland-egl1", "libwayland-server0",
    "libdbus-1-3", "libnss3", "libnspr4", "libfontconfig1", "libfreetype6", "libglib2.0-0t64|libglib2.0-0",
    "libasound2t64|libasound2",
)  # fmt: skip
TESTS = (
    "xvfb", "xauth", "openbox", "dbus", "xdotool", "imagemagick", "iproute2", "nftables", "fonts-dejavu-core", "gcc",
    "libc6-dev", "git", "chromium|", "appstream|", "desktop-file-utils",
    "nsis|", "p7zip-full|", "wine64|", "gcc-mingw-w64-x86-64-win32|",  # the Windows installer, made and run
)  # fmt: skip
BUILD = ("binutils", "dpkg")
BENCH = ("gcc", "libc6-dev")


def names_of(wanted: Sequence[str]) -> list[str]:
    return sorted({name for choice in wanted for name in choice.split("|") if name})


def absent(wanted: Sequence[str]) -> list[str]:
    """Those of ``wanted`` of which no alternative is installed, in their order."""
    # One name that dpkg doesn't know makes dpkg-query fail, so all are asked for and picked here.
    lines = output_of("dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\n").splitlines()
    installed = {line.split()[-1] for line in lines if line.startswith("ii ")}
    return [choice for choice in wanted if not installed.intersection(choice.split("|"))]


def choose(wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """For each of ``wanted`` the first alternative that apt knows, and those of which it knows none."""
    offered: set[str] = set()
    current = ""
    for line in output_of("apt-cache", "policy", *names_of(wanted)).splitlines():
        if not line.startswith(" "):
            current = line.rstrip(":")
        elif line.strip().startswith("Candidate:") and "(none)" not in line:
            offered.add(current)
    chosen = {choice: next((name for name in choice.split("|") if name in offered), "") for choice in wanted}
    return [name for name in chosen.values() if name], [choice for choice, name in chosen.items() if not name]


def _as_administrator(by_hand: str) -> list[str]:
    """What stands before a command that only an administrator may run. Raises StepError."""
    if os.geteuid() == 0:
        return []
    if not shutil.which("sudo"):
        raise StepError("system packages are missing and there is no sudo", by_hand)
    # With a terminal sudo asks there; without one it must not wait for a password that nobody types.
    asks = [] if sys.stdin.isatty() else ["-n"]
    if subprocess.run(["sudo", *asks, "-v"], capture_output=not sys.stdin.isatty(), check=False).returncode != 0:
        raise StepError("system packages are missing and sudo refuses", by_hand)
    return ["sudo", *asks, "env", "DEBIAN_FRONTEND=noninteractive"]


def install(wanted: Sequence[str], log: IO[str]) -> None:
    """Install by apt, as root or through sudo; the lists are fetched where a name is unknown or a download fails."""
    by_hand = f"As administrator: apt-get install {' '.join(choice.split('|')[0] for choice in wanted)}"
    apt = [*_as_administrator(by_hand), "apt-get"]
    apt += ["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]
    env = clean_environment(DEBIAN_FRONTEND="noninteractive")
    chosen, unknown = choose(wanted)
    if not unknown:
        try:
            return call([*apt, "install", "-y", "--no-install-recommends", *chosen], log, by_hand, env=env)
        except StepError:
            log.write("The lists may be old: they are fetched anew.\n")
    call([*apt, "update"], log, f"Check the network, then start again. {by_hand}", env=env)
    chosen, unknown = choose(wanted)
    if needed := [choice for choice in unknown if not choice.endswith("|")]:
        raise StepError(f"this system offers no {', '.join(needed)}", by_hand)
    if chosen:
        call([*apt, "install", "-y", "--no-install-recommends", *chosen], log, by_hand, env=env)
    return None


def have(steps: Steps, name: str, title: str, wanted: Sequence[str]) -> None:
    """The step that has the packages ``wanted``, where there is apt; says by name what the system doesn't offer."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-query")) or not (missing := absent(wanted)):
        return
    if all(choice.endswith("|") for choice in missing) and steps.fresh(name, digest_of(*missing)):
        return
    steps.run(name, f"{title} ({len(missing)})", lambda log: install(missing, log))
    if still := absent(missing):
        print(f"    not offered by this system: {', '.join(choice.rstrip('|') for choice in still)}")
        steps.write(name, digest_of(*still))
