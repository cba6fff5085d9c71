"""Hostile model files are refused with their reason, within a second, in little memory."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router import gguf, gguf_reader
from router.gguf import GgufError, GgufInfo
from tests.router.gguf_files import ARRAY, STRING, File, changed, tensor, text


def read(tmp_path: Path, file: File | bytes, name: str = "tiny.gguf") -> GgufInfo:
    path = tmp_path / name
    path.write_bytes(file if isinstance(file, bytes) else file.bytes())
    return gguf.read(path)


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
    with pytest.raises(GgufError, match="is not a file"):
        gguf.read(tmp_path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = File().bytes()
    for length in range(0, len(whole) - 1, 7):
        with pytest.raises(GgufError):
            read(tmp_path, whole[:length])


def test_a_header_at_every_cap_is_read_in_a_second(tmp_path: Path) -> None:
    strings = gguf_reader.MAX_ARRAY_STRINGS - 3
    pairs = b"".join(text(f"key{n}") + struct.pack("<II", 4, n) for n in range(gguf_reader.MAX_PAIRS - 12))
    file = File(
        extra=text("k") + struct.pack("<IIQ", ARRAY, STRING, strings) + text("abcdefgh") * strings + pairs,
        tensors=[tensor(f"w{n}", (64, 2), 0, 0) for n in range(gguf_reader.MAX_TENSORS)],
        counts=(gguf_reader.MAX_TENSORS, gguf_reader.MAX_PAIRS),
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


def test_a_header_of_padding_takes_little_memory(tmp_path: Path) -> None:
    lists = b"".join(text(f"l{n}") + struct.pack("<IIQ", ARRAY, 2, 4096) + b"\xff" * 8192 for n in range(1000))
    texts = b"".join(text(f"t{n}") + struct.pack("<I", STRING) + text("a" * 10_000) for n in range(1000))
    path = File(extra=lists + texts, counts=(1, 2011)).write(tmp_path / "padding.gguf")
    tracemalloc.start()
    gguf.read(path)
    assert tracemalloc.get_traced_memory()[1] < 3 * 2**20
    tracemalloc.stop()


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
