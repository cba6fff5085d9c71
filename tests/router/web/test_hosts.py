"""Which Host and Origin values follow from the settings and the addresses in use."""

from __future__ import annotations

import logging

import pytest

from router.settings import Settings
from router.web.hosts import allowed, is_loopback, is_wildcard


def settings(**values: str) -> Settings:
    held = Settings(None, environ={})
    held.update(values)
    return held


def test_loopback_has_its_three_names_with_the_port() -> None:
    found = allowed(settings(), [("127.0.0.1", 7411), ("::1", 7411)])
    assert found.hosts == {"localhost:7411", "127.0.0.1:7411", "[::1]:7411"}
    assert not found.origins
    assert not found.wildcard


def test_port_80_may_be_left_out() -> None:
    assert "localhost" in allowed(settings(), [("127.0.0.1", 80)]).hosts


def test_an_address_of_the_network_is_itself_alone() -> None:
    found = allowed(settings(), [("127.0.0.1", 7411), ("192.168.1.5", 8000), ("fd00::1", 8000)])
    assert {"192.168.1.5:8000", "[fd00::1]:8000"} <= found.hosts
    assert "localhost:8000" not in found.hosts


def test_a_wildcard_is_no_name() -> None:
    found = allowed(settings(), [("0.0.0.0", 7411)])
    assert found.wildcard
    assert found.hosts == {"localhost:7411", "127.0.0.1:7411", "[::1]:7411"}


def test_entries_that_can_not_be_used_are_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    held = {  # settings refuse them when they are set; an older file may have them
        "hosts": "*, a b, http://x, good.example, [::2]",
        "origins": "*, null, localhost:3000, http://ok:1/",
        "require_key": False,
    }
    found = allowed(held, [("127.0.0.1", 1)])  # type: ignore[arg-type] # only looked up in
    assert found.hosts == {"localhost:1", "127.0.0.1:1", "[::1]:1", "good.example:1", "[::2]:1"}
    assert found.origins == {"http://ok:1"}
    assert "'hosts'" in caplog.text
    assert "'origins'" in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "::ffff:127.0.0.1", "::1%lo"])
def test_loopback_is_known_in_every_form(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.168.0.1", "::ffff:192.168.0.1", "example.org", "128.0.0.1"])
def test_nothing_else_is_loopback(host: str) -> None:
    assert not is_loopback(host)
    assert is_wildcard(host) == (host in ("", "0.0.0.0", "::"))
