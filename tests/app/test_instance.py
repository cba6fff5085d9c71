"""One instance per data folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from app.instance import LOCK, Instance, Reply, show_other
from app.service import StartError

ROOT = Path(__file__).resolve().parent.parent.parent
HOLDER = """
import sys, time
from pathlib import Path
from app.instance import Instance
lock = Instance.acquire(Path(sys.argv[1]))
print("holds" if lock else "refused", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(data_dir)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        yield process
        process.kill()


@contextmanager
def node(data_dir: Path, status: int, pid: int) -> Iterator[list[tuple[str, str]]]:
    """A server that answers ``status``; gives the requests it got, as path and authorization."""
    got: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.headers["Authorization"]))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    (data_dir / "node.json").write_text(
        json.dumps({"address": f"http://127.0.0.1:{server.server_address[1]}", "pid": pid})
    )
    (data_dir / "control.token").write_text("secret")
    try:
        yield got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_second_of_two_on_one_folder_is_refused(tmp_path: Path) -> None:
    first = Instance.acquire(tmp_path)
    assert first is not None
    assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"

    assert Instance.acquire(tmp_path) is None

    first.release()
    first.release()
    again = Instance.acquire(tmp_path)
    assert again is not None
    again.release()


def test_another_folder_is_free(tmp_path: Path) -> None:
    first, second = Instance.acquire(tmp_path / "a"), Instance.acquire(tmp_path / "b")

    assert first is not None
    assert second is not None
    assert (tmp_path / "a").stat().st_mode & 0o077 == 0
    first.release()
    second.release()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        assert Instance.acquire(tmp_path) is None
        other.send_signal(signal.SIGKILL)
        other.wait(10)

        lock = Instance.acquire(tmp_path)

    assert lock is not None
    lock.release()


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StartError) as caught:
        Instance.acquire(tmp_path / "file" / "data")

    assert str(tmp_path / "file" / "data") in caught.value.message
    assert "--data-dir" in caught.value.hint


def test_the_running_instance_is_asked_to_show_its_window(tmp_path: Path) -> None:
    with holder(tmp_path) as other, node(tmp_path, 204, other.pid) as got:
        answer = show_other(tmp_path)

    assert answer.reply is Reply.SHOWN
    assert answer.pid == other.pid
    assert got == [("/local/v1/show", "Bearer secret")]


def test_an_instance_without_a_window_says_so(tmp_path: Path) -> None:
    with holder(tmp_path) as other, node(tmp_path, 409, other.pid):
        assert show_other(tmp_path).reply is Reply.NO_WINDOW


def test_files_that_a_dead_instance_left_are_not_believed(tmp_path: Path) -> None:
    with holder(tmp_path) as other, node(tmp_path, 204, other.pid + 1) as got:
        assert show_other(tmp_path, wait_s=0.3).reply is Reply.SILENT

    assert got == []


def test_an_instance_that_does_not_answer_is_given_up_with_its_process(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        (tmp_path / "node.json").write_text(json.dumps({"address": "http://127.0.0.1:9", "pid": other.pid}))
        (tmp_path / "control.token").write_text("secret")

        answer = show_other(tmp_path, wait_s=0.3)

    assert (answer.reply, answer.pid) == (Reply.SILENT, other.pid)


def test_an_instance_that_has_just_ended_leaves_the_folder_free(tmp_path: Path) -> None:
    assert show_other(tmp_path).reply is Reply.GONE
