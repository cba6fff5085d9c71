"""The log: one harmless line a record, private files, nothing that a client sent."""

from __future__ import annotations

import asyncio
import io
import logging
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from router import logs
from router.logs import LINE_MAX, RING_LINES, escape, place_of
from tests.router.web.web_kit import TOKEN, closed, read_answer, serving

log = logging.getLogger("router.test")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What went to stderr."""
    text = io.StringIO()
    monkeypatch.setattr(sys, "stderr", text)
    return text


@pytest.fixture
def kept(tmp_path: Path, shown: io.StringIO) -> Iterator[logs.Logs]:
    root = logging.getLogger()
    level, raising = root.level, logging.raiseExceptions
    yield logs.setup("debug", tmp_path)
    logs.close()
    root.setLevel(level)
    logging.raiseExceptions = raising


def written(directory: Path) -> list[str]:
    logs.close()
    return (directory / logs.FILE_NAME).read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("a\nb\r\nc", "a\\x0ab\\x0d\\x0ac"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x00\x7f\x9b", "\\x00\\x7f\\x9b"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("a\u202eb\u2066c", "a\\u202eb\\u2066c"),
        ("lone \ud800", "lone \\ud800"),
        ("größe 漢字", "größe 漢字"),
    ],
)
def test_a_text_becomes_one_harmless_line(text: str, line: str) -> None:
    assert escape(text) == line


@pytest.mark.parametrize("text", ["x" * 1_000_000, "\n" * 1_000_000, "\x1b" * 300])
def test_a_line_is_never_longer_than_256(text: str) -> None:
    assert len(escape(text)) == LINE_MAX


def test_hostile_records_are_single_lines_everywhere(kept: logs.Logs, shown: io.StringIO, tmp_path: Path) -> None:
    log.info("name %s", "evil\r\n2026-01-01 00:00:00 CRITICAL router: forged\x1b[2J")
    log.warning("big %s", "y" * 1_000_000)
    log.error("lone %s", "\ud800")
    log.info("wrong %d", "not a number")
    lines = written(tmp_path)
    assert len(lines) == 4
    assert all(len(line) <= LINE_MAX for line in lines)
    assert "forged\\x1b[2J" in lines[0]
    assert lines == kept.lines() == shown.getvalue().splitlines()


def test_exceptions_are_told_by_type_and_place(kept: logs.Logs, tmp_path: Path) -> None:
    def deepest() -> None:
        raise ValueError("canary of a prompt")

    try:
        deepest()
    except ValueError:
        log.exception("it failed")
    (line,) = written(tmp_path)
    assert "it failed: ValueError at test_logs.py:" in line
    assert "deepest < " in line
    assert "canary" not in line


def test_the_systems_own_words_are_kept() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Path("/nonexistent/canary").read_bytes()
    assert "No such file or directory" in place_of(caught.value)
    assert "canary" not in place_of(caught.value)
    assert place_of(ValueError("canary")) == "ValueError at unknown"


def test_libraries_that_repeat_raw_bytes_are_cut_to_their_frame(kept: logs.Logs, tmp_path: Path) -> None:
    logging.getLogger("aiohttp.server").error("Error handling request from %s: %r", "1.2.3.4", b"canary")
    logging.getLogger("asyncio").error("Exception in callback feed(b'canary')\nhandle: <Handle canary>")
    logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: <Task exception=E('canary')>")
    lines = written(tmp_path)
    assert len(lines) == 3
    assert "Error handling request from" in lines[0]
    assert "Exception in callback feed" in lines[1]
    assert not any("canary" in line for line in lines)


def test_chatter_of_libraries_is_left_out(kept: logs.Logs) -> None:
    logging.getLogger("asyncio").debug("Using selector")
    logging.getLogger("zeroconf").info("chatter")
    assert kept.lines() == []


def test_the_file_is_private_and_turns_over(kept: logs.Logs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log.info("x")
    written(tmp_path)
    file = tmp_path / logs.FILE_NAME
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    monkeypatch.setattr(logs, "FILE_BYTES", 2000)
    again = logs.setup("info", tmp_path)
    for number in range(100):
        log.info("line %d of many", number)
    assert len(again.lines()) == 100
    written(tmp_path)
    files = sorted(tmp_path.glob("quorum.log*"))
    assert [one.name for one in files] == ["quorum.log", "quorum.log.1", "quorum.log.2"]
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 for one in files)
    assert all(one.stat().st_size <= 2300 for one in files)


def test_the_ring_has_the_last_500(kept: logs.Logs) -> None:
    for number in range(RING_LINES + 20):
        log.debug("line %d", number)
    assert len(logs.recent()) == RING_LINES
    assert logs.recent()[-1].endswith(f"line {RING_LINES + 19}")


def test_a_second_setup_replaces_the_first(kept: logs.Logs, tmp_path: Path) -> None:
    logs.setup("warning", tmp_path)
    log.info("not this")
    log.warning("once")
    assert [line.rpartition(": ")[2] for line in written(tmp_path)] == ["once"]
    assert logs.recent() == []


def test_a_stuck_pipe_never_holds_up_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            release.wait(10)
            return len(text)

    monkeypatch.setattr(sys, "stderr", Stuck())
    kept = logs.setup("info", None)
    try:
        for number in range(logs.WAITING_MAX + 50):
            log.info("%d", number)
        assert kept.lines()[-1].endswith(str(logs.WAITING_MAX + 49))
    finally:
        release.set()
        logs.close()


async def test_secrets_and_prompts_of_good_and_bad_requests_are_in_no_log(kept: logs.Logs, tmp_path: Path) -> None:
    canary = "canary-7f3a"
    secret = f"Authorization: Bearer {canary}\r\nCookie: quorum_session={canary}\r\n".encode()
    prompt = b'{"model":"m","prompt":"' + canary.encode() + b'"}'
    control = b"Authorization: Bearer " + TOKEN.encode() + b"\r\n"
    async with serving(keys=True, require_key=True) as served:
        for data in (
            served.post(prompt, secret),
            served.post(prompt, control),
            served.post(prompt[:-2], control),
            served.post(prompt + b"\xff", control),
            served.post(prompt, control, path=b"/v1/nothing"),
            served.post(prompt, control, kind=b"Content-Type: " + canary.encode() + b"\r\n"),
            served.get(b"/v1/models?q=" + canary.encode(), control),
            served.get(b"/local/v1/status", secret),
            served.get(host=b"Host: " + canary.encode() + b"\r\n"),
            served.get(extra=b"Origin: http://" + canary.encode() + b"\r\n"),
        ):
            async with served.connection() as (reader, writer):
                writer.write(data)
                await read_answer(reader)
        for data in (
            b"POST / HTTP/1.1\r\nX: " + canary.encode() + b"\x00\r\n\r\n",
            canary.encode() + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + canary.encode() * 3000 + b"\r\n\r\n",
        ):
            async with served.connection() as (reader, writer):
                writer.write(data)
                await closed(reader)
    await asyncio.to_thread(logs.close)
    everything = "\n".join(kept.lines()) + (tmp_path / logs.FILE_NAME).read_text(encoding="utf-8")
    assert canary not in everything
    assert TOKEN not in everything
