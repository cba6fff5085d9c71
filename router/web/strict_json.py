"""Strict JSON: what two parsers could read differently is refused. Fast where the body is as most clients write it."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, Final

import msgspec

from router.errors import BadRequestError

DEPTH_MAX: Final = 64
LARGE_BYTES: Final = 256 * 1024
CONTAINERS_MAX: Final = 200_000
VALUES_MAX: Final = 1_000_000
QUOTES_MAX: Final = 2_000_000
_INT_LOW: Final = -(2**63)
_INT_HIGH: Final = 2**64 - 1

_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)  # the last quote may lack: linear on any bytes
_decoder: Final = msgspec.json.Decoder[Any]()
_encoder: Final = msgspec.json.Encoder()


class _Duplicate(ValueError):
    pass


def decode(body: bytes) -> dict[str, Any]:
    """``body`` as an object. Raises BadRequestError naming the fault.

    Refused: empty, not UTF-8, not JSON, not an object, nested deeper than 64, a key twice in one object, NaN and
    Infinity (also as 1e999), integers beyond 64 bits, lone surrogates. In a large body, too: more than 200,000 objects
    and arrays or 1,000,000 values, which would hold up the loop for seconds.
    """
    if len(body) > LARGE_BYTES:
        _check_count(body)
    try:
        value = _decoder.decode(body)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # msgspec's errors and UnicodeDecodeError are ValueErrors
        raise _named(body, error) from None
    if type(value) is not dict:
        raise BadRequestError(f"The body must be a JSON object, not {_kind(value)}.")
    _check_values(value)
    encoded = _encoder.encode(value)
    if not _same(body, encoded):
        if len(body) > LARGE_BYTES:
            _check_strings(body, encoded)
        else:
            _check_keys(body)
    return value


def _check_count(body: bytes) -> None:
    """Count by bytes first, which text can only make too high; exactly, outside strings, where that is too much."""
    if body.count(b'"') > QUOTES_MAX:
        raise BadRequestError("The body has too many values.")
    if body.count(b"{") + body.count(b"[") > CONTAINERS_MAX or body.count(b",") > VALUES_MAX:
        bare = _STRING.sub(b"", body)
        if bare.count(b"{") + bare.count(b"[") > CONTAINERS_MAX or bare.count(b",") > VALUES_MAX:
            raise BadRequestError("The body has too many values.")


def _check_values(value: dict[str, Any]) -> None:
    """Depth and integers, level by level: no recursion, a few microseconds for an ordinary chat."""
    level: list[Any] = [value]
    depth = 0
    while level:
        depth += 1
        if depth > DEPTH_MAX:
            raise _too_deep()
        below: list[Any] = []
        for container in level:
            for item in container.values() if type(container) is dict else container:
                kind = type(item)
                if kind is dict or kind is list:
                    below.append(item)
                elif kind is int and not _INT_LOW <= item <= _INT_HIGH:
                    raise BadRequestError("The body has an integer beyond 64 bits.")
        level = below


def _same(body: bytes, encoded: bytes) -> bool:
    """Whether ``body`` is what an encoder makes of its value, and so can't have lost a key.

    Two ways of writing cover most clients: without blanks (JavaScript, httpx), and Python's ``json.dumps``.
    """
    if len(encoded) == len(body):
        return encoded == body
    return len(encoded) < len(body) and msgspec.json.format(encoded, indent=0) == body


def _check_strings(body: bytes, encoded: bytes) -> None:
    """A key that was lost took one string with it: compare their number. For large bodies; it can't name the key."""
    if _quotes(body) != _quotes(encoded):
        raise BadRequestError("The body has a key twice in one object.")


def _quotes(text: bytes) -> int:
    """Quotes that begin or end a string: pairs of backslashes go first, then escaped quotes."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b" ").replace(b'\\"', b" ")
    return text.count(b'"')


def _check_keys(body: bytes) -> None:
    """The slow way, through every object's pairs."""
    try:
        json.loads(body, object_pairs_hook=_unique)
    except _Duplicate as error:
        raise BadRequestError(f"The body has the key '{error}' twice in one object.") from None
    except (ValueError, RecursionError):
        raise BadRequestError("The body is not valid JSON.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counted = Counter(key for key, _ in pairs)
        twice = counted.most_common(1)[0][0]
        raise _Duplicate(twice[:40] if twice.isprintable() else "?")
    return found


def _named(body: bytes, error: ValueError) -> BadRequestError:
    """The fault in a sentence; never a part of the body."""
    if isinstance(error, UnicodeDecodeError):
        return BadRequestError("The body is not valid UTF-8.")
    if not body.strip(b" \t\r\n"):
        return BadRequestError("The body is empty; a JSON object is expected.")
    reason = str(error)
    if "out of range" in reason:
        return BadRequestError("The body has a number out of range.")
    if "surrogate" in reason:
        return BadRequestError("The body has half of a surrogate pair in a string.")
    if "truncated" in reason:
        if _ends_in_surrogate(body):
            return BadRequestError("The body has half of a surrogate pair in a string.")
        return BadRequestError("The body is not valid JSON: it ends too early.")
    if body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return BadRequestError("The body starts with a byte order mark; send plain UTF-8.")
    if "invalid character" in reason and _names_no_number(body, reason):
        return BadRequestError("The body has NaN or Infinity, which JSON does not know.")
    place = reason[reason.rfind("(byte ") :] if "(byte " in reason else ""
    return BadRequestError(f"The body is not valid JSON {place}.".replace(" .", "."))


def _ends_in_surrogate(body: bytes) -> bool:
    """msgspec says 'truncated' when a high surrogate's string ends the body too soon for a pair."""
    tail = body[-24:].lower()
    at = tail.rfind(b"\\ud")
    return at >= 0 and tail[at + 3 : at + 4] in (b"8", b"9", b"a", b"b") and b'"' in tail[at:]


def _names_no_number(body: bytes, reason: str) -> bool:
    digits = reason[reason.rfind("(byte ") + 6 :].rstrip(")")
    at = int(digits) if digits.isdigit() else 0
    return body[at : at + 3] in (b"NaN", b"Inf") or body[at - 1 : at + 3] == b"-Inf"


def _too_deep() -> BadRequestError:
    return BadRequestError(f"The body is nested deeper than {DEPTH_MAX}.")


def _kind(value: object) -> str:
    kinds = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
