"""This node's identity: one self-signed P-256 certificate, made once. The node id is the fingerprint of it."""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
import ssl
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from router.errors import StartError

CERTIFICATE = "node.crt"
KEY = "node.key"


@dataclass(frozen=True, slots=True)
class Identity:
    """``node_id`` is base32 of the SHA-256 of the certificate's DER form: 52 characters, lower case."""

    node_id: str
    certificate: Path
    key: Path


def load_identity(data_dir: Path) -> Identity:
    """Read the identity in ``data_dir``, making it at the first start. Raises StartError when it can't be read."""
    certificate, key = data_dir / CERTIFICATE, data_dir / KEY
    try:
        if not (certificate.exists() and key.exists()):
            _make(certificate, key)
        der = ssl.PEM_cert_to_DER_cert(certificate.read_text("ascii"))
    except (OSError, ValueError) as error:
        raise StartError(
            f"The identity of this node in {data_dir} can't be used: {error}.",
            "Correct its permissions; or move node.crt and node.key away, and pair this computer again.",
        ) from error
    return Identity(node_id(der), certificate, key)


def node_id(der: bytes) -> str:
    """The node id of a certificate in DER form."""
    return base64.b32encode(hashlib.sha256(der).digest()).decode().lower().rstrip("=")


def _make(certificate: Path, key: Path) -> None:
    # cryptography is imported here only: an ordinary start doesn't need it
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "quorum")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2049, 12, 31, tzinfo=datetime.UTC))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(secret, hashes.SHA256())
    )
    pem = secret.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(key, pem)
    write_private(certificate, made.public_bytes(serialization.Encoding.PEM))


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def make_private(folder: Path) -> None:
    """The data folder, for its owner only. Raises StartError."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if sys.platform != "win32" and folder.stat().st_uid == os.geteuid():
            folder.chmod(0o700)
        probe = folder / f".write-{time.monotonic_ns()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StartError(
            f"The data folder {folder} can't be written: {error.strerror}.",
            "Correct its permissions or free some space, or give another one with --data-dir.",
        ) from error
