"""Where models of this and other programs lie, and the names they get."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from router.library_places import NAME, folder, lmstudio_folders, loose, ollama, ollama_folders, public_name
from tests.router.gguf_files import File


def manifest(root: Path, name: str, layers: Any) -> None:
    path = root / "manifests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(layers if isinstance(layers, str) else json.dumps({"layers": layers}))


def layer(kind: str, digit: str) -> dict[str, str]:
    return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digit * 64}"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SmolLM2-135M-Instruct.Q4_1", "smollm2-135m-instruct.q4_1"),
        ("My Model (final)", "my-model-final"),
        ("../../etc/passwd", "etc/passwd"),
        ("模型", "model"),
        ("a\r\nb", "a-b"),
        ("x" * 500, "x" * 200),
    ],
)
def test_names_are_safe(text: str, name: str) -> None:
    assert public_name(text) == name
    assert NAME.match(name)


def test_a_split_file_has_the_name_of_the_whole(tmp_path: Path) -> None:
    assert loose(tmp_path / "Big-00001-of-00003.gguf", "added").name == "big"


def test_a_folder_gives_its_gguf_files_and_no_later_parts(tmp_path: Path) -> None:
    for name in ("b.gguf", "A.GGUF", "x-00001-of-00002.gguf", "x-00002-of-00002.gguf", "deep/er/c.gguf"):
        File().write(tmp_path / name)
    for name in (".hidden.gguf", ".cache/d.gguf", "readme.txt", "1/2/3/4/5/6/7/8/far.gguf"):
        File().write(tmp_path / name)
    assert [place.name for place in folder(tmp_path, "added")] == ["a", "b", "x", "c"]


def test_lm_studios_files_keep_their_publisher_for_the_longer_name(tmp_path: Path) -> None:
    root = lmstudio_folders(tmp_path)[0]
    File().write(root / "publisher" / "repository" / "Model-Q4.gguf")
    (place,) = folder(root, "LM Studio")
    assert (place.name, place.longer) == ("model-q4", "publisher/model-q4")


def test_ollamas_manifests_name_their_blobs(tmp_path: Path) -> None:
    model, other = layer("model", "a"), layer("template", "b")
    manifest(tmp_path, "registry.example/library/llama3.2/3b", [other, model])
    manifest(tmp_path, "registry.example/somebody/tuned/latest", [model, layer("projector", "c")])
    manifest(tmp_path, "hf.example/org/Repo-GGUF/Q4_K_M", [model])
    manifest(tmp_path, "registry.example/library/adapted/1", [model, layer("adapter", "d")])
    places = {place.name: place for place in ollama(tmp_path)}
    assert set(places) == {"llama3.2:3b", "somebody/tuned:latest", "hf.example/org/Repo-GGUF:Q4_K_M"}
    assert places["llama3.2:3b"].path == tmp_path / "blobs" / f"sha256-{'a' * 64}"
    assert places["llama3.2:3b"].digest == "a" * 64
    assert places["somebody/tuned:latest"].projector == tmp_path / "blobs" / f"sha256-{'c' * 64}"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"layers": 3}',
        '{"layers": [3]}',
        '{"layers": [{"mediaType": 3, "digest": "sha256:"}]}',
        '{"layers": [{"mediaType": "x.model", "digest": "sha256:../../../../etc/passwd"}]}',
        "[" * 100_000,
    ],
)
def test_a_hostile_manifest_offers_nothing(tmp_path: Path, content: str) -> None:
    manifest(tmp_path, "registry.example/library/bad/1", content)
    assert list(ollama(tmp_path)) == []


def test_ollamas_folder_may_be_named_by_the_environment(tmp_path: Path) -> None:
    assert ollama_folders(tmp_path, {"OLLAMA_MODELS": "/srv/models"}) == [Path("/srv/models")]
    assert ollama_folders(tmp_path, {})[0] == tmp_path / ".ollama" / "models"
