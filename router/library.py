"""The model files of this computer: found in place, checked before an engine sees them, named, and digested."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias

from router import gguf
from router.aio import Tasks
from router.gguf import GgufError, GgufInfo
from router.library_places import Place, folder, lmstudio_folders, loose, ollama, ollama_folders
from router.wire import Added

log = logging.getLogger(__name__)

RESCAN_S: Final = 30.0
STARTER_NAME: Final = "smollm2:135m"
HASH_CHUNK: Final = 4 * 2**20

Stamp: TypeAlias = tuple[str, int, int]
"""Path, size in bytes and time of the last change in ns: the same stamp means the same content."""


@dataclass(frozen=True, slots=True)
class LibraryModel:
    """One usable model file. ``stamp`` changes when any of its files does; ``digest`` is None until computed."""

    name: str
    info: GgufInfo
    source: str
    stamp: str
    digest: str | None = None
    projector: Path | None = None

    @property
    def path(self) -> Path:
        return self.info.path

    @property
    def capabilities(self) -> frozenset[str]:
        return self.info.capabilities | {"vision"} if self.projector else self.info.capabilities


class Library:
    """Finds, checks and names model files; all file work is done in threads. ``digests`` is kept by the caller.

    ``digests`` maps a stamp to the SHA-256 (hex) of the first file followed by its further shards.
    """

    def __init__(
        self,
        *,
        models_dir: Path | None = None,
        added: Iterable[Path] = (),
        starter: Path | None = None,
        find_models: bool = True,
        digests: MutableMapping[str, str] | None = None,
        home: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.models_dir = models_dir
        self.added = list(added)
        self.find_models = find_models
        self._starter = starter
        self._digests: MutableMapping[str, str] = {} if digests is None else digests
        self._home = home or Path.home()
        self._environ = os.environ if environ is None else environ
        self._checked: dict[Stamp, GgufInfo | str] = {}
        self._models: dict[str, LibraryModel] = {}
        self._refused: dict[str, str] = {}
        self._listeners: list[Callable[[], None]] = []
        self._scanning = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._stopping = threading.Event()

    @property
    def models(self) -> Mapping[str, LibraryModel]:
        """The usable models by public name, as of the last scan."""
        return self._models

    @property
    def refused(self) -> Mapping[str, str]:
        """The files that are no usable models, each path with its reason."""
        return self._refused

    def find(self, name: str) -> LibraryModel | None:
        """The model of that public name; the letters' case does not matter."""
        return self._models.get(name) or self._models.get(name.lower())

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after each change of models, refusals or digests."""
        self._listeners.append(listener)

    def start(self, tasks: Tasks) -> None:
        """Scan now and every 30 s, and compute digests in the background, until ``stop`` or the tasks are closed."""
        tasks.spawn("library scan", self._scan_on())
        tasks.spawn("library digests", self._digest_on())

    def stop(self) -> None:
        """Make threads that read files end soon."""
        self._stopping.set()
        self._wanted.set()

    async def scan(self) -> None:
        """Look at all places now; unchanged files are not read again. Where that fails, what was known stays."""
        async with self._scanning:
            try:
                models, refused = await asyncio.to_thread(self._scan)
            except OSError as error:
                log.warning("the model folders can't be read: %s", error.strerror)
                return
            changed = models != self._models or refused != self._refused
            self._models, self._refused = models, refused
        if changed:
            self._changed()

    async def add(self, path: Path) -> Added:
        """Offer a file or a folder from now on; the caller keeps ``added`` for the next start. Never raises."""
        if not path.is_absolute() or await asyncio.to_thread(_kind, path) is None:
            return Added(names=[], refused={str(path): "is not there"})
        if path not in self.added and not self._inside(path):
            self.added.append(path)
        await self.scan()
        names = await asyncio.to_thread(_offered, dict(self._models), path)
        refused = {p: why for p, why in self._refused.items() if Path(p) == path or path in Path(p).parents}
        if not names and path in self.added:
            self.added.remove(path)
            refused = refused or {str(path): "holds no .gguf file"}
        return Added(names=sorted(names), refused=refused)

    def _inside(self, path: Path) -> bool:
        roots = [*self.added, *([self.models_dir] if self.models_dir else [])]
        return any(root in path.parents or root == path for root in roots)

    def _changed(self) -> None:
        self._wanted.set()
        for listener in self._listeners:
            listener()

    async def _scan_on(self) -> None:
        while not self._stopping.is_set():
            await self.scan()
            await asyncio.sleep(RESCAN_S)

    # What follows, up to the digests, runs in a thread.

    def _places(self) -> Iterator[Place]:
        if self._starter:
            yield replace(loose(self._starter, "starter"), name=STARTER_NAME)
        for root in ([self.models_dir] if self.models_dir else []) + self.added:
            source = "models folder" if root == self.models_dir else "added"
            match _kind(root):
                case stat.S_IFDIR:
                    yield from folder(root, source)
                case stat.S_IFREG:
                    yield loose(root, source)
        if self.find_models:
            for root in lmstudio_folders(self._home):
                yield from folder(root, "LM Studio")
            for root in ollama_folders(self._home, self._environ):
                yield from ollama(root)

    def _scan(self) -> tuple[dict[str, LibraryModel], dict[str, str]]:
        refused: dict[str, str] = {}
        found: list[tuple[Place, GgufInfo, str]] = []
        projectors: list[GgufInfo] = []
        seen: set[Path] = set()
        stamps: set[Stamp] = set()
        for place in self._places():
            try:
                real = place.path.resolve()
                if real in seen and place.source != "Ollama":
                    continue
                seen.add(real)
                stamp = _stamp(place.path)
                stamps.add(stamp)
                info = self._check(place.path, stamp)
                if info.projector:
                    projectors.append(info)
                elif info.pooling == "rank":
                    raise GgufError("ranks texts; it neither chats nor makes embeddings")
                else:
                    found.append((place, info, _joined(info)))
            except (GgufError, OSError, RuntimeError) as error:  # RuntimeError is resolve()'s word for a ring of links
                refused[str(place.path)] = str(error) if isinstance(error, GgufError) else "can't be read"
        self._checked = {stamp: value for stamp, value in self._checked.items() if stamp in stamps}
        return self._named(found, projectors), refused

    def _check(self, path: Path, stamp: Stamp) -> GgufInfo:
        result = self._checked.get(stamp)
        if result is None or (isinstance(result, str) and gguf.SHARD.match(path.stem)):  # a missing part may have come
            try:
                result = gguf.read(path)
            except GgufError as error:
                result = str(error)
            self._checked[stamp] = result
        if isinstance(result, str):
            raise GgufError(result)
        return result

    def _named(self, found: list[tuple[Place, GgufInfo, str]], projectors: list[GgufInfo]) -> dict[str, LibraryModel]:
        models: dict[str, LibraryModel] = {}
        for place, info, stamp in found:
            options = (place.name, place.longer, *(f"{place.name}-{number}" for number in range(2, 1000)))
            name = next((option for option in options if option not in models), None)
            if name is None:
                continue
            digest = place.digest or self._digests.get(stamp)
            projector = place.projector or _projector_for(info, projectors)
            models[name] = LibraryModel(name, info, place.source, stamp, digest, projector)
        return models

    # Digests

    async def _digest_on(self) -> None:
        while not self._stopping.is_set():
            await self._wanted.wait()
            self._wanted.clear()
            for model in [model for model in self._models.values() if model.digest is None]:
                await self._digest(model)

    async def _digest(self, model: LibraryModel) -> None:
        try:
            digest = await asyncio.to_thread(_sha256, model.info.shards, self._stopping)
        except OSError as error:
            log.warning("the digest of a model can't be computed: %s", error.strerror)
            return
        if digest is None:
            return
        self._digests[model.stamp] = digest
        current = self._models.get(model.name)
        if current is not None and current.stamp == model.stamp:
            self._models[model.name] = replace(current, digest=digest)
            for listener in self._listeners:
                listener()


def _kind(path: Path) -> int | None:
    """What kind of file is there, as ``stat`` names it; None where nothing is or nobody may look."""
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except OSError:
        return None


def _offered(models: Mapping[str, LibraryModel], path: Path) -> list[str]:
    """The names under which what lies at or below ``path`` is offered, perhaps from another place already."""
    places = [place.path for place in folder(path, "added")] if _kind(path) == stat.S_IFDIR else [path]
    asked = {os.path.realpath(place) for place in places}
    return [name for name, model in models.items() if os.path.realpath(model.path) in asked]


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def _joined(info: GgufInfo) -> str:
    return "|".join(f"{path}:{size}:{changed}" for path, size, changed in map(_stamp, info.shards))


def _projector_for(info: GgufInfo, projectors: list[GgufInfo]) -> Path | None:
    """The projector beside the file that fits its width; with several, the one whose name is most alike."""
    beside = [p for p in projectors if p.path.parent == info.path.parent and p.width in (0, info.width)]
    if not beside:
        return None
    stem = info.path.stem.lower()
    alike = [(_alike(stem, _bare(p.path.stem)), str(p.path)) for p in beside]
    length, path = max(alike)
    return Path(path) if length >= 5 or len(beside) == 1 else None


def _bare(stem: str) -> str:
    return stem.lower().removeprefix("mmproj").lstrip("-_.")


def _alike(one: str, other: str) -> int:
    """How many letters both begin with."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _sha256(paths: tuple[Path, ...], stopping: threading.Event) -> str | None:
    """SHA-256 over the files in order; None when told to stop."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(HASH_CHUNK):
                if stopping.is_set():
                    return None
                digest.update(chunk)
    return digest.hexdigest()
