"""The library: files are found in place, checked, named once each, digested; what is bad is listed with its reason."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from router import gguf
from router.aio import Tasks
from router.library import STARTER_NAME, Library
from tests.router.gguf_files import File, changed, tensor


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def library(tmp_path: Path, home: Path) -> Library:
    return Library(models_dir=tmp_path / "models", home=home, environ={})


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    made = Tasks()
    yield made
    await made.close()


def projector(width: int) -> File:
    return changed(general__architecture="clip", **{"clip.vision.projection_dim": width})


async def test_files_of_all_places_are_offered_under_one_name_each(tmp_path: Path, home: Path) -> None:
    starter = File().write(tmp_path / "starter" / "Starter.Q4.gguf")
    File().write(tmp_path / "models" / "mine.gguf")
    File().write(tmp_path / "models" / "more" / "mine.gguf")
    added = File().write(tmp_path / "elsewhere" / "added.gguf")
    File().write(home / ".lmstudio" / "models" / "org" / "repo" / "mine.gguf")
    blob = "a" * 64
    File().write(home / ".ollama" / "models" / "blobs" / f"sha256-{blob}")
    manifest = home / ".ollama" / "models" / "manifests" / "registry.example" / "library" / "llama3.2" / "3b"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"layers": [{"mediaType": "x.model", "digest": f"sha256:{blob}"}]}))
    library = Library(models_dir=tmp_path / "models", added=[added], starter=starter, home=home, environ={})
    await library.scan()
    assert {name: model.source for name, model in library.models.items()} == {
        STARTER_NAME: "starter",
        "mine": "models folder",
        "more/mine": "models folder",
        "added": "added",
        "org/mine": "LM Studio",
        "llama3.2:3b": "Ollama",
    }
    assert library.models["llama3.2:3b"].digest == blob
    assert library.find("SmolLM2:135M") is library.models[STARTER_NAME]
    assert library.find("nothing") is None


async def test_other_programs_files_are_left_alone_when_told(tmp_path: Path, home: Path) -> None:
    File().write(home / ".lmstudio" / "models" / "org" / "repo" / "theirs.gguf")
    library = Library(home=home, find_models=False, environ={})
    await library.scan()
    assert library.models == {}


async def test_bad_files_are_listed_with_their_reason_and_not_offered(library: Library, tmp_path: Path) -> None:
    whole = File().bytes()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "cut.gguf").write_bytes(whole[:-300])
    (tmp_path / "models" / "note.gguf").write_text("hello, this is not a model at all")
    (tmp_path / "models" / "link.gguf").symlink_to(tmp_path / "nowhere")
    changed(**{"llama.pooling_type": 4}).write(tmp_path / "models" / "rank.gguf")
    File().write(tmp_path / "models" / "good.gguf")
    await library.scan()
    assert list(library.models) == ["good"]
    reasons = {Path(path).name: reason for path, reason in library.refused.items()}
    assert "outside the file" in reasons["cut.gguf"]
    assert "not a GGUF" in reasons["note.gguf"]
    assert "can't be read" in reasons["link.gguf"]
    assert "ranks" in reasons["rank.gguf"]


async def test_the_same_file_is_offered_once(library: Library, tmp_path: Path) -> None:
    path = File().write(tmp_path / "models" / "one.gguf")
    (tmp_path / "models" / "two.gguf").symlink_to(path)
    await library.scan()
    assert len(library.models) == 1


async def test_projectors_go_with_the_model_they_fit(library: Library, tmp_path: Path) -> None:
    models = tmp_path / "models"
    File().write(models / "vision-7b-q4.gguf")
    changed(**{"llama.embedding_length": 128}).write(models / "plain-7b.gguf")
    fits = projector(64).write(models / "mmproj-vision-7b-f16.gguf")
    projector(99).write(models / "mmproj-other.gguf")
    await library.scan()
    assert set(library.models) == {"vision-7b-q4", "plain-7b"}
    assert library.models["vision-7b-q4"].projector == fits
    assert "vision" in library.models["vision-7b-q4"].capabilities
    assert library.models["plain-7b"].projector is None
    assert library.refused == {}


async def test_adding_a_file_or_a_folder_offers_it_from_then_on(library: Library, tmp_path: Path) -> None:
    file = File().write(tmp_path / "a" / "one.gguf")
    File().write(tmp_path / "b" / "two.gguf")
    (tmp_path / "b" / "bad.gguf").write_bytes(b"x" * 100)
    assert (await library.add(file)).names == ["one"]
    added = await library.add(tmp_path / "b")
    assert added.names == ["two"]
    assert list(added.refused) == [str(tmp_path / "b" / "bad.gguf")]
    assert set(library.models) == {"one", "two"}
    assert library.added == [file, tmp_path / "b"]
    await library.add(tmp_path / "b" / "two.gguf")
    assert library.added == [file, tmp_path / "b"]


async def test_adding_what_is_offered_already_says_under_which_name(tmp_path: Path, home: Path) -> None:
    starter = File().write(tmp_path / "starter" / "Starter.Q4.gguf")
    library = Library(models_dir=tmp_path / "models", starter=starter, home=home, environ={})
    known = File().write(home / ".lmstudio" / "models" / "org" / "repo" / "known.gguf")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "same.gguf").symlink_to(starter)
    for path, name in ((known, "known"), (starter, STARTER_NAME), (tmp_path / "links", STARTER_NAME)):
        added = await library.add(path)
        assert (added.names, added.refused) == ([name], {})


@pytest.mark.parametrize("what", ["missing.gguf", "empty", "bad.gguf"])
async def test_what_offers_nothing_is_not_kept(library: Library, tmp_path: Path, what: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    added = await library.add(tmp_path / what)
    assert added.names == []
    assert len(added.refused) == 1
    assert library.added == []


async def test_a_relative_path_is_refused(library: Library) -> None:
    assert (await library.add(Path("x.gguf"))).names == []


async def test_files_come_go_and_change_with_each_scan_and_unchanged_ones_are_not_read_again(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = gguf.read
    monkeypatch.setattr(gguf, "read", lambda path: read.append(path.name) or real(path))
    changes: list[None] = []
    library.listen(lambda: changes.append(None))
    path = File().write(tmp_path / "models" / "one.gguf")
    await library.scan()
    await library.scan()
    assert (read, len(changes)) == (["one.gguf"], 1)
    stamp = library.models["one"].stamp
    larger = File(tensors=[tensor("w", (64, 4), 0, 0)], data=1024)
    larger.write(path)
    await library.scan()
    assert library.models["one"].stamp != stamp
    path.unlink()
    await library.scan()
    assert library.models == {}
    assert len(changes) == 3


async def test_digests_come_later_are_kept_and_are_of_all_parts_in_order(
    library: Library, tmp_path: Path, home: Path, tasks: Tasks
) -> None:
    first = changed(**{"split.count": 2}).write(tmp_path / "models" / "big-00001-of-00002.gguf")
    second = File({"split.no": 1}).write(tmp_path / "models" / "big-00002-of-00002.gguf")
    known = asyncio.Event()
    library.listen(lambda: known.set() if "big" in library.models and library.models["big"].digest else None)
    library.start(tasks)
    await asyncio.wait_for(known.wait(), 5)
    expected = hashlib.sha256(first.read_bytes() + second.read_bytes()).hexdigest()
    assert library.models["big"].digest == expected
    library.stop()
    kept: dict[str, str] = dict(library._digests)
    again = Library(models_dir=tmp_path / "models", home=home, digests=kept, environ={})
    await again.scan()
    assert again.models["big"].digest == expected


async def test_a_scan_never_blocks_the_loop(library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gate = threading.Event()

    def slow(path: Path) -> Any:
        raise gguf.GgufError("is slow" if gate.wait(5) else "blocked the loop")

    File().write(tmp_path / "models" / "one.gguf")
    monkeypatch.setattr(gguf, "read", slow)
    asyncio.get_running_loop().call_later(0.01, gate.set)
    await library.scan()
    assert list(library.refused.values()) == ["is slow"]


@pytest.mark.engine
async def test_the_starter_models_digest_is_the_sha256_of_its_file(
    starter_model: Path, home: Path, tasks: Tasks
) -> None:
    library = Library(starter=starter_model, home=home, environ={})
    known = asyncio.Event()
    library.listen(lambda: known.set() if any(model.digest for model in library.models.values()) else None)
    library.start(tasks)
    await asyncio.wait_for(known.wait(), 30)
    digest = library.models[STARTER_NAME].digest
    assert digest == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    library.stop()


@pytest.mark.skipif(os.name != "posix", reason="pipes and links of this kind are POSIX's")
async def test_a_pipe_a_ring_of_links_and_a_link_to_nothing_are_refused_and_hide_no_other_file(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    File().write(folder / "good.gguf")
    os.mkfifo(folder / "pipe.gguf")
    (folder / "ring.gguf").symlink_to(folder / "ring.gguf")
    (folder / "gone.gguf").symlink_to(folder / "nothing")
    (folder / "folder.gguf").mkdir()
    library = Library(models_dir=folder, home=tmp_path, environ={}, find_models=False)
    async with asyncio.timeout(5):
        await library.scan()
    assert list(library.models) == ["good"]
    assert {Path(path).name for path in library.refused} == {"pipe.gguf", "ring.gguf", "gone.gguf"}
    assert library.refused[str(folder / "pipe.gguf")] == "is not a file"


async def test_a_place_that_may_not_be_looked_into_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    File().write(tmp_path / "models" / "good.gguf")
    real = Path.stat

    def stat(path: Path, **options: Any) -> os.stat_result:
        if "locked" in path.parts:
            raise PermissionError(13, "Permission denied")
        return real(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    locked = tmp_path / "locked" / "more"
    library = Library(models_dir=tmp_path / "models", added=[locked], home=tmp_path, environ={})
    await library.scan()
    assert list(library.models) == ["good"]
    assert (await library.add(locked)).refused == {str(locked): "is not there"}
