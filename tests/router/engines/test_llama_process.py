"""What the parent makes of a child: its end, its reason, its log without what users wrote."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from router.aio import Tasks
from router.engines import llama_process
from router.engines.llama_child import Orders
from router.engines.llama_process import Child, child_argv
from router.engines.transport import Transport
from router.errors import EngineFault

ORDERS: Orders = {
    "key": "secret-key",
    "model": "m.gguf",
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


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Replace the child's program by a shell script."""

    def use(text: str) -> None:
        monkeypatch.setattr(llama_process, "child_argv", lambda: ["/bin/sh", "-c", text])

    return use


@pytest.fixture
async def child(tasks: Tasks, transport: Transport) -> Child:
    return Child("m", tasks, transport)


def test_a_frozen_program_starts_itself_and_the_rest_starts_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    assert child_argv() == [sys.executable, "-m", "router.engines.llama_child"]
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert child_argv() == [sys.executable, "--engine-child"]


def test_llama_cpp_is_never_loaded_into_the_node() -> None:
    program = "import sys, router.engines.llama, router.engines.llama_child; sys.exit('xllamacpp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=llama_process.ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "said", "crashed"),
    [
        ("read line; kill -9 $$", "ended by SIGKILL", True),
        ("read line; exit 3", "ended with code 3", True),
        ("read line; echo nonsense; exec sleep 60", "SIGKILL", True),
        ("""read line; echo '{"event": "failed", "message": "no luck"}'; exit 1""", "no luck", False),
        (
            """read line; echo 'E llama_model_load: error loading model: bad tensor.' >&2; read x <&2; sleep 0.2;
            echo '{"event": "failed", "message": "no luck"}'; exit 1""",
            "bad tensor",
            False,
        ),
    ],
    ids=["killed", "exit", "nonsense", "failed", "reason"],
)
async def test_how_a_start_failed_is_told(script, child: Child, text: str, said: str, crashed: bool) -> None:  # type: ignore[no-untyped-def]
    script(text)
    await child.start(ORDERS)
    with pytest.raises(EngineFault, match=said):
        await child.ready()
    await asyncio.wait_for(child.ended.wait(), 5)
    assert child.crashed is crashed


async def test_a_program_that_cannot_be_started_is_a_fault(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_process, "child_argv", lambda: ["/nowhere/at/all"])
    with pytest.raises(EngineFault, match="can't be started"):
        await child.start(ORDERS)
    await child.close()
    assert child.ended.is_set()


async def test_a_child_that_ignores_the_end_of_its_input_is_killed(
    script,
    child: Child,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
) -> None:
    monkeypatch.setattr(llama_process, "END_S", 0.1)
    script("trap '' TERM HUP INT; while true; do sleep 0.05; done")
    await child.start(ORDERS)
    async with asyncio.timeout(3):
        await child.close()
    assert not child.crashed


async def test_log_lines_are_escaped_cut_and_bounded(
    script,
    child: Child,
    caplog: pytest.LogCaptureFixture,  # type: ignore[no-untyped-def]
) -> None:
    caplog.set_level(logging.DEBUG, "router.engines")
    script(
        r"""read line; printf 'a\033[31mred\r\n' >&2; head -c 1000000 /dev/zero | tr '\0' x >&2; echo >&2;
        i=0; while [ $i -lt 1000 ]; do echo line $i >&2; i=$((i+1)); done"""
    )
    await child.start(ORDERS)
    await asyncio.wait_for(child.ended.wait(), 10)
    assert child.lines[-1] == "line 999"
    assert len(child.lines) == llama_process.LOG_LINES
    assert max(len(line) for line in child.lines) <= llama_process.LOG_CHARACTERS
    assert max(len(record.getMessage()) for record in caplog.records) <= llama_process.LOG_CHARACTERS + 32
    assert r"a\x1b[31mred" in caplog.text
    assert "\x1b" not in caplog.text


async def test_what_a_serving_child_logs_is_withheld_unless_harmless(child: Child) -> None:
    child._serving = True
    child._log(b"0.00.1 W srv operator(): got exception: the user wrote CANARY")
    child._log(b"0.00.2 I slot print_timing: id 0 | prompt eval time = 1 ms")
    child._log(b"CANARY ::= grammar")
    assert "CANARY" not in "".join(child.lines)
    assert "print_timing" in child.lines[1]


def test_the_clone_is_where_the_module_is() -> None:
    assert (Path(llama_process.ROOT) / "router" / "engines" / "llama_child.py").is_file()
