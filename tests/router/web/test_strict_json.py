"""Strict JSON against a slow reference, and its speed in kind: no body makes it slow."""

from __future__ import annotations

import json
import math
import re
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router.errors import BadRequestError
from router.web import strict_json
from router.web.strict_json import DEPTH_MAX, decode


class Refused(ValueError):
    pass


def reference(body: bytes) -> dict[str, Any]:
    """The same rules, written for the reader alone."""
    text = body.decode("utf-8")

    def constant(word: str) -> None:
        raise Refused(word)

    def number(word: str) -> float:
        value = float(word)
        if math.isinf(value):
            raise Refused(word)
        return value

    def integer(word: str) -> int:
        if len(word) > 20 or not -(2**63) <= int(word) <= 2**64 - 1:
            raise Refused(word)
        return int(word)

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in items}) != len(items):
            raise Refused("twice")
        return dict(items)

    if text.startswith("\ufeff"):
        raise Refused("mark")
    value = json.loads(
        text, parse_constant=constant, parse_float=number, parse_int=integer, object_pairs_hook=pairs, strict=True
    )
    json.dumps(value, ensure_ascii=False).encode("utf-8")
    if not isinstance(value, dict) or depth(value) > DEPTH_MAX:
        raise Refused("shape")
    return value


def depth(value: Any) -> int:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    inside = max((depth(item) for item in below), default=0)
    return inside + 1 if isinstance(value, dict | list) else 0


texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ['"', "\\", '\\"', "\n", "\u2028", "é", "漢", "\U0001f600", "a\\", '":', "\x7f", "/"]
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63) - 2, 2**64 + 2)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4))
objects = st.dictionaries(texts, values, max_size=5)


def agree(body: bytes) -> None:
    try:
        expected = reference(body)
    except (ValueError, RecursionError):
        with pytest.raises(BadRequestError):
            decode(body)
        return
    found = decode(body)
    assert found == expected
    assert json.dumps(found) == json.dumps(expected)


@given(objects, st.sampled_from([None, 1, "\t"]), st.booleans(), st.booleans())
def test_every_way_of_writing_an_object_is_read_alike(
    value: dict[str, Any], indent: int | str | None, ascii_only: bool, compact: bool
) -> None:
    separators = (",", ":") if compact else None
    agree(json.dumps(value, indent=indent, ensure_ascii=ascii_only, separators=separators).encode())


@given(objects, st.data())
def test_a_key_twice_is_found_wherever_it_stands(value: dict[str, Any], data: st.DataObject) -> None:
    key, one, two = data.draw(texts), data.draw(values), data.draw(values)
    separators = data.draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :")]))
    name = json.dumps(key, ensure_ascii=data.draw(st.booleans()))
    other = json.dumps(key, ensure_ascii=data.draw(st.booleans()))
    twice = f"{{{name}{separators[1]}{json.dumps(one)}{separators[0]}{other}{separators[1]}{json.dumps(two)}}}"
    marked = json.dumps({**value, "marked": "@@"}, separators=separators)
    body = marked.replace('"@@"', twice).encode()
    with pytest.raises(BadRequestError):
        decode(body)
    agree(body)


@given(st.binary(max_size=40))
@example(b"")
@example(b'{"a":1}\x00')
@example(b'{"a":-}')
@example(b'{"a":.5}')
@example(b'{"a":1E400}')
@example(b'{"a":1e-400}')
@example(b'{"a":"\t"}')
@example(b'{"a":"\\u0000"}')
@example(b'{"\\u0061":1,"a":2}')
@example(b'{"a":"\\ud83d\\ude00"}')
@example(b'{"a":"\\ude00\\ud83d"}')
@example(b'{"a":"\xed\xa0\xbd"}')
@example(b"\xef\xbb\xbf{}")
@example(b"\xff\xfe{\x00}\x00")
def test_arbitrary_bytes_are_judged_alike(body: bytes) -> None:
    agree(body)


fragments = st.sampled_from(
    [b"{", b"}", b"[", b"]", b",", b":", b'"a"', b'"b"', b'"', b"\\", b"1", b"-", b".", b"e9", b"null", b"NaN", b" "]
)


@settings(max_examples=300)
@given(st.lists(fragments, max_size=14))
def test_almost_json_is_judged_alike(pieces: list[bytes]) -> None:
    agree(b"{" + b"".join(pieces) + b"}")


@given(st.integers(1, 130), st.sampled_from(["[", "{", "mixed"]))
def test_depth_is_bounded_exactly(levels: int, form: str) -> None:
    value: Any = 1
    for level in range(levels - 1):
        value = [value] if form == "[" or (form == "mixed" and level % 2) else {"a": value}
    body = json.dumps({"a": value}).encode()
    if levels <= DEPTH_MAX:
        assert decode(body) == {"a": value}
    else:
        with pytest.raises(BadRequestError, match="deeper than 64"):
            decode(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 40_000,
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"[" * 1_000_000,
        b'{"a":' * 1_000_000,
    ],
    ids=["arrays", "objects", "closed", "a million arrays", "a million objects"],
)
def test_a_million_levels_cost_nothing(body: bytes) -> None:
    with pytest.raises(BadRequestError, match=r"deeper than 64|too many values"):
        decode(body)


@given(objects, st.data())
def test_large_bodies_follow_the_same_rules(value: dict[str, Any], data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "LARGE_BYTES", 0)
        test_a_key_twice_is_found_wherever_it_stands.hypothesis.inner_test(value, data)  # type: ignore[attr-defined]
        agree(json.dumps(value, indent=data.draw(st.sampled_from([None, 1]))).encode())
        agree(json.dumps(value, ensure_ascii=False, separators=(" , ", ": ")).encode())


def many(unit: bytes, size: int) -> bytes:
    return b'{"a":[' + unit * (size // len(unit)) + b"1]}"


@pytest.mark.parametrize("unit", [b"[],", b"{},", b'{"a":1},', b"1,", b'"",'])
def test_millions_of_values_are_refused(unit: bytes) -> None:
    with pytest.raises(BadRequestError, match="too many values"):
        decode(many(unit, 8 << 20))


def test_text_with_millions_of_brackets_and_commas_is_just_text() -> None:
    text = '[1,2],{"a":"\\"}\n' * 400_000
    assert decode(json.dumps({"a": text, "b": [1]}).encode()) == {"a": text, "b": [1]}


@pytest.mark.parametrize("filling", [b'\\"', b"\\", b'"', b'"\\', b'{"', b'["\\"'])
def test_no_filling_of_a_large_body_makes_it_slow(filling: bytes) -> None:
    began = time.process_time()
    with pytest.raises(BadRequestError):
        decode(b'{"a":"' + filling * ((8 << 20) // len(filling)))
    with pytest.raises(BadRequestError):
        decode(many(b"[],", 1 << 20) + filling * ((7 << 20) // len(filling)))
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b" \r\n\t", "empty"),
        (b"[]", "not an array"),
        (b'"a"', "not a string"),
        (b"1.5", "not a number"),
        (b"null", "not null"),
        (b"true", "not true or false"),
        (b'{"a":NaN}', "NaN or Infinity"),
        (b'{"a":-Infinity}', "NaN or Infinity"),
        (b'{"a":1e999}', "out of range"),
        (b'{"a":18446744073709551616}', "beyond 64 bits"),
        (b'{"a":-9223372036854775809}', "beyond 64 bits"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"a":"\\ud800x"}', "surrogate"),
        (b'{"a":"\\udc00"}', "surrogate"),
        (b'{"\\udc00":1}', "surrogate"),
        (b'{"a":{"b":1,"b":1}}', "key 'b' twice"),
        (b'{"a":1, "\\u0061":1}', "key 'a' twice"),
        (b'{"a":"\xff"}', "UTF-8"),
        (b'{"\xc0\x80":1}', "UTF-8"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a":1', "ends too early"),
        (b'{"a":1} x', "not valid JSON"),
        (b'{"a":1,}', "not valid JSON"),
    ],
)
def test_the_fault_is_named(body: bytes, words: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        decode(body)
    assert words in caught.value.message
    assert caught.value.status == 400


def test_no_error_repeats_the_body() -> None:
    for body in (b'{"prompt":"canary', b'{"prompt":"canary\\x"}', b'{"prompt":"canary"} canary', b'"canary"'):
        with pytest.raises(BadRequestError) as caught:
            decode(body)
        assert not re.search("canary", caught.value.message + caught.value.hint)
