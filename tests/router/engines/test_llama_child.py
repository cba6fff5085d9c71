"""The child process by itself: its words, and that it never outlives whoever started it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest

from router.engines.llama_process import ROOT, child_argv

pytestmark = pytest.mark.engine


def orders(model: Path, **changed: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "key": "secret-key",
        "model": str(model),
        "alias": "m",
        "projector": "",
        "context": 512,
        "slots": 1,
        "threads": 1,
        "http_threads": 4,
        "gpu_layers": -1,
        "embedding": False,
        "pooling": "mean",
        "batch": 0,
    }
    return made | changed


@pytest.fixture
def child():  # type: ignore[no-untyped-def]
    process = subprocess.Popen(
        child_argv(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    yield process
    process.kill()
    process.communicate()


def order(process: subprocess.Popen[bytes], what: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(what).encode() + b"\n")
    process.stdin.flush()


def word(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    said: dict[str, Any] = json.loads(process.stdout.readline())
    return said


def test_it_says_where_it_serves_and_ends_when_its_input_closes(
    child: subprocess.Popen[bytes], starter_model: Path
) -> None:
    order(child, orders(starter_model))
    said = word(child)
    assert said["event"] == "ready"
    assert said["address"].startswith("http://127.0.0.1:")
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(5) == 0
    child.stdin = None


def test_a_file_that_is_no_model_is_a_word_and_no_crash(child: subprocess.Popen[bytes], tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    order(child, orders(path))
    assert word(child)["event"] == "failed"
    assert child.wait(5) == 1


def test_without_orders_it_ends(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(5) == 0
    child.stdin = None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
@pytest.mark.parametrize("moment", ["loading", "serving"])
def test_killing_the_parent_ends_the_child(moment: str, starter_model: Path) -> None:
    program = textwrap.dedent(f"""
        import json, subprocess, sys
        child = subprocess.Popen({child_argv()!r}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, cwd={str(ROOT)!r})
        child.stdin.write(json.dumps({orders(starter_model)!r}).encode() + b"\\n")
        child.stdin.flush()
        if {moment == "serving"}:
            child.stdout.readline()
        else:
            child.stderr.read(1)
        print(child.pid, flush=True)
        sys.stdin.read()
    """)
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
        child.wait(5)
    finally:
        parent.kill()
        parent.communicate()
