"""The tables themselves: no field of an engine's own is in them, and each refuses what is of another type."""

from __future__ import annotations

from typing import Any

import pytest

from router.engines.base import Kind
from router.errors import BadRequestError
from router.web.fields import TABLES
from router.web.prompt import Prompt

INTERNAL = {"n_discard", "n_keep", "id_slot", "cache_prompt", "grammar", "lora", "samplers", "n_predict", "json_schema"}
PLAIN = [(kind, name) for kind, table in TABLES.items() for name in table if name != "model"]


@pytest.mark.parametrize("kind", list(Kind))
def test_no_table_has_a_field_of_an_engines_own(kind: Kind) -> None:
    assert not INTERNAL & TABLES[kind].keys()
    assert "model" in TABLES[kind]


class Foreign:
    """A value no JSON body can have."""


@pytest.mark.parametrize(("kind", "name"), PLAIN)
@pytest.mark.parametrize("value", [Foreign(), float("nan"), {"a": Foreign()}, [Foreign()]])
def test_every_field_has_a_test_that_refuses(kind: Kind, name: str, value: Any) -> None:
    if (name, type(value)) == ("stream_options", dict):
        return  # an object, whatever else is in it
    with pytest.raises(BadRequestError) as caught:
        TABLES[kind][name](name, value, Prompt())
    assert (caught.value.field or "").startswith(name)
