"""The client of the commands: finds the running node, and says plainly when there is none."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.client import Client, CommandError, NoNodeError, ServerEvent

PID_OF_NOBODY = 2**22 + 1  # above the largest process id of Linux
Answer = tuple[int, str, bytes]


class Scripted(ThreadingHTTPServer):
    """A server that answers ``answer`` to everything and keeps what it was asked."""

    daemon_threads = True
    answer: Answer = (200, "application/json", b"{}")

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Scripted

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((f"{self.command} {self.path}", dict(self.headers), body))
        status, kind, content = self.server.answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _any

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as scripted:
        thread = threading.Thread(target=scripted.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield scripted
        scripted.shutdown()
        thread.join()


def write_node(data_dir: Path, port: int, pid: int = 1, token: str = "t" * 43) -> None:
    (data_dir / "node.json").write_text(json.dumps({"address": f"http://127.0.0.1:{port}", "pid": pid}))
    (data_dir / "control.token").write_text(token + "\n")


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_call_carries_the_control_token_and_json(server: Scripted, tmp_path: Path) -> None:
    write_node(tmp_path, server.server_port)
    server.answer = (200, "application/json", b'{"mode": "paused"}')

    assert Client.find(tmp_path).call("POST", "/local/v1/pause", {"for_s": 60.0}) == {"mode": "paused"}

    line, headers, body = server.asked[0]
    assert line == "POST /local/v1/pause"
    assert headers["Authorization"] == "Bearer " + "t" * 43
    assert headers["Content-Type"] == "application/json"
    assert headers["Host"] == f"127.0.0.1:{server.server_port}"
    assert json.loads(body) == {"for_s": 60.0}


def test_an_answer_without_a_body_is_none(server: Scripted, tmp_path: Path) -> None:
    write_node(tmp_path, server.server_port)
    server.answer = (204, "application/json", b"")

    assert Client.find(tmp_path).call("DELETE", "/local/v1/chats/x") is None


def test_a_query_is_encoded(server: Scripted, tmp_path: Path) -> None:
    write_node(tmp_path, server.server_port)

    Client.find(tmp_path).call("GET", "/local/v1/jobs", limit=5)

    assert server.asked[0][0] == "GET /local/v1/jobs?limit=5"


def test_another_port_may_be_given(server: Scripted, tmp_path: Path) -> None:
    write_node(tmp_path, closed_port())

    assert Client.find(tmp_path, server.server_port).call("GET", "/local/v1/status") == {}


@pytest.mark.parametrize(
    "arrange",
    [
        lambda folder: None,
        lambda folder: write_node(folder, closed_port()),
        lambda folder: write_node(folder, 1, pid=PID_OF_NOBODY),
        lambda folder: (folder / "node.json").write_text('{"address": "http://127.0.0.1:1", "pid": 1}'),
    ],
    ids=["never started", "nobody listens", "process is gone", "no token"],
)
def test_no_running_node_is_said_with_the_folder_and_what_to_do(tmp_path: Path, arrange: Callable[[Path], Any]) -> None:
    arrange(tmp_path)

    with pytest.raises(NoNodeError) as none:
        Client.find(tmp_path).call("GET", "/local/v1/status")

    assert str(tmp_path) in none.value.message
    assert "quorum serve" in none.value.hint
    assert none.value.exit_code == 3


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"address": 1}', '{"address": "http://127.0.0.1:1", "pid": "x"}'])
def test_a_damaged_node_file_is_named(tmp_path: Path, content: str) -> None:
    write_node(tmp_path, 1)
    (tmp_path / "node.json").write_text(content)

    with pytest.raises(CommandError, match=r"node\.json") as error:
        Client.find(tmp_path)

    assert error.value.exit_code == 1


def test_a_refusal_is_told_with_its_sentence_and_hint(server: Scripted, tmp_path: Path) -> None:
    write_node(tmp_path, server.server_port)
    told = {
        "error": {
            "code": "model_not_found",
            "message": "No computer holds 'x'.",
            "hint": "Did you mean y?",
            "status": 404,
        }
    }
    server.answer = (404, "application/json", json.dumps(told).encode())

    with pytest.raises(CommandError) as refused:
        Client.find(tmp_path).call("POST", "/v1/chat/completions", {})

    assert (refused.value.code, refused.value.message, refused.value.hint, refused.value.exit_code) == (
        "model_not_found",
        "No computer holds 'x'.",
        "Did you mean y?",
        1,
    )


@pytest.mark.parametrize(
    "answer",
    [
        (404, "text/html", b"<h1>Not found</h1>"),
        (200, "text/html", b"<html>"),
        (301, "text/plain", b""),
        (500, "application/json", b"[]"),
    ],
)
def test_a_program_that_is_not_quorum_is_recognised(server: Scripted, tmp_path: Path, answer: Answer) -> None:
    write_node(tmp_path, server.server_port)
    server.answer = answer

    with pytest.raises(CommandError, match="not Quorum") as error:
        Client.find(tmp_path).call("GET", "/local/v1/status")

    assert error.value.exit_code == 1


def test_a_connection_that_breaks_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        write_node(tmp_path, listener.getsockname()[1])
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        with pytest.raises(CommandError, match="broke") as error:
            Client.find(tmp_path).call("GET", "/local/v1/status")
        thread.join()

    assert error.value.exit_code == 1


def test_events_and_comments_are_read_as_they_stand(server: Scripted, tmp_path: Path) -> None:
    write_node(tmp_path, server.server_port)
    stream = b': queued place=2\n\nevent: state\ndata: {"a":1}\n\ndata: one\ndata: two\r\n\r\n'
    stream += b"id: 1\n\ndata:tight\n\ndata: lost"
    server.answer = (200, "text/event-stream", stream)

    assert list(Client.find(tmp_path).events()) == [
        ServerEvent("comment", "queued place=2"),
        ServerEvent("state", '{"a":1}'),
        ServerEvent("message", "one\ntwo"),
        ServerEvent("message", "tight"),
    ]
