"""Reads the header of a GGUF file with every count, length and place checked before it is believed.

Source: the GGUF specification of ggml (versions 2 and 3). Weights are never read, only their places are checked.
"""

from __future__ import annotations

import math
import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from router.gguf_types import TENSOR_TYPES

MAX_HEADER_BYTES: Final = 128 * 2**20
MAX_PAIRS: Final = 65_536
MAX_TENSORS: Final = 65_536
MAX_STRING_BYTES: Final = 8 * 2**20
MAX_KEY_BYTES: Final = 65_535
MAX_NAME_BYTES: Final = 128
MAX_ARRAY_ITEMS: Final = 2**24
MAX_ARRAY_STRINGS: Final = 1_500_000
CHUNK: Final = 2**18

# Kept of what is read, so that a header made of padding costs no memory.
KEPT_TEXT: Final = 256
KEPT_TEMPLATE: Final = 2**20
KEPT_LISTS: Final = 8
KEPT_ITEMS: Final = 4096
TEMPLATE: Final = "tokenizer.chat_template"
_LISTS: Final = (".attention.head_count_kv", ".attention.head_count")

_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_UNPACK: Final = {kind: struct.Struct("<" + letter) for kind, letter in _SCALARS.items()}
_U32: Final = _UNPACK[4]
_U64: Final = _UNPACK[10]
_STRING: Final = 8
_ARRAY: Final = 9


class GgufError(ValueError):
    """The file is not a usable model; the text says why, in one sentence."""


@dataclass(slots=True)
class Header:
    """What was kept: metadata by key, lengths of lists, and sums over the tensors. ``size`` is the file's, in bytes."""

    size: int
    pairs: dict[str, Any] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    elements: int = 0
    tensors: int = 0
    lists: int = 0

    def text(self, key: str) -> str:
        """The text of ``key``, empty when it has none."""
        value = self.pairs.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int | None:
        """The whole number of ``key``; of a list the largest."""
        value = self.pairs.get(key)
        if isinstance(value, list):
            value = max(value, default=None)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


class _Reader:
    """Reads forward with a small buffer; every length is checked against the file and the caps first."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.size = size
        self._buffer = b""
        self._at = 0
        self._end = 0  # file offset behind the buffer
        self._strings_left = MAX_ARRAY_STRINGS

    @property
    def offset(self) -> int:
        return self._end - len(self._buffer) + self._at

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        self._need(count)
        start = self._at
        self._at += count
        return self._buffer[start : self._at]

    def _need(self, count: int) -> None:
        if len(self._buffer) - self._at >= count:
            return
        if self.offset + count > self.size:
            raise GgufError("ends in the middle of its header (truncated)")
        if self.offset + count > MAX_HEADER_BYTES:
            raise GgufError("has a header of absurd size")
        rest = self._buffer[self._at :]
        more = self._file.read(max(CHUNK, count - len(rest)))
        self._buffer, self._at, self._end = rest + more, 0, self._end + len(more)
        if len(self._buffer) < count:
            raise GgufError("ends in the middle of its header (truncated)")

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes."""
        inside = len(self._buffer) - self._at
        if count <= inside:
            self._at += count
            return
        target = self.offset + count
        if target > self.size:
            raise GgufError("ends in the middle of its header (truncated)")
        if target > MAX_HEADER_BYTES:
            raise GgufError("has a header of absurd size")
        self._file.seek(target)
        self._buffer, self._at, self._end = b"", 0, target

    def u32(self) -> int:
        return int(_U32.unpack(self.take(4))[0])

    def u64(self) -> int:
        return int(_U64.unpack(self.take(8))[0])

    def string(self, limit: int) -> str:
        length = self.u64()
        if length > limit:
            raise GgufError("has a text of absurd length")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise GgufError("has a text that is not UTF-8") from None

    def skip_strings(self, count: int) -> None:
        """Pass over ``count`` texts (a vocabulary): the one place that must be fast."""
        self._strings_left -= count
        if self._strings_left < 0:
            raise GgufError("has a list of absurd length")
        unpack = _U64.unpack_from
        buffer, at = self._buffer, self._at
        size = len(buffer)
        for _ in range(count):
            if at + 8 > size:
                self._at = at
                self._need(8)
                buffer, at = self._buffer, self._at
                size = len(buffer)
            length = unpack(buffer, at)[0]
            at += 8 + length
            if at > size:
                if length > MAX_STRING_BYTES:
                    raise GgufError("has a text of absurd length")
                self._at = at - length
                self.skip(length)
                buffer, at = self._buffer, self._at
                size = len(buffer)
        self._at = at


def read_header(path: Path) -> Header:
    """Read and check the header of one file. Raises GgufError, OSError."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its other end
        raise GgufError("is not a file")
    size = status.st_size
    with path.open("rb") as file:
        reader = _Reader(file, size)
        if size < 24 or reader.take(4) != b"GGUF":
            raise GgufError("is not a GGUF file")
        version = reader.u32()
        if version not in (2, 3):
            raise GgufError(f"has GGUF version {version}; 2 and 3 can be used")
        tensors, pairs = reader.u64(), reader.u64()
        if tensors > MAX_TENSORS or pairs > MAX_PAIRS:
            raise GgufError("has absurd counts in its header")
        header = Header(size, tensors=tensors)
        for _ in range(pairs):
            _pair(reader, header)
        _tensors(reader, header)
        return header


def _pair(reader: _Reader, header: Header) -> None:
    key = reader.string(MAX_KEY_BYTES)
    if key in header.pairs or key in header.lengths:
        raise GgufError(f"has the key '{key[:64]!s}' twice")
    kind = reader.u32()
    if kind == _STRING:
        header.pairs[key] = reader.string(MAX_STRING_BYTES)[: KEPT_TEMPLATE if key == TEMPLATE else KEPT_TEXT]
    elif kind == _ARRAY:
        _array(reader, header, key)
    elif kind in _UNPACK:
        unpacker = _UNPACK[kind]
        header.pairs[key] = unpacker.unpack(reader.take(unpacker.size))[0]
    else:
        raise GgufError(f"has a value of unknown type {kind}")


def _array(reader: _Reader, header: Header, key: str) -> None:
    kind, count = reader.u32(), reader.u64()
    header.lengths[key] = count
    if count > MAX_ARRAY_ITEMS:
        raise GgufError("has a list of absurd length")
    if kind == _STRING:
        reader.skip_strings(count)
    elif kind not in _UNPACK:
        raise GgufError(f"has a list of unknown type {kind}")
    elif count <= KEPT_ITEMS and key.endswith(_LISTS) and header.lists < KEPT_LISTS:
        header.lists += 1
        item = _UNPACK[kind]
        header.pairs[key] = [value for (value,) in item.iter_unpack(reader.take(item.size * count))]
    else:
        reader.skip(_UNPACK[kind].size * count)


def _tensors(reader: _Reader, header: Header) -> None:
    places: list[tuple[int, int]] = []
    names: set[str] = set()
    for _ in range(header.tensors):
        name = reader.string(MAX_NAME_BYTES)
        if name in names:
            raise GgufError("has two tensors of one name")
        names.add(name)
        dimensions = reader.u32()
        if not 1 <= dimensions <= 4:
            raise GgufError(f"has a tensor with {dimensions} dimensions")
        shape = [reader.u64() for _ in range(dimensions)]
        elements = math.prod(shape)
        if elements >= 2**62:
            raise GgufError("has a tensor of absurd size")
        kind, offset = reader.u32(), reader.u64()
        block, block_bytes = TENSOR_TYPES.get(kind, (1, 0))
        if shape[0] % block:
            raise GgufError("has a tensor whose rows don't fit its type")
        header.elements += elements
        places.append((offset, elements // block * block_bytes))
    _check_places(reader.offset, header, places)


def _check_places(end: int, header: Header, places: list[tuple[int, int]]) -> None:
    alignment = header.pairs.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= 65_536 or alignment & (alignment - 1):
        raise GgufError("has an absurd alignment")
    start = (end + alignment - 1) // alignment * alignment
    room = header.size - start
    for offset, length in places:
        if offset % alignment:
            raise GgufError("has weights at an unaligned place")
        if offset + length > room:
            raise GgufError("has weights outside the file (truncated, or damaged)")
