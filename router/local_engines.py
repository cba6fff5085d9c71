"""The engines of this computer: the built-in one over the library's files, and those found on local ports."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path

from router.aio import Clock, Tasks
from router.engines.http1 import Http1Transport
from router.engines.llama import LlamaEngine
from router.engines.probe import EngineFinder, FoundEngine
from router.engines.transport import HttpTransport, Transport
from router.library import Library
from router.roster import Roster
from router.sessions import ModelFiles
from router.settings import Settings
from router.wire import Added

STARTER = "SmolLM2-135M-Instruct.Q4_1.gguf"


class LocalEngines:
    """Starts and stops them, and lets the user add model files."""

    def __init__(
        self,
        settings: Settings,
        data_dir: Path,
        files: ModelFiles,
        roster: Roster,
        tasks: Tasks,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._data_dir = data_dir
        self._files = files
        self._roster = roster
        self._tasks = tasks
        self._clock = clock
        self._transport: Transport | None = None
        self._library: Library | None = None
        self._finder: EngineFinder | None = None

    async def start(self, own_addresses: Callable[[], frozenset[tuple[str, int]]]) -> None:
        """Bring up the built-in engine and begin to look for others."""
        transport = self._transport = Http1Transport(HttpTransport())
        library = self._library = Library(
            models_dir=await asyncio.to_thread(self._models_dir),
            added=[Path(path) for path in self._files.added_paths()],
            starter=await asyncio.to_thread(_starter),
            find_models=self._settings["find_models"],
            digests=_Digests(self._files),
        )
        if self._settings["builtin_engine"]:
            engine = LlamaEngine(library, self._settings, self._tasks, self._clock, transport)
            engine.changed = lambda: self._roster.poll_soon(engine.id)
            library.listen(engine.changed)
            await library.scan()
            await self._roster.add(engine)
            library.start(self._tasks)
        finder = self._finder = EngineFinder(
            self._settings,
            transport,
            self._clock,
            own=own_addresses,
            appeared=self._appeared,
            vanished=lambda engine_id: self._roster.gone(engine_id),
        )
        await finder.look()
        await self._roster.settled()
        finder.start(self._tasks)
        self._settings.listen(self._settings_changed)

    def drop_connections(self) -> None:
        """What is kept open to engines is void: this machine slept, and some of them are other machines."""
        if self._transport is not None:
            self._transport.drop_idle()

    def _settings_changed(self, names: frozenset[str]) -> None:
        """What was set counts at once, not at the next look."""
        if self._finder is not None and "engines" in names:
            self._tasks.spawn("find engines", self._finder.look())
        if names & {"models_dir", "find_models"}:
            self._tasks.spawn("look at folders", self._look_at_folders())

    async def _look_at_folders(self) -> None:
        if self._library is not None:
            self._library.models_dir = await asyncio.to_thread(self._models_dir)
            self._library.find_models = self._settings["find_models"]
            await self._library.scan()

    def _appeared(self, engine: FoundEngine) -> None:
        self._roster.found(engine)

    def _models_dir(self) -> Path:
        folder = Path(self._settings["models_dir"] or self._data_dir / "models").expanduser()
        if not self._settings["models_dir"]:
            folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    async def add_models(self, path: str) -> Added:
        """Offer a file or a folder with models from now on."""
        if self._library is None:
            return Added(names=[], refused={path: "the built-in engine is still starting"})
        place = await asyncio.to_thread(Path(path).expanduser)
        added = await self._library.add(place)
        if added.names:
            await self._files.add_path(str(place))
        return added

    async def stop(self) -> None:
        """End all engines, then close what they used."""
        if self._library is not None:
            self._library.stop()
        await self._roster.stop()
        if self._transport is not None:
            await self._transport.close()


class _Digests(MutableMapping[str, str]):
    """The library's digests by stamp (path, size and time in one), kept in the store."""

    def __init__(self, files: ModelFiles) -> None:
        self._files = files
        self._seen: dict[str, str] = {}

    def __getitem__(self, stamp: str) -> str:
        digest = self._seen.get(stamp) or self._files.digest(stamp, 0, 0)
        if digest is None:
            raise KeyError(stamp)
        return digest

    def __setitem__(self, stamp: str, digest: str) -> None:
        self._seen[stamp] = digest
        self._files.put_digest(stamp, 0, 0, digest)

    def __delitem__(self, stamp: str) -> None:
        del self._seen[stamp]

    def __iter__(self) -> Iterator[str]:
        return iter(self._seen)

    def __len__(self) -> int:
        return len(self._seen)


def _starter() -> Path | None:
    """The starter model: where the environment says, else inside the package, else where ``dev.py`` put it."""
    if (named := os.environ.get("QUORUM_STARTER_MODEL")) is not None:
        places = [Path(named)]
    elif (bundled := getattr(sys, "_MEIPASS", None)) is not None:
        places = [Path(bundled) / "assets" / STARTER]
    else:
        places = [Path(__file__).resolve().parent.parent / ".dev" / "models" / STARTER]
    return next((place for place in places if place.is_file()), None)
