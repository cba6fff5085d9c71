"""The commands against a real node: what they print, their JSON, and how a node starts and ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.client import Client
from tests.app.serving import ROOT, Serving, environment, serving


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One node without models for the tests that leave it as it was."""
    with serving(tmp_path_factory.mktemp("node") / "data", "--name", "Studio Mac", QUORUM_BUILTIN_ENGINE="0") as node:
        yield node


@pytest.fixture
def node(shared: Serving) -> Iterator[Serving]:
    yield shared
    shared.quorum("resume")


# serve


def test_serve_prints_its_address_and_the_page_with_its_token(node: Serving) -> None:
    token = (node.data_dir / "control.token").read_text()

    assert node.lines == [f"Quorum answers at {node.address}/v1\n", f"Page: {node.address}/#token={token}\n"]
    with Client.find(node.data_dir).open("GET", "/healthz") as answer:
        assert answer.status == 200


@pytest.mark.skipif(os.name != "posix", reason="file modes are of POSIX systems")
def test_what_serve_writes_is_for_its_owner_only(node: Serving) -> None:
    assert stat.S_IMODE(node.data_dir.stat().st_mode) == 0o700
    for name in ("node.json", "control.token"):
        assert stat.S_IMODE((node.data_dir / name).stat().st_mode) == 0o600


def test_the_token_is_no_argument_of_any_process(node: Serving) -> None:
    token = (node.data_dir / "control.token").read_text().strip()

    assert token not in Path(f"/proc/{node.process.pid}/cmdline").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_serve_in_order(number: signal.Signals, tmp_path: Path) -> None:
    with serving(tmp_path / "data", QUORUM_BUILTIN_ENGINE="0") as one:
        assert one.stop(number) == 0

        assert one.quorum("status").returncode == 3
        assert "Traceback" not in (tmp_path / "serve.stderr").read_text()


def test_a_killed_node_is_not_running_and_another_can_start_on_its_folder(tmp_path: Path) -> None:
    with serving(tmp_path / "data", QUORUM_BUILTIN_ENGINE="0") as one:
        one.stop(signal.SIGKILL)

        assert one.quorum("status").returncode == 3
    with serving(tmp_path / "data", QUORUM_BUILTIN_ENGINE="0") as again:
        assert again.quorum("status").returncode == 0


def test_quit_ends_the_node_in_order_and_returns_when_it_has_ended(tmp_path: Path) -> None:
    with serving(tmp_path / "data", QUORUM_BUILTIN_ENGINE="0") as one:
        done = one.quorum("quit")

        assert (done.returncode, done.stderr) == (0, "")
        assert "Quorum has ended" in done.stdout
        assert one.process.wait(timeout=10) == 0
        assert one.quorum("quit").returncode == 3


def serve_once(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", "serve", "--no-discovery", *arguments],
        cwd=ROOT,
        env=environment(**environ),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_second_serve_on_the_same_folder_says_where_the_first_one_is(node: Serving) -> None:
    done = serve_once("--port", "0", "--data-dir", str(node.data_dir))

    assert done.returncode == 1
    assert "already runs" in done.stderr
    assert node.address in done.stderr
    assert node.quorum("status").returncode == 0


def test_a_busy_port_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve_once("--port", str(port), "--peer-port", "0", "--data-dir", str(tmp_path / "data"))

    assert done.returncode == 1
    assert str(port) in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_data_folder_that_is_a_file_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")

    done = serve_once("--port", "0", "--data-dir", str(tmp_path / "data"))

    assert done.returncode == 1
    assert "--data-dir" in done.stderr
    assert (tmp_path / "data").read_text() == "mine"


def test_a_wrong_setting_in_the_environment_is_named(tmp_path: Path) -> None:
    done = serve_once("--data-dir", str(tmp_path / "data"), QUORUM_CONTEXT="many", QUORUM_PORT="0")

    assert done.returncode == 1
    assert "context" in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_imports_nothing_of_the_window() -> None:
    program = (
        "import sys, router.node, app.commands.serve\n"
        "print({m.split('.')[0] for m in sys.modules} & {'webview', 'PySide6', 'qtpy', 'pystray', 'PIL', 'xllamacpp'})"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stdout == "set()\n", done.stderr


# status, models, jobs


def test_status_says_name_mode_address_and_work(node: Serving) -> None:
    done = node.quorum("status")

    assert done.returncode == 0
    assert done.stdout.startswith(f"Studio Mac is running at {node.address}\n")
    assert "work    0 running, 0 waiting" in done.stdout
    token = (node.data_dir / "control.token").read_text()
    assert f"\n  page    {node.address}/#token={token}\n" in done.stdout
    assert str(node.data_dir) in done.stdout


def test_status_as_json_is_the_nodes_snapshot(node: Serving) -> None:
    status = node.json("status")

    assert status["node"]["mode"] == "running"
    assert status["node"]["address"] == node.address
    assert set(status) == {"node", "disk", "engines", "models", "jobs"}
    assert (node.data_dir / "control.token").read_text() not in json.dumps(status)


def test_models_and_jobs_say_when_there_are_none(node: Serving) -> None:
    assert "no model yet" in node.quorum("models").stdout
    assert node.json("models") == []
    assert node.json("jobs") == []
    assert node.quorum("jobs").stdout == "No jobs.\n"


def test_a_job_that_is_not_there_can_not_be_cancelled(node: Serving) -> None:
    done = node.quorum("jobs", "--cancel", "../settings")

    assert done.returncode == 1
    assert done.stderr


def test_run_with_an_unknown_model_says_how_to_see_the_names(node: Serving) -> None:
    done = node.quorum("run", "no-such-model", "hello")

    assert done.returncode == 1
    assert "no-such-model" in done.stderr
    assert "quorum models" in done.stderr


# pause, drain, resume


def test_pause_resume_and_drain_change_the_mode(node: Serving) -> None:
    assert node.json("pause")["mode"] == "paused"
    assert "is paused" in node.quorum("status").stdout
    assert node.json("resume")["mode"] == "running"
    assert node.json("drain")["mode"] in ("draining", "drained")
    assert node.json("resume")["mode"] == "running"


def test_pause_for_a_time_says_how_long(node: Serving) -> None:
    done = node.quorum("pause", "--for", "1h")

    assert done.returncode == 0
    assert done.stdout.endswith("takes no new work for 1 h.\n")


def test_drain_waits_until_nothing_runs(node: Serving) -> None:
    done = node.quorum("drain", "--wait")

    assert done.returncode == 0
    assert "safe to quit" in done.stdout
    assert json.loads(node.quorum("status", "--json").stdout)["node"]["mode"] == "drained"


def test_output_may_be_cut_off_by_its_reader(node: Serving) -> None:
    command = subprocess.Popen(
        [sys.executable, "-m", "app", "status", "--json", "--data-dir", str(node.data_dir)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.close()
    said = command.stderr.read()
    command.stderr.close()
    command.wait(timeout=20)

    assert b"Traceback" not in said
    assert b"Exception ignored" not in said
