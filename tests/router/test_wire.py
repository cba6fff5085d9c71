"""Values that cross a process border: they come back as they were sent, and every unit is in a name."""

from __future__ import annotations

import inspect
import types
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import wire, wire_peers
from router.errors import failure
from router.states import JobState
from router.wire import Change, Ended, State, Wire
from tests.fakes import node_info

STRUCTS = [
    kind
    for module in (wire, wire_peers)
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, Wire) and kind is not Wire and kind.__module__ == module.__name__
]
UNITS = ("_s", "_at", "_bytes", "_pct", "_per_s", "_tokens")
PLAIN = {"status", "number", "place", "attempt", "tokens", "width", "in_flight", "waiting", "running", "models", "port",
         "context", "requests", "temperature", "max_tokens", "paused_until", "at"}  # fmt: skip


def kinds(annotation: Any) -> set[Any]:
    inner = typing.get_args(annotation)
    return {annotation, *(kind for one in inner for kind in kinds(one))} if inner else {annotation}


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda kind: kind.__name__)
def test_every_number_has_its_unit_in_its_name_or_needs_none(struct: type[Wire]) -> None:
    for name, annotation in typing.get_type_hints(struct).items():
        if kinds(annotation) & {int, float}:
            assert name.endswith(UNITS) or name in PLAIN, f"{struct.__name__}.{name} has no unit"


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda kind: kind.__name__)
def test_every_struct_is_immutable_and_says_what_it_is(struct: type[Wire]) -> None:
    assert struct.__struct_config__.frozen
    assert struct.__doc__


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Anything of a type that a struct names."""
    if annotation is Any:
        return st.booleans() | st.integers(-9, 9) | st.text(max_size=5)
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(values, inner))
    if origin is list:
        return st.lists(values(inner[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(st.text(max_size=3), values(inner[1]), max_size=2)
    if isinstance(annotation, type) and issubclass(annotation, Wire):
        hints = typing.get_type_hints(annotation)
        return st.builds(annotation, **{name: values(hint) for name, hint in hints.items()})
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: st.text(max_size=5),
        int: st.integers(-(2**53), 2**53),
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
        type(None): st.none(),
    }
    return simple[annotation] if annotation in simple else st.sampled_from(annotation)


@settings(max_examples=20, deadline=None)
@given(st.data())
@pytest.mark.parametrize("struct", STRUCTS, ids=lambda kind: kind.__name__)
def test_every_value_comes_back_as_it_was_sent(struct: type[Wire], data: st.DataObject) -> None:
    value = data.draw(values(struct))
    assert msgspec.json.decode(msgspec.json.encode(value), type=struct) == value


def test_a_page_of_a_newer_version_may_send_fields_that_are_not_known() -> None:
    raw = b'{"name": "m", "engine": "", "new_field": {"x": 1}}'
    assert msgspec.json.decode(raw, type=wire.ModelAction).name == "m"


def test_a_wrong_type_is_refused_with_its_place() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$\.name"):
        msgspec.json.decode(b'{"name": 7}', type=wire.ModelAction)


def test_states_and_modes_are_the_words_of_the_design() -> None:
    assert msgspec.json.encode(State(state=JobState.WORKING)).startswith(b'{"state":"working"')
    assert msgspec.json.decode(msgspec.json.encode(node_info()))["mode"] == "running"
    ended = Ended(state=JobState.FAILED, error=failure("poison", "Three times."))
    assert msgspec.json.decode(msgspec.json.encode(ended))["error"]["code"] == "poison"


def test_a_change_says_only_what_changed() -> None:
    told = msgspec.json.decode(msgspec.json.encode(Change(gone=["c1"])))
    assert {name for name, value in told.items() if value is not None} == {"gone"}
