"""One certificate a node, made once, readable by its owner only."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from router.errors import StartError
from router.identity import load_identity, make_private, node_id, write_private


def test_the_identity_is_made_once_and_stays(tmp_path: Path) -> None:
    first = load_identity(tmp_path)
    assert load_identity(tmp_path) == first
    assert len(first.node_id) == 52
    assert first.node_id == node_id(ssl.PEM_cert_to_DER_cert(first.certificate.read_text()))


def test_the_certificate_is_what_peers_expect(tmp_path: Path) -> None:
    made = x509.load_pem_x509_certificate(load_identity(tmp_path).certificate.read_bytes())
    assert made.subject.rfc4514_string() == "CN=quorum"
    assert (made.not_valid_before_utc.year, made.not_valid_after_utc.year) == (2000, 2049)
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert made.public_key().key_size == 256  # type: ignore[union-attr]


def test_only_the_owner_reads_the_key(tmp_path: Path) -> None:
    identity = load_identity(tmp_path)
    for path in (identity.key, identity.certificate):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_broken_certificate_is_explained_and_not_replaced(tmp_path: Path) -> None:
    identity = load_identity(tmp_path)
    identity.certificate.write_text("nonsense")
    with pytest.raises(StartError, match="can't be used"):
        load_identity(tmp_path)
    assert identity.certificate.read_text() == "nonsense"


def test_a_private_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "token"
    write_private(path, b"one")
    write_private(path, b"two")
    assert path.read_bytes() == b"two"
    assert [file.name for file in tmp_path.iterdir()] == ["token"]


def test_the_data_folder_is_for_its_owner_and_one_that_cannot_be_is_explained(tmp_path: Path) -> None:
    make_private(tmp_path / "new" / "data")
    assert stat.S_IMODE((tmp_path / "new" / "data").stat().st_mode) == 0o700
    assert not list((tmp_path / "new" / "data").iterdir())

    (tmp_path / "file").write_text("mine")
    with pytest.raises(StartError, match="can't be written"):
        make_private(tmp_path / "file")
