"""The signed manifest of a release: read, verified, compared.

On the wire it is ``{"manifest": {...}, "signatures": [{"key": id, "signature": base64}]}``. Each signature is Ed25519
over the canonical bytes of ``manifest``: JSON with sorted keys, no spaces, ASCII. One good signature by a key that this
program knows is enough, so that a release can be signed by an old and a new key while they rotate.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from app.update.errors import UpdateError

FORMAT: Final = 1
MANIFEST_MAX_BYTES: Final = 64 * 1024
FILE_MAX_BYTES: Final = 2 * 2**30
UNPACKED_MAX_BYTES: Final = 6 * 2**30
KEYS_FILE: Final = "update-keys.json"
_DOMAIN: Final = b"quorum release 1\n"  # these keys sign nothing else by accident
_VERSION: Final = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Key(msgspec.Struct, frozen=True):
    """A public key of those who release: 32 bytes in base64. ``revoked`` ones verify nothing any more."""

    id: str
    public: str
    revoked: bool = False


class _Keys(msgspec.Struct):
    keys: list[Key]


class File(msgspec.Struct, frozen=True, kw_only=True):
    """The program for one platform: a ``.tar.gz`` beside the manifest. ``unpacked_bytes`` bounds what comes out."""

    name: str
    bytes: int
    unpacked_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One release. Times are Unix seconds; ``files`` by platform as ``linux-x86_64``, ``macos-arm64``."""

    format: int
    product: str
    version: str
    released_at: int
    expires_at: int
    minimum_version: str
    files: dict[str, File]
    notes: str = ""


class _Signature(msgspec.Struct):
    key: str
    signature: str


def known_keys(assets: Path) -> list[Key]:
    """The keys that came with this program. Raises UpdateError."""
    try:
        return msgspec.json.decode((assets / KEYS_FILE).read_bytes(), type=_Keys).keys
    except (OSError, msgspec.MsgspecError) as error:
        raise UpdateError("The keys of those who release Quorum are missing from this program.") from error


def canonical(manifest: Mapping[str, Any]) -> bytes:
    """What is signed."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return _DOMAIN + text.encode("ascii")


def number(version: str) -> tuple[int, ...]:
    """``1.20.3`` as numbers to compare. Raises ValueError."""
    match = _VERSION.fullmatch(version)
    if match is None:
        raise ValueError("not a version")
    return tuple(int(part) for part in match.groups())


def read(content: bytes, keys: Sequence[Key], now: float) -> Manifest:
    """The manifest in ``content``, once a known key has signed it and it still counts. Raises UpdateError."""
    raw, signatures = _opened(content)
    if not any(not key.revoked for key in keys):
        raise UpdateError("This program carries no key to verify updates with.", "Install a release by hand.")
    if not _signed(canonical(raw), signatures, keys):
        raise UpdateError("The update is not signed by those who release Quorum; it was ignored.")
    try:
        manifest = msgspec.convert(raw, Manifest)
        _check(manifest)
    except (msgspec.ValidationError, ValueError) as error:
        raise UpdateError("The signed manifest of the update can't be used.", "Try a newer release.") from error
    if manifest.expires_at <= now:
        raise UpdateError(
            "What the feed offers is out of date, as if somebody held newer releases back.",
            "Check this computer's clock and the address of the feed.",
        )
    return manifest


def offered(manifest: Manifest, current: str, platform: str) -> File | None:
    """The file that leads from version ``current`` to the manifest's; None when that is not newer.

    Raises UpdateError.
    """
    if number(manifest.version) <= number(current):
        return None
    if number(current) < number(manifest.minimum_version):
        raise UpdateError(
            f"Version {manifest.version} can't be installed over {current}.",
            f"Install version {manifest.minimum_version} or a newer one by hand.",
        )
    file = manifest.files.get(platform)
    if file is None:
        raise UpdateError(f"Version {manifest.version} has no file for {platform}.", "Install it by hand.")
    return file


def _opened(content: bytes) -> tuple[dict[str, Any], list[_Signature]]:
    try:
        whole = json.loads(content, object_pairs_hook=_unique, parse_constant=_refused, parse_float=_refused)
        raw = whole["manifest"]
        if not isinstance(raw, dict):
            raise ValueError("no object")
        return raw, msgspec.convert(whole["signatures"], list[_Signature])[:16]
    except (ValueError, KeyError, TypeError, RecursionError, msgspec.ValidationError) as error:
        raise UpdateError(
            "What the feed answers is not a manifest of Quorum.", "Check the address of the feed."
        ) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _refused(text: str) -> Any:
    raise ValueError(f"{text[:20]} is no whole number")


def _signed(message: bytes, signatures: Sequence[_Signature], keys: Sequence[Key]) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    public = {key.id: key.public for key in keys if not key.revoked}
    for one in signatures:
        if one.key not in public:
            continue
        try:
            key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public[one.key], validate=True))
            key.verify(base64.b64decode(one.signature, validate=True), message)
        except (InvalidSignature, ValueError, binascii.Error):
            continue
        return True
    return False


def _check(manifest: Manifest) -> None:
    """What the types can't say. Raises ValueError."""
    if manifest.format != FORMAT or manifest.product != "quorum":
        raise ValueError("another kind of manifest")
    number(manifest.version)
    number(manifest.minimum_version)
    for file in manifest.files.values():
        if not _NAME.fullmatch(file.name) or not _DIGEST.fullmatch(file.sha256):
            raise ValueError("a file without a proper name and digest")
        if not 0 < file.bytes <= FILE_MAX_BYTES or not 0 < file.unpacked_bytes <= UNPACKED_MAX_BYTES:
            raise ValueError("a file of absurd size")
