"""The check of model files: what is usable is described, what is not is refused with its reason, soon and cheaply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from router import gguf
from router.gguf import GgufError, GgufInfo
from tests.router.gguf_files import File, changed, tensor


def read(tmp_path: Path, file: File | bytes, name: str = "tiny.gguf") -> GgufInfo:
    path = tmp_path / name
    path.write_bytes(file if isinstance(file, bytes) else file.bytes())
    return gguf.read(path)


def test_a_usable_file_is_described(tmp_path: Path) -> None:
    info = read(tmp_path, File())
    assert (info.architecture, info.name, info.parameters, info.quantisation) == ("llama", "Tiny", "1B", "Q4_K_M")
    assert (info.context, info.block_count, info.vocabulary, info.width) == (4096, 2, 3, 64)
    assert info.kv_bytes == 2 * 2 * (16 + 16) * 2  # layers, kv heads, key and value width, two bytes each
    assert info.capabilities == {"chat"}
    assert not info.projector
    assert info.size_bytes == (tmp_path / "tiny.gguf").stat().st_size


@pytest.mark.engine
def test_the_starter_model_is_described(starter_model: Path) -> None:
    info = gguf.read(starter_model)
    assert (info.architecture, info.parameters, info.quantisation, info.context) == ("llama", "135M", "Q4_1", 8192)
    assert info.kv_bytes * 2048 == 45 * 2**20  # what llama.cpp itself reports
    assert info.capabilities == {"chat"}
    assert 200 * 2**20 < info.memory_need(2048) < 400 * 2**20


def test_memory_grows_with_context_and_slots(tmp_path: Path) -> None:
    info = read(tmp_path, File())
    assert info.memory_need(2000) - info.memory_need(1000) == 1000 * info.kv_bytes
    assert info.memory_need(1000, slots=2) == info.memory_need(2000)


@pytest.mark.parametrize(
    ("pairs", "capabilities"),
    [
        ({"general__architecture": "nomic-bert"}, {"embedding"}),
        ({"general__architecture": "qwen3", "qwen3.pooling_type": 3}, {"embedding"}),
        ({"general__architecture": "bert", "bert.pooling_type": 4}, {"embedding"}),
        ({"llama.pooling_type": 4}, set()),
        ({"llama.pooling_type": 0}, {"chat"}),
        ({"general__architecture": "clip"}, set()),
        ({"tokenizer__chat_template": "{% if tools %}"}, {"chat", "tools"}),
        ({"tokenizer__chat_template": "<think> {{ tools }}"}, {"chat", "tools", "thinking"}),
    ],
)
def test_what_a_model_can_do(tmp_path: Path, pairs: dict[str, Any], capabilities: set[str]) -> None:
    assert read(tmp_path, changed(**pairs)).capabilities == capabilities


def test_heads_may_differ_from_layer_to_layer(tmp_path: Path) -> None:
    info = read(tmp_path, changed(**{"llama.attention.head_count_kv": [4, 0]}))
    assert info.kv_bytes == 4 * 32 * 2


def test_without_a_label_the_weights_are_counted(tmp_path: Path) -> None:
    file = changed(general__size_label=None)
    file.tensors = [tensor("w", (1000, 1300), 0, 0)]
    file.data = 1000 * 1300 * 4
    assert read(tmp_path, file).parameters == "1.3M"


def shards(folder: Path, count: int) -> list[Path]:
    paths = []
    for number in range(count):
        file = changed(**{"split.count": count, "split.no": number}) if number == 0 else File({"split.no": number})
        paths.append(file.write(folder / f"big-{number + 1:05}-of-{count:05}.gguf"))
    return paths


def test_a_split_model_is_its_parts_together(tmp_path: Path) -> None:
    paths = shards(tmp_path, 3)
    info = gguf.read(paths[0])
    assert info.shards == tuple(paths)
    assert info.size_bytes == sum(path.stat().st_size for path in paths)


def test_a_split_model_lacking_a_part_or_begun_in_the_middle_is_refused(tmp_path: Path) -> None:
    paths = shards(tmp_path, 3)
    with pytest.raises(GgufError, match="part 2 of 3"):
        gguf.read(paths[1])
    paths[2].write_bytes(paths[2].read_bytes()[:100])
    with pytest.raises(GgufError, match=r"truncated|outside"):
        gguf.read(paths[0])
    paths[2].unlink()
    with pytest.raises(GgufError, match="lacks its part big-00003-of-00003"):
        gguf.read(paths[0])
    with pytest.raises(GgufError, match="parts"):
        read(tmp_path, File(), "big-00001-of-00000.gguf")
