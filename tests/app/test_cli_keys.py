"""``quorum keys`` against a real node that requires a key: made, used, listed, revoked."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from router.library import STARTER_NAME
from router.web.network import lan_addresses
from tests.app.serving import ROOT, Serving, environment, serving


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("node") / "data"
    with serving(folder, QUORUM_BUILTIN_ENGINE="0", QUORUM_REQUIRE_KEY="1") as one:
        yield one


def status_of(node: Serving, key: str = "", path: str = "/v1/models") -> int:
    parts = urlsplit(node.address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
    status = connection.getresponse().status
    connection.close()
    return status


def test_the_key_alone_goes_to_stdout_and_opens_the_api(node: Serving) -> None:
    done = node.quorum("keys", "add", "Anna's laptop")

    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"qk_[A-Za-z0-9_-]{43}\n", done.stdout)
    assert "shown this once" in done.stderr
    assert status_of(node) == 401
    assert status_of(node, done.stdout.strip()) == 200


def test_the_list_shows_who_has_keys_and_never_the_keys(node: Serving) -> None:
    made = node.json("keys", "add", "Open WebUI")
    shown = node.quorum("keys", "list")
    listed = node.json("keys", "list")

    assert made["key"] not in shown.stdout + json.dumps(listed)
    line = next(line for line in shown.stdout.splitlines() if line.startswith("Open WebUI"))
    assert made["info"]["id"] in line
    assert f"...{made['key'][-4:]}" in line
    assert "never" in line
    assert made["info"] in listed
    status_of(node, made["key"])
    assert "never" not in next(x for x in node.quorum("keys", "list").stdout.splitlines() if x.startswith("Open WebUI"))


@pytest.mark.parametrize("part", ["id", "name"])
def test_a_key_is_revoked_by_its_name_or_id(node: Serving, part: str) -> None:
    made = node.json("keys", "add", f"by {part}")
    done = node.quorum("keys", "revoke", made["info"][part])

    assert done.returncode == 0, done.stderr
    assert f"by {part}" in done.stdout
    assert status_of(node, made["key"]) == 401
    assert made["info"]["id"] not in [key["id"] for key in node.json("keys", "list")]
    again = node.quorum("keys", "revoke", made["info"][part])
    assert (again.returncode, "no key" in again.stderr) == (1, True)


def test_revoking_tells_in_json_what_was_revoked(node: Serving) -> None:
    made = node.json("keys", "add", "short-lived")

    assert node.json("keys", "revoke", "short-lived") == made["info"]


@pytest.mark.parametrize("name", ["", "x" * 65, "two\nlines"])
def test_a_name_that_is_none_is_refused(node: Serving, name: str) -> None:
    done = node.quorum("keys", "add", name)

    assert done.returncode == 1
    assert "64 printable characters" in done.stderr
    assert done.stdout == ""


def test_a_name_is_taken_once(node: Serving) -> None:
    assert node.quorum("keys", "add", "Ben").returncode == 0
    done = node.quorum("keys", "add", "Ben")

    assert done.returncode == 1
    assert "There is a key named 'Ben'" in done.stderr


@pytest.mark.parametrize("words", [("keys",), ("keys", "add"), ("keys", "revoke"), ("keys", "make", "x")])
def test_wrong_usage_is_exit_code_2(node: Serving, words: tuple[str, ...]) -> None:
    assert node.quorum(*words).returncode == 2


def test_without_a_node_it_is_exit_code_3(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app", "keys", "list", "--data-dir", str(tmp_path)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3


def test_the_other_commands_need_no_key(node: Serving) -> None:
    for words in (("status",), ("models",), ("jobs",), ("pause",), ("resume",)):
        assert node.quorum(*words, "--json").returncode == 0
    asked = node.quorum("run", "no-such-model", "hello")
    assert "No computer holds the model" in asked.stderr


def test_status_says_where_other_computers_reach_this_one(tmp_path: Path) -> None:
    found = [address for address in lan_addresses() if ":" not in address]
    if not found:
        pytest.skip("this computer has no address in a network")
    with serving(tmp_path / "data", QUORUM_BUILTIN_ENGINE="0", QUORUM_LISTEN_LAN="1") as one:
        address = f"http://{found[0]}:{urlsplit(one.address).port}"
        assert address in one.quorum("status").stdout
        assert address in one.json("status")["node"]["network"]


def test_the_list_of_none_says_how_to_make_one(tmp_path: Path) -> None:
    with serving(tmp_path / "data", QUORUM_BUILTIN_ENGINE="0") as one:
        done = one.quorum("keys", "list")
        assert (done.returncode, done.stdout) == (0, "There are no keys. Make one: quorum keys add NAME\n")
        assert one.json("keys", "list") == []


def test_a_key_is_in_no_log(node: Serving) -> None:
    key = node.json("keys", "add", "logged?")["key"]
    status_of(node, key)
    for file in node.data_dir.rglob("*"):
        if file.is_file():
            assert key.encode() not in file.read_bytes()


@pytest.mark.engine
def test_run_answers_where_a_key_is_required(tmp_path: Path, starter_model: Path) -> None:
    environ = {"QUORUM_REQUIRE_KEY": "1", "QUORUM_STARTER_MODEL": str(starter_model)}
    with serving(tmp_path / "data", **environ) as one:
        ready = one.quorum("run", STARTER_NAME, "Say", "hello.", "--max-tokens", "8", "--temperature", "0")
        assert ready.returncode == 0, ready.stderr
        assert re.search(r"\w", ready.stdout)
