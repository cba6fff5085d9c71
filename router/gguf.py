"""Model files: what a GGUF file says of itself, once it was found to be whole and harmless. Trusts nothing in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from router.gguf_reader import TEMPLATE, GgufError, Header, read_header
from router.gguf_types import FILE_TYPES

__all__ = ["GgufError", "GgufInfo", "read", "shards_of"]

MAX_SHARDS: Final = 256

EMBEDDERS: Final = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert", "eurobert"}
    | {"gemma-embedding", "llama-embed", "t5encoder"}
)
POOLINGS: Final = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
SHARD: Final = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})$")


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
    headers = [read_header(shard) for shard in shards]
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


def _describe(path: Path, shards: tuple[Path, ...], headers: list[Header], modified_at: float) -> GgufInfo:
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
        chat_template=first.text(TEMPLATE),
        projector=projector,
    )


def _within(header: Header, key: str, limit: int) -> int:
    value = header.number(key) or 0
    if not 0 <= value <= limit:
        raise GgufError(f"has an absurd {key.rpartition('.')[2]}")
    return value


def _kv_bytes(header: Header, architecture: str, layers: int) -> int:
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
