"""Whose software is in the frozen program, and the licence of each: ``THIRD_PARTY.md`` and one folder of texts apiece.

Run by the spec in the environment that is frozen. What a part does not bring along itself lies in ``licences``.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = ROOT / "packaging" / "licences"
TEXT = re.compile(r"(?i)(^|/)(licen[cs]es?/|licen[cs]e|copying|notice|authors|ofl)[^/]*(\.(txt|md|rst|apache|bsd))?$")
QT = (
    "qt-base.txt",
    "qt-modules.txt",
    "qt-webengine.txt",
    "chromium.txt",
    "LGPL-3.0.txt",
    "GPL-3.0.txt",
    "LGPL-2.1.txt",
)
LGPL_QT = "LGPL-3.0-only"
BUNDLED_NPM = ("@lucide/svelte", "clsx", "devalue", "dompurify", "esm-env", "highlight.js", "katex", "marked", "svelte")
"""Whose code is in the page; ``tests/packaging/test_licences.py`` compares this with the page's source maps."""

HINTS = {
    "LGPLv3": "LGPL-3.0-only",
    "Apache 2.0": "Apache-2.0",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD": "BSD-3-Clause",
}


@dataclass(frozen=True)
class Part:
    """One piece of somebody else's software; ``texts`` are its licences, by the name that each gets here."""

    name: str
    version: str
    licence: str
    texts: dict[str, Path] = field(default_factory=dict)


def gather(sources: Iterable[str], model_licence: Path) -> list[Part]:
    """Every part, by name. ``sources`` are the files that go into the program. Raises ValueError where a text lacks."""
    files = sorted({Path(source).resolve() for source in sources})
    parts = [quorum(), python(), bootloader(), *python_parts(files), *page_parts(), model(model_licence)]
    if sys.platform == "linux":
        parts += system_parts(files)
    if bare := [part.name for part in parts if not part.texts]:
        raise ValueError(f"no licence text for {', '.join(bare)}: put one into packaging/licences")
    return sorted(parts, key=lambda part: part.name.lower())


def write(parts: Iterable[Part], target: Path) -> None:
    """The texts and ``THIRD_PARTY.md`` below ``target``."""
    shutil.rmtree(target, ignore_errors=True)
    lines = [
        "# Software in Quorum",
        "",
        "Quorum is under the Apache License 2.0. The program brings the following software of other people. The whole",
        "text of each licence lies in the folder beside this file that has the part's name. Qt is used under the LGPL:",
        "its libraries are separate files that you may replace; its source is offered by the Qt Project.",
        "",
        "| part | version | licence | texts |",
        "|---|---|---|---|",
    ]
    for part in parts:
        folder = target / folder_name(part.name)
        folder.mkdir(parents=True)
        for name, source in part.texts.items():
            shutil.copyfile(source, folder / name)
        lines.append(f"| {part.name} | {part.version} | {part.licence} | {', '.join(part.texts)} |")
    (target / "THIRD_PARTY.md").write_text("\n".join(lines) + "\n", "utf-8")


def folder_name(name: str) -> str:
    """A part's name as a folder on every system."""
    return re.sub(r"[^A-Za-z0-9.+_-]+", "-", name).strip("-")


def quorum() -> Part:
    from router import __version__

    return Part("Quorum", __version__, "Apache-2.0", {"LICENSE.txt": ROOT / "LICENSE"})


def python() -> Part:
    """The interpreter and its library."""
    own = Path(sysconfig.get_path("stdlib")) / "LICENSE.txt"
    debian = Path(f"/usr/share/doc/python3.{sys.version_info.minor}/copyright")
    windows = Path(sys.base_prefix) / "LICENSE.txt"
    text = next((path for path in (own, windows, debian) if path.is_file()), None)
    return Part("Python", sys.version.split()[0], "PSF-2.0", {"LICENSE.txt": text} if text else {})


def bootloader() -> Part:
    """The part of PyInstaller that starts the program; its exception frees what is started from the GPL."""
    return _part(importlib.metadata.distribution("pyinstaller"), "GPL-2.0-or-later WITH Bootloader-exception")


def model(text: Path) -> Part:
    return Part("SmolLM2-135M-Instruct", "Q4_1", "Apache-2.0", {"LICENSE.txt": text})


def python_parts(files: Iterable[Path]) -> Iterator[Part]:
    """The distributions that ``files`` belong to."""
    owners = {
        Path(str(dist.locate_file(file))).resolve(): dist
        for dist in importlib.metadata.distributions()
        for file in dist.files or ()
    }
    found = {dist.name: dist for file in files if (dist := owners.get(file)) is not None}
    found.pop("pyinstaller", None)
    for name in sorted(found):
        yield _part(found[name])


def _part(dist: importlib.metadata.Distribution, licence: str = "") -> Part:
    name = re.sub(r"[-_.]+", "-", dist.name).lower()
    texts = {}
    for file in dist.files or ():
        inside = str(file).partition(".dist-info/")[2]
        if inside and TEXT.search(inside):
            texts[inside.removeprefix("licenses/").replace("/", "-")] = Path(str(dist.locate_file(file)))
    if name.startswith(("pyside6", "shiboken6")):
        return Part(dist.name, dist.version, LGPL_QT, texts | {text: OURS / text for text in QT})
    if name == "xllamacpp":
        texts["llama.cpp.txt"] = OURS / "llama.cpp.txt"
    if (own := OURS / f"{name}.txt").is_file():
        texts[own.name] = own
    return Part(
        dist.name, dist.version, licence or _licence(dist), {k: path for k, path in texts.items() if path.is_file()}
    )


def _licence(dist: importlib.metadata.Distribution) -> str:
    told = (dist.metadata["License-Expression"] or dist.metadata["License"] or "").strip()
    if not told or "\n" in told or len(told) > 60:
        classifiers = dist.metadata.get_all("Classifier") or []
        words = [line.rpartition(":: ")[2] for line in classifiers if line.startswith("License :: ")]
        told = " AND ".join(words) or "see its text"
    return HINTS.get(told, told)


def page_parts() -> Iterator[Part]:
    """What of npm is in the built page."""
    modules = Path(os.environ.get("QUORUM_BUILD_MODULES", ROOT / "ui" / "node_modules"))
    for name in BUNDLED_NPM:
        told = json.loads((modules / name / "package.json").read_text("utf-8"))
        texts = {p.name: p for p in sorted((modules / name).iterdir()) if p.is_file() and TEXT.search(p.name)}
        yield Part(name, told["version"], str(told.get("license", "see its text")), texts)


def system_parts(files: Iterable[Path]) -> Iterator[Part]:
    """The Debian packages whose libraries are taken along."""
    packages: set[str] = set()
    for file in files:
        if file.is_relative_to("/usr/lib") or file.is_relative_to("/lib"):
            # Where /lib is a link, dpkg knows a file by the one name or the other.
            names = [str(file), str(file).removeprefix("/usr")]
            done = subprocess.run(["dpkg", "-S", *names], capture_output=True, text=True, check=False)
            packages |= {line.partition(":")[0] for line in done.stdout.splitlines()}
    for package in sorted(packages):
        command = ["dpkg-query", "-W", "-f", "${Version}", package]
        version = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()[0]
        text = Path("/usr/share/doc") / package / "copyright"
        yield Part(f"{package} (Debian)", version, "see its text", {"copyright.txt": text.resolve()})
