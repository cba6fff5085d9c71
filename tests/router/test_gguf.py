"""The check of model files: what is usable is described, what is not is refused with its reason, soon and cheaply."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router import gguf
from router.gguf import GgufError, GgufInfo
from tests.router.gguf_files import ARRAY, STRING, File, changed, tensor, text


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


HUGE = 2**63
REFUSED: dict[str, tuple[File | bytes, str]] = {
    "empty": (b"", "not a GGUF"),
    "short": (b"GGUF", "not a GGUF"),
    "other file": (b"PK\x03\x04" + bytes(100), "not a GGUF"),
    "version 1": (File(version=1), "version 1"),
    "version of the other byte order": (File(version=0x03000000), "version"),
    "no weights": (File(tensors=[]), "no weights"),
    "counts": (File(counts=(HUGE, 3)), "absurd counts"),
    "pairs": (File(counts=(1, HUGE)), "absurd counts"),
    "more pairs than there are": (File(counts=(1, 60_000)), "text of absurd length|truncated|unknown type|UTF-8"),
    "long key": (File(extra=struct.pack("<Q", HUGE), counts=(0, 12)), "absurd length"),
    "long text": (File(extra=text("k") + struct.pack("<IQ", STRING, HUGE), counts=(0, 12)), "absurd length"),
    "long list": (File(extra=text("k") + struct.pack("<IIQ", ARRAY, 4, HUGE), counts=(0, 12)), "absurd length"),
    "long list of texts": (File(extra=text("k") + struct.pack("<IIQ", ARRAY, STRING, 2**23), counts=(0, 12)), "absurd"),
    "list of lists": (File(extra=text("k") + struct.pack("<IIQ", ARRAY, ARRAY, 1), counts=(0, 12)), "unknown type"),
    "unknown type": (File(extra=text("k") + struct.pack("<I", 99), counts=(0, 12)), "unknown type"),
    "key twice": (File(extra=text("general.name") + struct.pack("<I", STRING) + text("x"), counts=(1, 12)), "twice"),
    "not UTF-8": (File(extra=text("k") + struct.pack("<I", STRING) + text(b"\xff"), counts=(1, 12)), "UTF-8"),
    "no architecture": (changed(general__architecture=None), "architecture"),
    "odd architecture": (changed(general__architecture="a/../b"), "architecture"),
    "context": (changed(**{"llama.context_length": 2**32 - 1}), "context_length"),
    "layers": (changed(**{"llama.block_count": 4_000_000}), "block_count"),
    "alignment": (changed(**{"general.alignment": 3}), "alignment"),
    "alignment of nothing": (changed(**{"general.alignment": 0}), "alignment"),
    "tensor outside": (File(tensors=[tensor("w", (64, 2), 0, 2**40)]), "outside"),
    "tensor over the end": (File(tensors=[tensor("w", (64, 3), 0, 0)]), "outside"),
    "tensor offset that wraps": (File(tensors=[tensor("w", (64, 2), 0, 2**64 - 32)]), "outside"),
    "tensor of absurd size": (File(tensors=[tensor("w", (2**31, 2**31, 2**31), 0, 0)]), "absurd size"),
    "tensor unaligned": (File(tensors=[tensor("w", (8,), 0, 5)]), "unaligned"),
    "tensor dimensions": (File(tensors=[tensor("w", (1,) * 5, 0, 0)]), "5 dimensions"),
    "tensor rows": (File(tensors=[tensor("w", (33, 2), 2, 0)]), "rows"),
    "tensors of one name": (File(tensors=[tensor("w", (8,), 0, 0)] * 2), "one name"),
    "split that is not": (changed(**{"split.count": 3}), "3 parts"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_file_is_refused_within_a_second(tmp_path: Path, name: str) -> None:
    file, reason = REFUSED[name]
    began = time.perf_counter()
    with pytest.raises(GgufError, match=reason):
        read(tmp_path, file)
    assert time.perf_counter() - began < 1


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GgufError, match="can't be read"):
        gguf.read(tmp_path / "nothing.gguf")
    with pytest.raises(GgufError, match="can't be read"):
        gguf.read(tmp_path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = File().bytes()
    for length in range(0, len(whole) - 1, 7):
        with pytest.raises(GgufError):
            read(tmp_path, whole[:length])


def test_a_header_at_every_cap_is_read_in_a_second(tmp_path: Path) -> None:
    strings = gguf.MAX_ARRAY_STRINGS - 3
    pairs = b"".join(text(f"key{n}") + struct.pack("<II", 4, n) for n in range(gguf.MAX_PAIRS - 12))
    file = File(
        extra=text("k") + struct.pack("<IIQ", ARRAY, STRING, strings) + text("abcdefgh") * strings + pairs,
        tensors=[tensor(f"w{n}", (64, 2), 0, 0) for n in range(gguf.MAX_TENSORS)],
        counts=(gguf.MAX_TENSORS, gguf.MAX_PAIRS),
    )
    path = file.write(tmp_path / "long.gguf")
    began = time.process_time()
    assert gguf.read(path).architecture == "llama"
    assert time.process_time() - began < 1


def test_a_long_vocabulary_takes_little_memory(tmp_path: Path) -> None:
    extra = text("k") + struct.pack("<IIQ", ARRAY, STRING, 100_000) + text("a" * 100) * 100_000
    path = File(extra=extra, counts=(1, 12)).write(tmp_path / "long.gguf")
    tracemalloc.start()
    gguf.read(path)
    assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
    tracemalloc.stop()


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


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=1000)
@given(st.lists(st.tuples(st.integers(0, 1200), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4))
def test_no_change_of_bytes_does_more_than_a_refusal(tmp_path: Path, changes: list[tuple[int, bytes]]) -> None:
    raw = bytearray(File().bytes())
    for at, new in changes:
        raw[at : at + len(new)] = new
    try:
        info = read(tmp_path, bytes(raw))
    except GgufError:
        return
    assert info.memory_need(1) > 0


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=1000)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=400))
def test_no_header_does_more_than_a_refusal(tmp_path: Path, tensors: int, pairs: int, rest: bytes) -> None:
    with pytest.raises(GgufError):
        read(tmp_path, b"GGUF" + struct.pack("<IQQ", 3, tensors % 2**17, pairs % 2**17) + rest)
