"""Where model files lie: own folders, LM Studio's and Ollama's, each file with the name it is offered under."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from router import gguf

NAME: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}$")
MAX_FILES: Final = 5000
MAX_DEPTH: Final = 6
MAX_MANIFEST_BYTES: Final = 2**20
_DIGEST: Final = re.compile(r"^sha256:([0-9a-f]{64})$")


@dataclass(frozen=True, slots=True)
class Place:
    """One file found: ``name`` is the one wanted for it, ``longer`` is used when another file has that already."""

    path: Path
    name: str
    longer: str
    source: str
    digest: str | None = None
    projector: Path | None = None


def public_name(text: str) -> str:
    """``text`` as a name that clients may ask for: lower case, safe letters only."""
    name = re.sub(r"[^a-z0-9._:/@+-]+", "-", text.lower()).strip("-._:/@+")[:200]
    return name or "model"


def loose(path: Path, source: str, publisher: str = "") -> Place:
    """A .gguf file somewhere; a split model goes by its first part."""
    match = gguf.SHARD.match(path.stem)
    name = public_name(match["stem"] if match else path.stem)
    return Place(path, name, public_name(f"{publisher or path.parent.name}/{name}"), source)


def folder(root: Path, source: str) -> Iterator[Place]:
    """The .gguf files below ``root``; later parts of split models are left out, links are not followed out of it."""
    found = 0
    for directory, folders, files in os.walk(root):
        here = Path(directory)
        if len(here.relative_to(root).parts) >= MAX_DEPTH:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = here / name
            match = gguf.SHARD.match(path.stem)
            if path.suffix.lower() != ".gguf" or name.startswith(".") or (match and int(match["number"]) > 1):
                continue
            found += 1
            if found > MAX_FILES:
                return
            parts = here.relative_to(root).parts
            yield loose(path, source, parts[0] if source == "LM Studio" and parts else "")


def lmstudio_folders(home: Path) -> list[Path]:
    """Where LM Studio keeps models (publisher/repository/file.gguf)."""
    return [home / ".lmstudio" / "models", home / ".cache" / "lm-studio" / "models"]


def ollama_folders(home: Path, environ: Mapping[str, str]) -> list[Path]:
    """Where Ollama keeps models (manifests and blobs)."""
    if chosen := environ.get("OLLAMA_MODELS"):
        return [Path(chosen)]
    return [home / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")]


def ollama(root: Path) -> Iterator[Place]:
    """The models of Ollama's manifests that are one GGUF blob, with the digest the blob is named by."""
    manifests = root / "manifests"
    for number, path in enumerate(sorted(manifests.glob("*/*/*/*"))):
        if number >= MAX_FILES:
            return
        host, namespace, model, tag = path.relative_to(manifests).parts
        name = f"{model}:{tag}"
        if namespace != "library":
            name = f"{namespace}/{name}" if host.startswith("registry.") else f"{host}/{namespace}/{name}"
        layers = _layers(path)
        if NAME.match(name) and (blob := layers.get("model")) and "adapter" not in layers:
            projector = layers.get("projector")
            yield Place(
                path=_blob(root, blob),
                name=name,
                longer=public_name(f"{host}/{namespace}/{model}:{tag}"),
                source="Ollama",
                digest=blob,
                projector=_blob(root, projector) if projector else None,
            )


def _blob(root: Path, digest: str) -> Path:
    return root / "blobs" / f"sha256-{digest}"


def _layers(manifest: Path) -> dict[str, str]:
    """Kind of each layer and its digest; a manifest that can't be understood has none."""
    try:
        if not manifest.is_file() or manifest.stat().st_size > MAX_MANIFEST_BYTES:
            return {}
        content: Any = json.loads(manifest.read_bytes())
        layers = content["layers"]
        return {
            layer["mediaType"].rpartition(".")[2]: match[1]
            for layer in layers
            if (match := _DIGEST.match(layer["digest"]))
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
