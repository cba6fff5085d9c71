"""The built-in engine with the real llama.cpp and the starter model: answers, stops, survives its own crashes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from router.engines import llama_process
from router.engines.base import Call, EngineModel, Kind
from router.engines.llama import LlamaEngine
from router.engines.llama_replica import Replica
from router.engines.openai import OpenAIEngine
from router.engines.transport import Transport
from router.errors import EngineFault
from router.library import Library
from tests.router.engines.fakes import FakeClock

pytestmark = pytest.mark.engine

MODEL = "smollm2:135m"


def chat(text: str = "Say hello.", *, tokens: int = 8, stream: bool = True, job: str = "job", **fields: Any) -> Call:
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": tokens, "stream": stream}
    keep_alive_s = fields.pop("keep_alive_s", None)
    return Call(Kind.CHAT, MODEL, json.dumps(body | fields).encode(), stream, keep_alive_s, job)


async def answer(engine: LlamaEngine, call: Call) -> bytes:
    async with engine.call(call) as reply:
        assert reply.status == 200
        return b"".join([chunk async for chunk in reply.chunks])


async def meanwhile(engine: LlamaEngine, act: Callable[[], Any], job: str = "job") -> None:
    """Begin a long stream and do something at each of its chunks."""
    async with engine.call(chat(tokens=1500, ignore_eos=True, job=job)) as reply:
        async for _ in reply.chunks:
            if asyncio.iscoroutine(done := act()):
                await done


def kill(engine: LlamaEngine, number: int = signal.SIGKILL) -> Callable[[], None]:
    return lambda: os.kill(replica(engine)._child.pid, number)


def replica(engine: LlamaEngine, name: str = MODEL, *, embedder: bool = False) -> Replica:
    return engine._replicas[(name, embedder)]


async def described(engine: LlamaEngine, name: str = MODEL) -> EngineModel:
    return next(model for model in (await engine.poll()).models if model.name == name)


async def until_ended(copy: Replica) -> None:
    assert await copy.ended_within(5)


async def test_a_chat_is_answered_and_streamed(engine: LlamaEngine) -> None:
    assert engine.needs_load(MODEL)
    await engine.load(MODEL)
    assert not engine.needs_load(MODEL)
    whole = json.loads(await answer(engine, chat(stream=False)))
    assert whole["model"] == MODEL  # the name, never the path of its file
    assert whole["choices"][0]["message"]["content"]
    asked = chat("Count from one to ten.", tokens=20, temperature=0)
    events = (await answer(engine, asked)).decode().strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    texts = [json.loads(event[6:])["choices"][0]["delta"].get("content") for event in events[:-1]]
    assert sum(bool(text) for text in texts) >= 3
    model = await described(engine)
    assert model.resident
    assert (model.memory_bytes or 0) > 50_000_000


async def test_a_chat_model_makes_embeddings_in_a_process_of_their_own(engine: LlamaEngine) -> None:
    await engine.load(MODEL)
    body = json.dumps({"model": MODEL, "input": ["a cat", "a dog"]}).encode()
    made = json.loads(await answer(engine, Call(Kind.EMBEDDING, MODEL, body, stream=False)))
    assert [len(entry["embedding"]) for entry in made["data"]] == [576, 576]
    assert replica(engine) is not replica(engine, embedder=True)


async def test_a_text_too_long_for_the_embedder_is_the_requests_fault(engine: LlamaEngine) -> None:
    body = json.dumps({"model": MODEL, "input": "word " * 3000}).encode()
    async with engine.call(Call(Kind.EMBEDDING, MODEL, body, stream=False)) as reply:
        told = b"".join([chunk async for chunk in reply.chunks])
    assert reply.status == 400
    assert b"too large" in told


async def test_sound_for_a_model_that_hears_none_is_the_requests_fault(engine: LlamaEngine) -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    async with engine.call(chat(stream=False, messages=[{"role": "user", "content": [sound]}])) as reply:
        told = b"".join([chunk async for chunk in reply.chunks])
    assert reply.status == 400
    assert b"audio input is not supported" in told


async def test_leaving_a_stream_stops_the_generation_within_100_ms(engine: LlamaEngine, transport: Transport) -> None:
    await engine.load(MODEL)
    copy = replica(engine)
    slots = copy._child.url("slots")

    async def busy() -> bool:
        _, answered = await transport.json("GET", slots, headers=copy.headers)
        return bool(answered[0]["is_processing"])

    async with engine.call(chat("Count to a thousand.", tokens=1500, ignore_eos=True)) as reply:
        async for _ in reply.chunks:
            break
        assert await busy()
    async with asyncio.timeout(0.1):
        while await busy():
            pass


async def test_progress_is_told_and_ends_at_100(engine: LlamaEngine) -> None:
    told: list[int] = []
    await engine.load(MODEL, progress=told.append)
    assert told[-1] == 100
    assert told == sorted(told)


async def test_loads_of_the_same_model_join(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[None] = []
    argv = llama_process.child_argv
    monkeypatch.setattr(llama_process, "child_argv", lambda: starts.append(None) or argv())
    await asyncio.gather(*(engine.load(MODEL) for _ in range(5)))
    assert len(starts) == 1


async def test_a_load_nobody_waits_for_is_given_up(engine: LlamaEngine) -> None:
    first, second = (asyncio.ensure_future(engine.load(MODEL)) for _ in range(2))
    await asyncio.sleep(0)
    copy = replica(engine)
    first.cancel()
    await asyncio.wait([first])
    assert replica(engine) is copy  # the second still waits
    second.cancel()
    await asyncio.wait([second])
    await until_ended(copy)
    assert engine._replicas == {}
    await engine.load(MODEL)


async def test_unloading_frees_the_process_and_ends_what_runs(engine: LlamaEngine) -> None:
    await engine.load(MODEL)
    copy = replica(engine)
    with pytest.raises(EngineFault):
        await meanwhile(engine, lambda: engine.unload(MODEL))
    await until_ended(copy)
    assert not psutil.pid_exists(copy._child.pid)
    assert (await described(engine)).problem == ""
    await engine.unload(MODEL)
    await engine.unload("nothing")


async def test_an_idle_model_unloads_after_its_keep_alive(engine: LlamaEngine, clock: FakeClock) -> None:
    await engine.load(MODEL)
    copy = replica(engine)
    assert (await described(engine)).expires_at == clock.wall() + 300
    clock.now += 299
    await engine.sweep()
    assert not engine.needs_load(MODEL)
    clock.now += 2
    await engine.sweep()
    assert engine.needs_load(MODEL)
    await until_ended(copy)


async def test_a_model_whose_file_is_gone_unloads(
    engine: LlamaEngine, library: Library, clock: FakeClock, starter_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "models" / "copy.gguf"
    path.parent.mkdir()
    await asyncio.to_thread(shutil.copy, starter_model, path)
    await library.add(path)
    await engine.load("copy", keep_alive_s=-1)
    copy = replica(engine, "copy")
    path.unlink()
    await library.scan()
    clock.now += 10
    await engine.sweep()
    await until_ended(copy)
    with pytest.raises(EngineFault, match="no model"):
        await engine.load("copy")


async def test_keep_alive_of_a_request_wins(engine: LlamaEngine, clock: FakeClock) -> None:
    await answer(engine, chat(keep_alive_s=-1))
    clock.now += 10_000
    await engine.sweep()
    assert (await described(engine)).resident
    assert (await described(engine)).expires_at is None
    copy = replica(engine)
    await answer(engine, chat(keep_alive_s=0))
    await until_ended(copy)


async def test_a_process_killed_in_mid_stream_is_a_fault_and_the_next_call_works(engine: LlamaEngine) -> None:
    await engine.load(MODEL)
    with pytest.raises(EngineFault, match="stopped: it was ended by SIGKILL"):
        await meanwhile(engine, kill(engine))
    assert await answer(engine, chat())


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root may look into that process")
async def test_a_crash_leaves_no_image_of_the_memory(engine: LlamaEngine) -> None:
    await engine.load(MODEL)
    assert psutil.Process(replica(engine)._child.pid).rlimit(psutil.RLIMIT_CORE) == (0, 0)


async def test_a_frozen_process_is_noticed_killed_and_replaced(engine: LlamaEngine) -> None:
    await engine.load(MODEL)
    async with asyncio.timeout(15):
        with pytest.raises(EngineFault, match="did not answer any more"):
            await meanwhile(engine, kill(engine, signal.SIGSTOP))
    assert await answer(engine, chat())


async def test_crashes_under_two_jobs_quarantine_the_model_until_it_is_forgiven(engine: LlamaEngine) -> None:
    for job in ("one", "two"):
        with pytest.raises(EngineFault):
            await meanwhile(engine, kill(engine), job)
    assert "2 times while it answered" in (await described(engine)).problem
    with pytest.raises(EngineFault, match="set aside") as caught:
        await engine.load(MODEL)
    assert not caught.value.retryable
    engine.forgive(MODEL)
    assert await answer(engine, chat())


async def test_one_crash_while_loading_is_survived_by_the_next_try(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(llama_process, "child_argv", lambda: ["/bin/sh", "-c", "read line; kill -9 $$"])
        with pytest.raises(EngineFault, match="SIGKILL") as caught:
            await engine.load(MODEL)
    assert caught.value.retryable
    assert not caught.value.lasting
    assert await answer(engine, chat())


async def test_two_crashes_while_loading_quarantine_the_model(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[None] = []
    argv = ["/bin/sh", "-c", "read line; kill -9 $$"]
    monkeypatch.setattr(llama_process, "child_argv", lambda: starts.append(None) or argv)
    for _ in range(2):
        with pytest.raises(EngineFault, match="SIGKILL"):
            await engine.load(MODEL)
    with pytest.raises(EngineFault, match="2 times while loading") as caught:
        await engine.load(MODEL)
    assert not caught.value.retryable
    assert len(starts) == 2


async def test_the_cause_of_a_failed_load_is_told_for_15_s_without_another_start(
    engine: LlamaEngine, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[None] = []
    says = 'read line; echo \'{"event": "failed", "message": "unknown architecture"}\''
    monkeypatch.setattr(llama_process, "child_argv", lambda: starts.append(None) or ["/bin/sh", "-c", says])
    for _ in range(3):
        with pytest.raises(EngineFault, match="unknown architecture") as caught:
            await engine.load(MODEL)
        assert caught.value.lasting
    assert len(starts) == 1
    clock.now += 16
    with pytest.raises(EngineFault, match="unknown architecture"):
        await engine.load(MODEL)
    assert len(starts) == 2


async def test_the_model_used_longest_ago_leaves_for_another(
    engine: LlamaEngine,
    library: Library,
    settings: dict[str, Any],
    clock: FakeClock,
    starter_model: Path,
    tmp_path: Path,
) -> None:
    for name in ("second", "third"):
        await asyncio.to_thread(shutil.copy, starter_model, tmp_path / f"{name}.gguf")
    await library.add(tmp_path)
    for name in (MODEL, "second"):
        await engine.load(name)
        clock.now += 10
    await answer(engine, chat())
    await engine.load("third")
    assert not engine.needs_load(MODEL)
    assert engine.needs_load("second")
    settings["max_loaded"] = 1
    clock.now += 10
    async with engine.call(chat(tokens=1500, ignore_eos=True)) as reply:
        async for _ in reply.chunks:
            break
        with pytest.raises(EngineFault, match="no room") as caught:
            await engine.load("second")
        assert caught.value.code == "models_busy"
        assert not engine.needs_load(MODEL)


async def test_a_file_damaged_after_it_was_listed_is_refused_and_the_node_unharmed(
    engine: LlamaEngine, library: Library, starter_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "copy.gguf"
    await asyncio.to_thread(shutil.copy, starter_model, path)
    await library.add(path)
    with path.open("r+b") as file:
        file.truncate(50_000_000)
    async with asyncio.timeout(1):
        with pytest.raises(EngineFault, match="outside the file") as caught:
            await engine.load("copy")
    assert caught.value.lasting
    assert await answer(engine, chat())


async def test_a_file_that_is_no_model_is_shown_with_what_is_wrong_with_it(
    engine: LlamaEngine, library: Library, tmp_path: Path
) -> None:
    for folder in ("one", "two"):  # one of a name is enough, and none where a good file has it
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "Half.gguf").write_bytes(b"GGUF")
    (tmp_path / f"{MODEL}.gguf").write_bytes(b"GGUF")
    library.models_dir = tmp_path
    await library.scan()
    look = await engine.poll()
    assert [(file.name, file.problem) for file in look.refused] == [("half", "Its file Half.gguf is not a GGUF file.")]
    assert [model.name for model in look.models] == [MODEL]


async def test_an_unknown_model_is_not_found(engine: LlamaEngine) -> None:
    for act in (engine.load("nothing"), answer(engine, Call(Kind.CHAT, "nothing", b"{}", stream=False))):
        with pytest.raises(EngineFault) as caught:
            await act
        assert caught.value.code == "model_not_found"


async def test_a_model_larger_than_the_memory_is_refused(
    engine: LlamaEngine, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.gguf.GgufInfo.memory_need", lambda *_: 2**50)
    with pytest.raises(EngineFault, match=r"needs 1048576\.0 GiB"):
        await engine.load(MODEL)


async def test_only_the_key_of_this_start_opens_the_process(engine: LlamaEngine, transport: Transport) -> None:
    await engine.load(MODEL)
    copy = replica(engine)
    key = copy.headers["Authorization"].removeprefix("Bearer ")
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        status, _ = await transport.json("POST", copy.urls[Kind.CHAT], headers=headers, body={"messages": []})
        assert status == 401
    process = psutil.Process(copy._child.pid)
    assert key not in " ".join(process.cmdline())
    with contextlib.suppress(psutil.AccessDenied):  # what even its owner can't read is no leak
        assert key not in " ".join(process.environ().values())
    assert copy._child.address.startswith("http://127.0.0.1:")
    await engine.unload(MODEL)
    await engine.load(MODEL)
    assert key not in replica(engine).headers["Authorization"]


async def test_neither_prompt_nor_answer_nor_key_is_in_any_log(
    engine: LlamaEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await engine.load(MODEL)
    canary = "CANARY-7f3a"
    key = replica(engine).headers["Authorization"].removeprefix("Bearer ")
    await answer(engine, chat(f"Repeat: {canary}", tokens=30))
    for broken in (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": f"#/{canary}"}}}},
        {"grammar": f"root ::= {canary}"},
        {"messages": [{"role": canary, "content": canary}]},
        {"messages": canary},
        {"tools": [{"type": "function", "function": {"name": canary, "parameters": {"type": canary}}}]},
        {"stop": {canary: canary}},
        {"temperature": canary},
    ):
        async with engine.call(chat("x", **broken)) as reply:
            async for _ in reply.chunks:
                pass
    async with engine.call(Call(Kind.CHAT, MODEL, f'{{"{canary}": '.encode(), stream=False)) as reply:
        assert reply.status >= 400
    lines = engine.log_lines(MODEL)
    assert any("print_timing" in line for line in lines)  # the log works
    for text in (caplog.text, *lines):
        assert canary not in text
        assert key not in text


async def test_stopping_ends_every_process(engine: LlamaEngine) -> None:
    await engine.load(MODEL)
    copy = replica(engine)
    async with asyncio.timeout(3):
        await engine.stop()
    assert not psutil.pid_exists(copy._child.pid)


async def test_llama_server_is_also_an_openai_engine(
    engine: LlamaEngine, transport: Transport, clock: FakeClock
) -> None:
    await engine.load(MODEL)
    copy = replica(engine)
    key = copy.headers["Authorization"].removeprefix("Bearer ")
    other = OpenAIEngine(copy._child.address, key, transport, clock)
    snapshot = await other.poll()
    assert (snapshot.ready, other.label) == (True, "llama-server")
    model = snapshot.models[0]
    assert (model.name, model.context, model.parameters) == (MODEL, 8192, "135M")
    async with other.call(chat(tokens=3)) as reply:
        assert b"[DONE]" in b"".join([chunk async for chunk in reply.chunks])
