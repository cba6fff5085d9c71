"""What a peer tells of itself is taken only within bounds."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.states import NodeMode
from router.wire import PeerModel, PeerSnapshot
from router.wire_snapshot import MODELS_MAX, SNAPSHOT_MAX_BYTES, read_snapshot

NODE = "a" * 52
DIGEST = "0" * 64


def told(**changes: Any) -> bytes:
    return msgspec.json.encode({"node_id": NODE} | changes)


def test_a_snapshot_comes_back_as_it_was_sent() -> None:
    sent = PeerSnapshot(
        node_id=NODE,
        name="studio",
        version="0.1.0",
        mode=NodeMode.DRAINING,
        width=3,
        in_flight=2,
        waiting=5,
        ram_total_bytes=8,
        vram_free_bytes=9,
        gpu="none",
        models=[PeerModel(name="m", digest=DIGEST, capabilities=["chat", "tools"], resident=True, tokens_per_s=7.5)],
        labels=["office"],
    )
    assert read_snapshot(msgspec.json.encode(sent), NODE) == sent


def test_a_newer_peer_may_tell_more_and_an_older_one_less() -> None:
    assert read_snapshot(told(holograms=[1, 2]), NODE) == PeerSnapshot(node_id=NODE)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"a":' * 100_000,
        b"{}",
        told(width="wide"),
        told(mode="asleep"),
        told(models=[{"name": str(number)} for number in range(MODELS_MAX + 1)]),
        told(name="n" * SNAPSHOT_MAX_BYTES),
        msgspec.json.encode({"node_id": "b" * 52}),
    ],
    ids=["nothing", "list", "cut", "bytes", "deep", "nobody", "type", "mode", "many", "huge", "other"],
)
def test_what_cannot_be_a_snapshot_of_this_peer_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^its? "):
        read_snapshot(data, NODE)


def test_odd_models_are_left_out_and_odd_digests_are_none() -> None:
    models = [
        {"name": "good", "digest": DIGEST},
        {"name": "../../etc/passwd"},
        {"name": "a\r\nb"},
        {"name": "odd", "digest": "../x", "capabilities": ["chat", "root"], "size_bytes": -1},
        {"name": "good", "digest": DIGEST, "resident": True},
    ]
    good, odd = read_snapshot(told(models=models), NODE).models
    assert (good.name, good.digest, good.resident) == ("good", DIGEST, True)
    assert (odd.name, odd.digest, odd.capabilities, odd.size_bytes) == ("odd", None, ["chat"], None)


@given(
    width=st.integers(),
    in_flight=st.integers(),
    name=st.text(max_size=200),
    rate=st.floats(allow_nan=False, allow_infinity=False),
)
def test_numbers_and_texts_stay_in_bounds(width: int, in_flight: int, name: str, rate: float) -> None:
    data = told(width=width, in_flight=in_flight, name=name, models=[{"name": "m", "tokens_per_s": rate}])
    try:
        snapshot = read_snapshot(data, NODE)
    except ValueError:
        return  # a number beyond 64 bits
    assert 1 <= snapshot.width <= 4096
    assert snapshot.in_flight >= 0
    assert len(snapshot.name) <= 63
    assert "\n" not in snapshot.name
    speed = snapshot.models[0].tokens_per_s
    assert speed is None or speed >= 0
