"""Small GGUF files for tests: a writer that can also lie."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

U32, STRING, ARRAY, BOOL, U64 = 4, 8, 9, 7, 10


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def value(item: Any) -> bytes:
    """A typed value: int as u32, str, bool, or a list of ints or of strings."""
    match item:
        case bool():
            return struct.pack("<IB", BOOL, item)
        case int():
            return struct.pack("<II", U32, item)
        case str():
            return struct.pack("<I", STRING) + text(item)
        case [str(), *_]:
            return struct.pack("<IIQ", ARRAY, STRING, len(item)) + b"".join(map(text, item))
        case list():
            return struct.pack("<IIQ", ARRAY, U32, len(item)) + struct.pack(f"<{len(item)}I", *item)
    raise TypeError(item)


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


LLAMA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "Tiny",
    "general.size_label": "1B",
    "general.file_type": 15,
    "llama.block_count": 2,
    "llama.context_length": 4096,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "tokenizer.ggml.tokens": ["a", "b", "c"],
    "tokenizer.chat_template": "{{ messages }}",
}


@dataclass
class File:
    """The parts of a file; ``bytes`` puts them together. ``counts`` and ``magic`` may lie."""

    pairs: dict[str, Any] = field(default_factory=lambda: dict(LLAMA))
    tensors: list[bytes] = field(default_factory=lambda: [tensor("w", (64, 2), 0, 0)])
    data: int = 512
    magic: bytes = b"GGUF"
    version: int = 3
    counts: tuple[int, int] | None = None
    extra: bytes = b""

    def bytes(self) -> bytes:
        counts = self.counts or (len(self.tensors), len(self.pairs))
        head = self.magic + struct.pack("<IQQ", self.version, *counts)
        head += b"".join(text(key) + value(item) for key, item in self.pairs.items())
        head += self.extra + b"".join(self.tensors)
        return head + bytes(-len(head) % 32) + bytes(self.data)

    def write(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.bytes())
        return path


def changed(**pairs: Any) -> File:
    """A usable file with other metadata; a None leaves the pair out."""
    merged = LLAMA | {key.replace("__", "."): item for key, item in pairs.items()}
    return File({key: item for key, item in merged.items() if item is not None})
