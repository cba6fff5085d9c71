"""Pages of a list, by limit and the id where the page before ended."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from router.errors import BadRequestError
from router.web.paging import listed, number, page

ITEMS = [{"id": letter} for letter in "abcde"]


def ids(query: str) -> tuple[str, bool]:
    made = page(ITEMS, make_mocked_request("GET", f"/?{query}"), 20, 100)
    return "".join(item["id"] for item in made["data"]), made["has_more"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ("abcde", False)),
        ("limit=2", ("ab", True)),
        ("limit=2&after=b", ("cd", True)),
        ("limit=2&after=d", ("e", False)),
        ("after=e", ("", False)),
    ],
)
def test_a_page_goes_on_where_the_one_before_ended(query: str, expected: tuple[str, bool]) -> None:
    assert ids(query) == expected


@pytest.mark.parametrize(
    ("query", "field"), [("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("limit=-", "limit"),
                         ("limit=²", "limit"), ("after=z", "after")]
)  # fmt: skip
def test_what_is_no_page_is_refused(query: str, field: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        ids(query)

    assert refused.value.field == field


def test_numbers_have_bounds_and_a_usual_value() -> None:
    request = make_mocked_request("GET", "/?n=-1")

    assert number(request, "n", -1, 5, 0) == -1
    assert number(request, "m", -1, 5, 3) == 3


@pytest.mark.parametrize(("shown", "ends"), [([], (None, None)), (ITEMS[:2], ("a", "b"))])
def test_a_list_names_its_ends(shown: list[dict[str, Any]], ends: tuple[str | None, str | None]) -> None:
    made = listed(shown, more=False)

    assert (made["first_id"], made["last_id"]) == ends
