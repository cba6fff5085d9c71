"""Settings: where a value comes from, what is refused by name, and that the file is whole whatever happens."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import BadRequestError, StartError, StoreError
from router.settings import BY_NAME, SETTINGS, Setting, Settings


def file(tmp_path: Path, **values: Any) -> Path:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(values))
    return path


# -- the table


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_has_a_title_a_sentence_and_a_default_that_it_would_accept(setting: Setting) -> None:
    assert setting.title
    assert setting.sentence.endswith(".")
    assert setting.parse(setting.default) == setting.default
    assert type(setting.parse(setting.default)) is type(setting.default)
    assert setting.environment == f"QUORUM_{setting.name.upper()}"


def test_every_setting_that_others_rely_on_is_there() -> None:
    names = ("name share port peer_port engines builtin_engine models_dir route keep_alive concurrency max_attempts"
             " job_ttl also_listen")  # fmt: skip
    assert set(names.split()) <= set(BY_NAME)
    assert len(BY_NAME) == len(SETTINGS)


# -- where a value comes from


def test_the_command_line_goes_before_the_environment_before_the_file_before_the_default(tmp_path: Path) -> None:
    path = file(tmp_path, port=1000, peer_port=1001, concurrency=5)
    settings = Settings(path, {"QUORUM_PORT": "2000", "QUORUM_PEER_PORT": "2001"}, {"port": 3000})
    assert [settings[name] for name in ("port", "peer_port", "concurrency", "max_attempts")] == [3000, 2001, 5, 3]
    sources = {info.name: info.source for info in settings.infos()}
    assert [sources[name] for name in ("port", "peer_port", "concurrency", "max_attempts")] == [
        "environment",
        "environment",
        "file",
        "default",
    ]


def test_without_a_file_there_are_defaults_and_it_need_not_exist(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "settings.json", {})
    assert dict(settings) == {setting.name: setting.default for setting in SETTINGS}
    assert not (tmp_path / "settings.json").exists()
    assert dict(Settings(None, {})) == dict(settings)


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("0", False), ("true", True), ("NO", False), (" on ", True), ("off", False)]
)
def test_the_environment_says_on_and_off_in_many_words(text: str, value: bool) -> None:
    assert Settings(None, {"QUORUM_SHARE": text})["share"] is value


def test_numbers_keep_their_type() -> None:
    settings = Settings(None, {"QUORUM_PORT": " 8000 ", "QUORUM_KEEP_ALIVE": "60"})
    assert (settings["port"], type(settings["port"])) == (8000, int)
    assert (settings["keep_alive"], type(settings["keep_alive"])) == (60.0, float)


@pytest.mark.parametrize(
    ("environ", "overrides"), [({"QUORUM_PORT": "http"}, {}), ({"QUORUM_PORT": "70000"}, {}), ({}, {"port": 70_000})]
)
def test_a_wrong_environment_or_command_line_keeps_the_node_from_starting(
    environ: dict[str, str], overrides: dict[str, Any]
) -> None:
    with pytest.raises(StartError, match="port") as raised:
        Settings(None, environ, overrides)
    assert raised.value.hint


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b'{"port": "http"}',
        b'{"port": null}',
        b'{"name": 7}',
        b'{"port":' + b"[" * 9999,
    ],
)
def test_a_broken_file_keeps_the_node_from_starting_and_is_left_as_it_is(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(raw)
    with pytest.raises(StartError, match="can't be used") as raised:
        Settings(path, {})
    assert "move it away" in raised.value.hint
    assert path.read_bytes() == raw


def test_a_name_of_another_version_is_skipped(tmp_path: Path) -> None:
    settings = Settings(file(tmp_path, port=9000, of_the_future=[1]), {})
    assert settings["port"] == 9000
    assert "of_the_future" not in settings


# -- what is refused


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "http"),
        ("port", 1.5),
        ("port", -1),
        ("port", 65_536),
        ("port", True),
        ("port", None),
        ("port", [1]),
        ("port", "nan"),
        ("port", 10**400),
        ("keep_alive", float("inf")),
        ("keep_alive", "1e400"),
        ("share", "maybe"),
        ("share", None),
        ("share", 2),
        ("route", "fastest-first"),
        ("name", 7),
        ("name", "a\nb"),
        ("name", "x" * 1025),
        ("no_such_setting", 1),
        ("also_listen", "rubbish"),
        ("also_listen", "127.0.0.1:11434, localhost:0"),
        ("engines", "http://127.0.0.1:8000/v1, not an address"),
        ("engines", "ftp://127.0.0.1:8000"),
        ("hosts", "http://host.docker.internal"),
        ("origins", "localhost"),
        ("models_dir", "/no/such/folder"),
    ],
)
def test_a_wrong_value_is_refused_by_name_and_nothing_changes(tmp_path: Path, name: str, value: object) -> None:
    path = file(tmp_path, concurrency=5)
    settings = Settings(path, {})
    before = dict(settings), path.read_bytes()
    told: list[frozenset[str]] = []
    settings.listen(told.append)
    with pytest.raises(BadRequestError) as raised:
        settings.update({"max_attempts": 7, name: value})
    assert (raised.value.field, (dict(settings), path.read_bytes()), told) == (name, before, [])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("also_listen", "127.0.0.1:11434, [::1]:11434,"),
        ("engines", "127.0.0.1:8000, sk-1@https://example.org:443/v1, http://[::1]:8080, http://box/v1"),
        ("hosts", "host.docker.internal, box:8080, [fd00::1]"),
        ("origins", "http://localhost:3000/, chrome-extension://abc"),
        ("models_dir", "~"),
        ("models_dir", ""),
    ],
)
def test_lists_of_addresses_and_folders_are_taken_as_people_write_them(name: str, value: str) -> None:
    settings = Settings(None, {})
    settings.update({name: value})
    assert settings[name] == value


def test_the_entry_at_fault_is_named_with_one_that_would_do_but_never_shown_with_its_key() -> None:
    settings = Settings(None, {})
    with pytest.raises(BadRequestError, match=r"'rubbish'.*127\.0\.0\.1:11434"):
        settings.update({"also_listen": "rubbish"})
    with pytest.raises(BadRequestError) as raised:
        settings.update({"engines": "sk-secret@nowhere at all"})
    assert "sk-secret" not in raised.value.message


def test_what_an_earlier_version_saved_is_read_even_where_it_would_now_be_refused(tmp_path: Path) -> None:
    assert Settings(file(tmp_path, engines="not an address"), {})["engines"] == "not an address"


def test_what_the_environment_fixes_cannot_be_changed_here() -> None:
    settings = Settings(None, {"QUORUM_PORT": "8000"})
    with pytest.raises(BadRequestError, match="fixed by the environment") as raised:
        settings.update({"port": 9000})
    assert (raised.value.field, settings["port"]) == ("port", 8000)


# -- saving


def test_a_change_is_saved_told_and_there_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    settings = Settings(path, {})
    told: list[frozenset[str]] = []
    settings.listen(told.append)
    settings.update({"port": "9000", "share": True, "route": "peers-first"})
    assert told == [frozenset({"port", "share"})]
    assert dict(Settings(path, {})) == dict(settings)
    settings.update({"port": 9000})
    assert len(told) == 1
    assert list(tmp_path.iterdir()) == [path]
    if os.name == "posix":
        assert path.stat().st_mode & 0o077 == 0


def test_a_file_that_cannot_be_written_is_told_and_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file(tmp_path, port=8000)
    settings = Settings(path, {})
    told: list[frozenset[str]] = []
    settings.listen(told.append)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        settings.update({"port": 9000})
    monkeypatch.undo()
    assert (settings["port"], told, list(tmp_path.iterdir())) == (8000, [], [path])
    assert json.loads(path.read_text()) == {"port": 8000}
    settings.update({"port": 9000})
    assert json.loads(path.read_text()) == {"port": 9000}


def test_the_page_gets_all_it_needs_to_show_a_setting() -> None:
    infos = {info.name: info for info in Settings(None, {}).infos()}
    assert [info.name for info in Settings(None, {}).infos()] == [setting.name for setting in SETTINGS]
    assert (infos["route"].type, infos["route"].choices) == ("choice", ["peers-first", "local-first", "fastest"])
    assert [infos[name].type for name in ("share", "port", "keep_alive", "name")] == [
        "switch",
        "integer",
        "number",
        "text",
    ]
    assert (infos["port"].restart, infos["port"].environment, infos["keep_alive"].unit) == (True, "QUORUM_PORT", "s")


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.lists(st.integers())


@given(st.sampled_from(SETTINGS), ANYTHING)
def test_any_value_is_either_refused_or_of_the_right_type_and_stays_itself(setting: Setting, raw: object) -> None:
    try:
        value = setting.parse(raw)
    except BadRequestError:
        return
    assert type(value) is type(setting.default)
    assert setting.parse(value) == value
    assert setting.parse(str(value)) == value
