"""Model files: a bounded reader of GGUF headers that refuses what could harm the engine. Trusts nothing in the file.

Source: the GGUF specification of ggml (versions 2 and 3). Weights are never read, only their places are checked.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from router.gguf_types import FILE_TYPES, TENSOR_TYPES

MAX_HEADER_BYTES: Final = 128 * 2**20
MAX_PAIRS: Final = 65_536
MAX_TENSORS: Final = 65_536
MAX_STRING_BYTES: Final = 8 * 2**20
MAX_KEY_BYTES: Final = 65_535
MAX_ARRAY_ITEMS: Final = 2**24
MAX_ARRAY_STRINGS: Final = 1_500_000
MAX_SHARDS: Final = 256
KEPT_ITEMS: Final = 4096
KEPT_CHARACTERS: Final = 2**20
CHUNK: Final = 2**18

EMBEDDERS: Final = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert", "eurobert"}
    | {"gemma-embedding", "llama-embed", "t5encoder"}
)
POOLINGS: Final = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
SHARD: Final = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})$")

_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_UNPACK: Final = {kind: struct.Struct("<" + letter) for kind, letter in _SCALARS.items()}
_U32: Final = _UNPACK[4]
_U64: Final = _UNPACK[10]
_STRING: Final = 8
_ARRAY: Final = 9


class GgufError(ValueError):
    """The file is not a usable model; the text says why, in one sentence."""


@dataclass(frozen=True, slots=True)
class GgufInfo:
    """What a model file says of itself. Bytes are of all shards together; ``kv_bytes`` is per token of context."""

    path: Path
    shards: tuple[Path, ...]
    size_bytes: int
    modified_at: float
    architecture: str
    name: str
    parameters: str
    quantisation: str
    context: int | None
    block_count: int
    kv_bytes: int
    vocabulary: int
    width: int  # of the embeddings a model works in, or a projector makes; 0 where unknown
    pooling: str  # none, mean, cls, last, rank, or empty where the file tells none
    chat_template: str
    projector: bool

    @property
    def embedding(self) -> bool:
        """Whether it turns text into vectors instead of answering."""
        return self.architecture in EMBEDDERS or self.pooling in ("mean", "cls", "last")

    @property
    def capabilities(self) -> frozenset[str]:
        """Words of ``EngineModel.capabilities``, without vision (which needs a projector beside the file)."""
        if self.embedding:
            return frozenset({"embedding"})
        if self.pooling == "rank" or self.projector:
            return frozenset()
        template = self.chat_template
        found = {"chat"}
        if "tools" in template or "tool_call" in template:
            found.add("tools")
        if any(sign in template for sign in ("<think>", "enable_thinking", "reasoning_content", "reasoning_effort")):
            found.add("thinking")
        return frozenset(found)

    def memory_need(self, context: int, slots: int = 1) -> int:
        """Bytes needed to run it: weights, KV cache of ``slots`` conversations of ``context`` tokens, overhead."""
        return self.size_bytes + self.kv_bytes * context * slots + 128 * 2**20 + self.size_bytes // 20


def read(path: Path) -> GgufInfo:
    """Check the file (and its further shards) and say what it is. Raises GgufError. Blocks; takes well under 1 s."""
    try:
        return _read(path)
    except OSError as error:
        raise GgufError(f"can't be read: {error.strerror or error}") from error


def _read(path: Path) -> GgufInfo:
    shards = shards_of(path)
    headers = [_header(shard) for shard in shards]
    first = headers[0]
    if len(shards) != (first.number("split.count") or 1):
        raise GgufError(f"says it has {first.number('split.count') or 1} parts, its name says {len(shards)}")
    for number, header in enumerate(headers):
        if header.number("split.no") not in (None, number):
            raise GgufError(f"has a part {number + 1} that says it is another part")
    return _describe(path, shards, headers, path.stat().st_mtime)


def shards_of(path: Path) -> tuple[Path, ...]:
    """The files of a model, the first one first. Raises GgufError if ``path`` is a later part or one is missing."""
    match = SHARD.match(path.stem)
    if match is None:
        return (path,)
    number, count = int(match["number"]), int(match["count"])
    if not 1 <= count <= MAX_SHARDS:
        raise GgufError(f"is named as one of {count} parts")
    if number != 1:
        raise GgufError(f"is part {number} of {count}; add the first part instead")
    parts = tuple(path.with_name(f"{match['stem']}-{n:05}-of-{count:05}{path.suffix}") for n in range(1, count + 1))
    if missing := [part.name for part in parts if not part.is_file()]:
        raise GgufError(f"lacks its part {missing[0]}")
    return parts


@dataclass(slots=True)
class _Header:
    size: int
    pairs: dict[str, Any] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    elements: int = 0
    tensors: int = 0

    def text(self, key: str) -> str:
        value = self.pairs.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int | None:
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


def _header(path: Path) -> _Header:
    with path.open("rb") as file:
        size = path.stat().st_size
        reader = _Reader(file, size)
        if size < 24 or reader.take(4) != b"GGUF":
            raise GgufError("is not a GGUF file")
        version = reader.u32()
        if version not in (2, 3):
            raise GgufError(f"has GGUF version {version}; 2 and 3 can be used")
        tensors, pairs = reader.u64(), reader.u64()
        if tensors > MAX_TENSORS or pairs > MAX_PAIRS:
            raise GgufError("has absurd counts in its header")
        header = _Header(size, tensors=tensors)
        for _ in range(pairs):
            _pair(reader, header)
        _tensors(reader, header)
        return header


def _pair(reader: _Reader, header: _Header) -> None:
    key = reader.string(MAX_KEY_BYTES)
    if key in header.pairs or key in header.lengths:
        raise GgufError(f"has the key '{key[:64]!s}' twice")
    kind = reader.u32()
    if kind == _STRING:
        header.pairs[key] = reader.string(MAX_STRING_BYTES)[:KEPT_CHARACTERS]
    elif kind == _ARRAY:
        _array(reader, header, key)
    elif kind in _UNPACK:
        unpacker = _UNPACK[kind]
        header.pairs[key] = unpacker.unpack(reader.take(unpacker.size))[0]
    else:
        raise GgufError(f"has a value of unknown type {kind}")


def _array(reader: _Reader, header: _Header, key: str) -> None:
    kind, count = reader.u32(), reader.u64()
    header.lengths[key] = count
    if count > MAX_ARRAY_ITEMS:
        raise GgufError("has a list of absurd length")
    if kind == _STRING:
        reader.skip_strings(count)
    elif kind not in _UNPACK:
        raise GgufError(f"has a list of unknown type {kind}")
    elif count <= KEPT_ITEMS:
        item = _UNPACK[kind]
        header.pairs[key] = [value for (value,) in item.iter_unpack(reader.take(item.size * count))]
    else:
        reader.skip(_UNPACK[kind].size * count)


def _tensors(reader: _Reader, header: _Header) -> None:
    places: list[tuple[int, int]] = []
    names: set[str] = set()
    for _ in range(header.tensors):
        name = reader.string(1024)
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


def _check_places(end: int, header: _Header, places: list[tuple[int, int]]) -> None:
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


def _describe(path: Path, shards: tuple[Path, ...], headers: list[_Header], modified_at: float) -> GgufInfo:
    first = headers[0]
    architecture = first.text("general.architecture")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", architecture):
        raise GgufError("names no architecture")
    if not any(header.tensors for header in headers):
        raise GgufError("has no weights")
    layers = _within(first, f"{architecture}.block_count", 10_000)
    context = _within(first, f"{architecture}.context_length", 2**31 - 1)
    projector = architecture == "clip" or first.text("general.type") == "mmproj"
    pooling = first.number(f"{architecture}.pooling_type")
    file_type = first.number("general.file_type")
    return GgufInfo(
        path=path,
        shards=shards,
        size_bytes=sum(header.size for header in headers),
        modified_at=modified_at,
        architecture=architecture,
        name=_one_line(first.text("general.name"), 128),
        parameters=_parameters(first.text("general.size_label"), sum(header.elements for header in headers)),
        quantisation=FILE_TYPES.get(file_type if file_type is not None else -1, ""),
        context=context or None,
        block_count=layers,
        kv_bytes=_kv_bytes(first, architecture, layers),
        vocabulary=first.lengths.get("tokenizer.ggml.tokens", 0),
        width=_within(first, "clip.vision.projection_dim" if projector else f"{architecture}.embedding_length", 2**24),
        pooling="" if pooling is None else POOLINGS.get(pooling, ""),
        chat_template=first.text("tokenizer.chat_template"),
        projector=projector,
    )


def _within(header: _Header, key: str, limit: int) -> int:
    value = header.number(key) or 0
    if not 0 <= value <= limit:
        raise GgufError(f"has an absurd {key.rpartition('.')[2]}")
    return value


def _kv_bytes(header: _Header, architecture: str, layers: int) -> int:
    """Bytes of an f16 KV cache for one token; sliding windows are counted as if they were whole."""
    heads = _within(header, f"{architecture}.attention.head_count", 65_536)
    width = _within(header, f"{architecture}.embedding_length", 2**24)
    usual = width // heads if heads else 0
    key = _within(header, f"{architecture}.attention.key_length", 65_536) or usual
    value = _within(header, f"{architecture}.attention.value_length", 65_536) or usual
    kv_heads = header.pairs.get(f"{architecture}.attention.head_count_kv", heads)
    if isinstance(kv_heads, list):
        total = sum(count for count in kv_heads[:layers] if isinstance(count, int) and 0 <= count <= 65_536)
    else:
        total = _within(header, f"{architecture}.attention.head_count_kv", 65_536) * layers or heads * layers
    return total * (key + value) * 2


def _parameters(label: str, elements: int) -> str:
    if re.fullmatch(r"[0-9A-Za-z.x-]{1,16}", label):
        return label
    for unit, name in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if elements >= unit:
            amount = elements / unit
            return f"{amount:.0f}{name}" if amount >= 10 else f"{amount:.1f}{name}".replace(".0", "")
    return str(elements)


def _one_line(text: str, limit: int) -> str:
    return "".join(letter for letter in text if letter.isprintable())[:limit]
