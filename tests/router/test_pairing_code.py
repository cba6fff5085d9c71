"""The arithmetic of pairing: one key with the right code, none else; proofs of a certificate; fields of strangers."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from router.errors import BadRequestError
from router.identity import load_identity
from router.pairing_code import answer, begin, derive, finish, hexadecimal, port, prove, proven, text
from router.trust import fingerprint_of

A, B, M = bytes(32), bytes([1] * 32), bytes([2] * 32)


def both(code_a: str, code_b: str, seen_by_a: bytes = B, claimed: bytes = A) -> tuple[bytes | None, bytes]:
    side, message = begin(code_a, A, seen_by_a)
    made = answer(code_b, claimed, B, message)
    assert made is not None
    return finish(side, made[0]), made[1]


def test_the_same_code_and_certificates_make_one_key() -> None:
    mine, theirs = both("123456", "123456")
    assert mine == theirs


@pytest.mark.parametrize(
    ("code", "seen", "claimed"), [("123457", B, A), ("123456", M, A), ("123456", B, M)], ids=["code", "seen", "claimed"]
)
def test_another_code_or_certificate_makes_another_key(code: str, seen: bytes, claimed: bytes) -> None:
    mine, theirs = both(code, "123456", seen, claimed)
    assert mine is not None
    assert mine != theirs


@pytest.mark.parametrize(
    "message", [b"", b"A", b"A" + bytes(32), b"B" + bytes(32), b"A" + b"\xff" * 32, b"A" + b"\x01" + bytes(31)]
)
def test_garbage_is_no_message(message: bytes) -> None:
    assert answer("123456", A, B, message) is None
    side, _ = begin("123456", A, B)
    assert finish(side, message) is None


def test_a_reflected_message_is_refused() -> None:
    side, message = begin("123456", A, B)
    assert finish(side, message) is None


def test_what_is_derived_differs_by_purpose() -> None:
    assert len({derive(A, info) for info in (b"confirm A", b"confirm B", b"A->B", b"B->A")}) == 4


# -- proofs


def test_only_the_owner_of_a_certificate_proves_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "m").mkdir()
    mine, other = load_identity(tmp_path / "a"), load_identity(tmp_path / "m")
    own = fingerprint_of(mine.node_id)
    told: dict[str, Any] = dict(prove(mine.certificate, mine.key, b"said"))
    theirs = prove(other.certificate, other.key, b"said")
    assert proven(told, own, b"said")
    assert not proven(told, own, b"other")
    assert not proven(told, fingerprint_of(other.node_id), b"said")
    assert not proven(told | {"signature": theirs["signature"]}, own, b"said")
    assert not proven({}, own, b"said")


@pytest.mark.parametrize("value", [None, 1, "", "!", "A" * 10_000, base64.b64encode(b"x").decode()])
def test_a_malformed_proof_proves_nothing(value: object, tmp_path: Path) -> None:
    mine = load_identity(tmp_path)
    told: dict[str, Any] = dict(prove(mine.certificate, mine.key, b"said"))
    own = fingerprint_of(mine.node_id)
    assert not proven(told | {"certificate": value}, own, b"said")
    assert not proven(told | {"signature": value}, own, b"said")


# -- fields


@pytest.mark.parametrize("value", [None, 1, "", "zz", "0", "00" * 3, "0 ", " 0", "\u0660\u0660", b"00", ["00"]])
def test_a_field_that_is_not_hexadecimal_of_its_size_is_named(value: object) -> None:
    with pytest.raises(BadRequestError) as refused:
        hexadecimal({"x": value}, "x", 1)
    assert refused.value.field == "x"


def test_fields_are_bounded() -> None:
    assert hexadecimal({"x": "0aFF"}, "x", 2) == b"\x0a\xff"
    assert text({"x": "a" * 1000}, "x") == "a" * 256
    assert text({"x": 1}, "x") == ""
    assert [port({"port": value}, 7412) for value in (8000, 80, 0, 70_000, True, "8000", None)] == [8000] + [7412] * 6
