"""The arithmetic of pairing: SPAKE2 messages and keys, what is derived from them, proofs, checked fields.

Each of ``begin``, ``finish`` and ``answer`` takes some 10 ms: they are called in threads. The libraries are imported
where they are used: 8 MiB that a node which pairs with nobody doesn't need.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any, Final

from router.errors import BadRequestError

MESSAGE_BYTES: Final = 33
CODE_DIGITS: Final = 6
PROOF_MAX: Final = 4096
_SALT: Final = b"quorum-pair-v1"
_SPAKE_REFUSES: Final = (ValueError, AssertionError)


def begin(code: str, mine: bytes, theirs: bytes) -> tuple[Any, bytes]:
    """A's side and its message; both certificates are part of the secret."""
    from spake2 import SPAKE2_A

    side = SPAKE2_A(code.encode(), idA=mine, idB=theirs)
    return side, side.start()


def finish(side: Any, message: bytes) -> bytes | None:
    """A's key out of B's message; None when that is none."""
    from spake2 import SPAKEError

    try:
        return bytes(side.finish(message))
    except (SPAKEError, *_SPAKE_REFUSES):
        return None


def answer(code: str, theirs: bytes, mine: bytes, message: bytes) -> tuple[bytes, bytes] | None:
    """B's message and key out of A's message; None when that is none."""
    from spake2 import SPAKE2_B, SPAKEError

    side = SPAKE2_B(code.encode(), idA=theirs, idB=mine)
    own = side.start()
    try:
        return own, bytes(side.finish(message))
    except (SPAKEError, *_SPAKE_REFUSES):
        return None


def derive(key: bytes, info: bytes) -> bytes:
    """32 bytes for one purpose."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(hashes.SHA256(), 32, _SALT, info).derive(key)


def prove(certificate: Path, key: Path, said: bytes) -> dict[str, str]:
    """That who says ``said`` owns the certificate: the certificate itself and a signature. Reads two files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    der = x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(serialization.Encoding.DER)
    secret = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(secret, ec.EllipticCurvePrivateKey)  # noqa: S101 - identity.py made it
    signature = secret.sign(said, ec.ECDSA(hashes.SHA256()))
    return {"certificate": base64.b64encode(der).decode(), "signature": base64.b64encode(signature).decode()}


def proven(told: dict[str, Any], fingerprint: bytes, said: bytes) -> bool:
    """Whether ``told`` proves that who said ``said`` owns the certificate with this SHA-256."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    certificate, signature = told.get("certificate"), told.get("signature")
    if not isinstance(certificate, str) or not isinstance(signature, str):
        return False
    if len(certificate) > PROOF_MAX or len(signature) > PROOF_MAX:
        return False
    try:
        der = base64.b64decode(certificate, validate=True)
        if hashlib.sha256(der).digest() != fingerprint:
            return False
        public = x509.load_der_x509_certificate(der).public_key()
        if not isinstance(public, ec.EllipticCurvePublicKey):
            return False
        public.verify(base64.b64decode(signature, validate=True), said, ec.ECDSA(hashes.SHA256()))
    except (ValueError, InvalidSignature):
        return False
    return True


def hexadecimal(said: dict[str, Any], name: str, size: int) -> bytes:
    """A field of exactly ``size`` bytes in hexadecimal. Raises BadRequestError."""
    value = said.get(name)
    if isinstance(value, str) and len(value) == 2 * size and value.isascii() and value.isalnum():
        try:
            return bytes.fromhex(value)
        except ValueError:
            pass
    raise BadRequestError(f"'{name}' must be {size} bytes in hexadecimal.", field=name)


def text(said: dict[str, Any], name: str) -> str:
    """A field of at most 256 characters, empty where there is none."""
    value = said.get(name)
    return value[:256] if isinstance(value, str) else ""


def port(said: dict[str, Any], usual: int) -> int:
    """A port that needs no privilege, else ``usual``."""
    value = said.get("port")
    return value if type(value) is int and 1024 <= value < 65_536 else usual
