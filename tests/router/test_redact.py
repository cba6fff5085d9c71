"""A report tells neither who nor where its user is, nor anything that opens something; times and numbers stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.redact import Redactor, here

clean = Redactor(
    {"anna": "[user]", "studio-pc": "[peer abcd1234]", "a": "[never]"},
    [(Path("/home/anna"), "~"), (Path("/home/anna/.local/share/quorum"), "[data]")],
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/anna/.local/share/quorum/quorum.db", "[data]/quorum.db"),
        ("/home/anna/x", "~/x"),
        ("Anna's Studio-PC is away", "[user]'s [peer abcd1234] is away"),
        ("annabel and palace stay", "annabel and palace stay"),
        ("an engine at http://key@server.lan:8000/v1", "an engine at http://[address]:8000/v1"),
        ("peer 192.168.1.20:7412, 10.0.0.3", "peer [address]:7412, [address]"),
        ("fe80::1%eth0 and 2001:db8:0:0:1:2:3:4", "[address] and [address]"),
        ("02:42:ac:11:00:02", "[address]"),
        (
            "2026-11-25 02:10:37 INFO router.node: version 1.2.3.",
            "2026-11-25 02:10:37 INFO router.node: version 1.2.3.",
        ),
        ("http://127.0.0.1:7411", "http://[address]:7411"),
        ("at 127.0.0.1 port 7411", "at 127.0.0.1 port 7411"),
        ("key qk_abcdefgh12345678 and sk-abcdefgh12345678", "key [secret] and [secret]"),
        ("Authorization: Bearer abc", "Authorization: Bearer [secret]"),
        ("/#token=ab12", "/#token= [secret]"),
        ("id " + "a2" * 26, "id [id]"),
        ("write to anna@example.org", "write to [mail]"),
        ("plain words: 12 of 40 at 3.5 s", "plain words: 12 of 40 at 3.5 s"),
    ],
)
def test_what_is_taken_out(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_json_values_are_cleaned_all_through() -> None:
    value = {"studio-pc": ["anna", {"at": "10.0.0.3"}], "n": 3, "none": None, "yes": True}

    assert clean.all(value) == {
        "[peer abcd1234]": ["[user]", {"at": "[address]"}],
        "n": 3,
        "none": None,
        "yes": True,
    }


def test_this_computer_its_user_and_folders_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/annalena")
    monkeypatch.setenv("LOGNAME", "lena77")
    monkeypatch.setattr("socket.gethostname", lambda: "lenas-laptop.home.example")
    one = here(tmp_path, {"desk": "[peer 1]"})

    assert one(f"{tmp_path}/x /home/annalena/y lena77 at lenas-laptop, desk") == (
        "[data]/x ~/y [user] at [computer], [peer 1]"
    )
