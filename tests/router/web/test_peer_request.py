"""Each field of what a paired computer asks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.errors import BadRequestError
from router.web.peer_request import read
from tests.router.web.peer_kit import ASK, LAPTOP, asked


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kind": "image"}, "kind"),
        ({"kind": None}, "kind"),
        ({"body": []}, "body"),
        ({"body": None}, "body"),
        ({"stream": "yes"}, "stream"),
        ({"stream": False}, "stream"),
        ({"digest": "xyz"}, "digest"),
        ({"digest": "A" * 64}, "digest"),
        ({"digest": 1}, "digest"),
        ({"origin_job": ""}, "origin_job"),
        ({"origin_job": "../x"}, "origin_job"),
        ({"origin_job": "x" * 65}, "origin_job"),
        ({"try": -1}, "try"),
        ({"try": True}, "try"),
        ({"try": "1"}, "try"),
        ({"try": 2**40}, "try"),
        ({"model": "a\r\nb"}, "model"),
        ({"model": ""}, "model"),
        ({"deadline_s": -1}, "deadline_s"),
        ({"deadline_s": True}, "deadline_s"),
        ({"deadline_s": "soon"}, "deadline_s"),
        ({"keep_alive_s": "5m"}, "keep_alive_s"),
    ],
)
def test_what_a_peer_asks_is_checked_field_by_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        read(LAPTOP, json.dumps(asked(**change)).encode())
    assert refused.value.field == field


def test_unknown_fields_are_ignored() -> None:
    found = read(LAPTOP, json.dumps(asked(later="x")).encode())
    assert found.key == (LAPTOP, "J1", 1)
    assert json.loads(found.body) == ASK
