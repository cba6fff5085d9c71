"""Only what a known key signed is believed, and only while it counts; never back to a lower version."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

from app.update import manifest
from app.update.errors import UpdateError
from app.update.installation import platform_name
from tests.app.update.kit import ROOT, Signer, envelope, told

PLATFORM = platform_name()


def read(content: bytes, *signers: Signer, now: float | None = None) -> manifest.Manifest:
    return manifest.read(content, [signer.key for signer in signers], time.time() if now is None else now)


def test_a_signed_manifest_offers_the_file_of_this_platform(signer: Signer) -> None:
    found = read(envelope(told("0.2.0", b"x"), signer), signer)

    file = manifest.offered(found, "0.1.0", PLATFORM)
    assert file is not None
    assert (file.name, file.bytes) == ("quorum-0.2.0.tar.gz", 1)


def test_while_keys_rotate_one_known_signature_is_enough(signer: Signer) -> None:
    new = Signer("test-2")
    content = envelope(told("0.2.0", b"x"), signer, new)

    assert read(content, signer).version == read(content, new).version == "0.2.0"


def test_a_revoked_key_verifies_nothing(signer: Signer) -> None:
    other = Signer("other")
    revoked = manifest.Key(signer.key.id, signer.key.public, revoked=True)

    with pytest.raises(UpdateError, match="not signed by those"):
        manifest.read(envelope(told("0.2.0", b"x"), signer), [revoked, other.key], time.time())


def test_a_key_that_is_not_known_is_refused(signer: Signer) -> None:
    with pytest.raises(UpdateError, match="not signed by those"):
        read(envelope(told("0.2.0", b"x"), Signer()), signer)


def test_a_program_without_keys_verifies_nothing(signer: Signer) -> None:
    with pytest.raises(UpdateError, match="carries no key"):
        read(envelope(told("0.2.0", b"x"), signer))


@pytest.mark.parametrize("part", ["version", "expires_at", "files"])
def test_a_changed_part_breaks_the_signature(signer: Signer, part: str) -> None:
    whole = json.loads(envelope(told("0.2.0", b"x"), signer))
    whole["manifest"][part] = told("0.3.0", b"y", expires_at=2**40)[part]

    with pytest.raises(UpdateError, match="not signed by those"):
        read(json.dumps(whole).encode(), signer)


def test_a_signature_for_something_else_does_not_count(signer: Signer) -> None:
    raw = told("0.2.0", b"x")
    plain = json.dumps(raw, sort_keys=True, separators=(",", ":")).encode()
    signature = base64.b64encode(signer.private.sign(plain)).decode()

    with pytest.raises(UpdateError, match="not signed by those"):
        read(
            json.dumps({"manifest": raw, "signatures": [{"key": signer.name, "signature": signature}]}).encode(), signer
        )


def test_an_expired_manifest_is_refused(signer: Signer) -> None:
    content = envelope(told("0.2.0", b"x", expires_at=1000), signer)

    assert read(content, signer, now=999).version == "0.2.0"
    with pytest.raises(UpdateError, match="out of date"):
        read(content, signer, now=1000)


GARBAGE = [b"", b"<html>", b"[]", b"{}", b'{"manifest": 1, "signatures": []}', b"\xff\xfe", b"[" * 50_000]
GARBAGE += [b'{"manifest": {"a": 1, "a": 2}, "signatures": []}', b'{"manifest": {"a": NaN}, "signatures": []}']


@pytest.mark.parametrize("content", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_no_manifest(signer: Signer, content: bytes) -> None:
    with pytest.raises(UpdateError, match="not a manifest"):
        read(content, signer)


def odd_file(**changes: Any) -> dict[str, Any]:
    return {"files": {PLATFORM: {**told("0.2.0", b"x")["files"][PLATFORM], **changes}}}


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"product": "other"},
        {"version": "0.2"},
        {"version": "0.2.0-rc1"},
        {"minimum_version": ""},
        {"expires_at": "never"},
        odd_file(name="../quorum.tar.gz"),
        odd_file(name=".hidden"),
        odd_file(name="a/b"),
        odd_file(sha256="AB"),
        odd_file(bytes=0),
        odd_file(bytes=2**40),
        odd_file(unpacked_bytes=2**40),
    ],
    ids=str,
)
def test_an_odd_manifest_is_refused_even_when_it_is_signed(signer: Signer, changes: dict[str, Any]) -> None:
    with pytest.raises(UpdateError, match="can't be used"):
        read(envelope(told("0.2.0", b"x") | changes, signer), signer)


@pytest.mark.parametrize(("version", "current"), [("0.1.0", "0.1.0"), ("0.1.9", "0.1.10"), ("0.9.9", "1.0.0")])
def test_it_never_leads_to_the_same_or_a_lower_version(signer: Signer, version: str, current: str) -> None:
    found = read(envelope(told(version, b"x"), signer), signer)

    assert manifest.offered(found, current, PLATFORM) is None


def test_a_version_that_is_too_old_or_has_no_file_is_told(signer: Signer) -> None:
    found = read(envelope(told("2.0.0", b"x", minimum_version="1.5.0"), signer), signer)

    with pytest.raises(UpdateError, match=r"can't be installed over 1\.4\.9"):
        manifest.offered(found, "1.4.9", PLATFORM)
    with pytest.raises(UpdateError, match="no file for plan9-mips"):
        manifest.offered(found, "1.5.0", "plan9-mips")


def test_the_keys_of_this_program_can_be_read() -> None:
    for key in manifest.known_keys(ROOT / "assets"):
        assert len(base64.b64decode(key.public, validate=True)) == 32


def test_missing_keys_are_told(tmp_path: Path) -> None:
    with pytest.raises(UpdateError, match="missing from this program"):
        manifest.known_keys(tmp_path)
