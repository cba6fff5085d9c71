"""``quorum run`` with the starter model on the real engine: streamed answers, stdin, Ctrl+C, a conversation."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.client import Client, CommandError, ServerEvent
from app.commands.chat import Screen
from router.library import STARTER_NAME
from tests.app.serving import ROOT, Serving, environment, serving

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, starter_model: Path) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("node") / "data"
    with serving(folder, QUORUM_STARTER_MODEL=str(starter_model)) as one:
        for event in Client.find(folder).events():
            models = json.loads(event.data).get("models") if event.name in ("snapshot", "change") else None
            if any(model["name"] == STARTER_NAME for model in models or ()):
                break
        yield one


def test_a_question_is_answered_on_stdout_and_nothing_else_is(node: Serving) -> None:
    done = node.quorum("run", STARTER_NAME, "Say", "hello.", "--max-tokens", "24", "--temperature", "0")

    assert done.returncode == 0, done.stderr
    assert re.search(r"\w", done.stdout)
    assert done.stdout.endswith("\n")
    assert done.stderr == ""


def test_the_question_may_come_from_stdin_with_a_system_prompt(node: Serving) -> None:
    done = node.quorum(
        "run", STARTER_NAME, "--system", "Answer in one word.", "--max-tokens", "8", stdin="Name a colour.\n"
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_an_empty_question_is_refused(node: Serving) -> None:
    done = node.quorum("run", STARTER_NAME, stdin="  \n")

    assert done.returncode == 1
    assert "no question" in done.stderr


def test_what_ran_is_listed(node: Serving) -> None:
    node.quorum("run", STARTER_NAME, "Hi", "--max-tokens", "4")

    listing = node.quorum("jobs", "--limit", "1").stdout
    job = node.json("jobs", "--limit", "1")[0]
    assert job["state"] == "done"
    assert job["id"] in listing
    assert STARTER_NAME in node.quorum("models").stdout
    assert "builtin" in listing
    cancelled = node.quorum("jobs", "--cancel", job["id"])
    assert cancelled.stdout == f"{job['id']} is done\n"


def test_ctrl_c_stops_the_answer_and_its_generation(node: Serving) -> None:
    asked = subprocess.Popen(
        [sys.executable, "-m", "app", "run", STARTER_NAME, "Count from one to a thousand in words.", "--max-tokens",
         "4000", "--data-dir", str(node.data_dir)],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert asked.stdout is not None
    assert asked.stdout.read(1)
    events = Client.find(node.data_dir).events()
    asked.send_signal(signal.SIGINT)
    _, said = asked.communicate(timeout=20)

    assert asked.returncode == 1
    assert said == "Stopped.\n"
    for event in events:
        jobs = json.loads(event.data).get("jobs") if event.name in ("snapshot", "change") else None
        if jobs and not [job for job in jobs if job["state"] in ("queued", "loading", "working")]:
            break
    assert node.json("jobs", "--limit", "1")[0]["state"] == "cancelled"


@pytest.mark.skipif(os.name != "posix", reason="a terminal of POSIX systems")
def test_a_conversation_in_a_terminal_goes_on_until_ctrl_d(node: Serving) -> None:
    import pty

    ours, theirs = pty.openpty()
    talk = subprocess.Popen(
        [sys.executable, "-m", "app", "run", STARTER_NAME, "--max-tokens", "8", "--data-dir", str(node.data_dir)],
        cwd=ROOT, env=environment(TERM="dumb"), stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True,
    )  # fmt: skip
    os.close(theirs)
    shown = ""

    def until(text: str, count: int = 1) -> None:
        nonlocal shown
        deadline = time.monotonic() + 60
        while shown.count(text) < count:
            assert select.select([ours], [], [], max(0.0, deadline - time.monotonic()))[0], shown
            shown += os.read(ours, 65536).decode("utf-8", "replace")

    try:
        until(">>> ")
        os.write(ours, b"My name is Ada.\n")
        until(">>> ", 2)
        os.write(ours, b"What is my name?\n")
        until(">>> ", 3)
        os.write(ours, b"\x04")
        assert talk.wait(timeout=20) == 0
    finally:
        talk.kill()
        talk.wait()
        os.close(ours)

    assert "Ctrl+D ends" in shown
    assert len(re.findall(r"\w", shown.split("What is my name?")[1])) > 3


# What the screen makes of events


def test_an_error_event_ends_the_answer_with_its_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.take(ServerEvent("message", json.dumps({"choices": [{"delta": {"content": "Half"}}]})))

    with pytest.raises(CommandError, match="broke off"):
        screen.take(ServerEvent("message", json.dumps({"error": {"code": "interrupted", "message": "It broke off."}})))

    assert capsys.readouterr().out == "Half\n"


def test_comments_and_thoughts_never_reach_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.take(ServerEvent("comment", "queued place=2 eta_s=14"))
    screen.take(ServerEvent("message", json.dumps({"choices": [{"delta": {"reasoning_content": "Hm."}}]})))
    screen.take(ServerEvent("message", json.dumps({"choices": [{"delta": {"content": "Yes.\n"}}]})))
    screen.take(ServerEvent("message", "[DONE]"))
    screen.finish()

    assert screen.ended
    assert capsys.readouterr() == ("Yes.\n", "")


def test_a_terminal_shows_what_is_waited_for_and_is_not_steered_by_the_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    screen = Screen()
    screen.take(ServerEvent("comment", "queued place=2 eta_s=14"))
    screen.take(ServerEvent("message", json.dumps({"choices": [{"delta": {"content": "a\x1b[2Jb"}}]})))
    screen.finish()

    out, err = capsys.readouterr()
    assert out == "a[2Jb\n"
    assert "queued place 2 eta_s 14" in err
    assert err.endswith("\r\x1b[K")
