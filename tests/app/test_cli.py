"""The command line without a node: usage, exit codes, and what is printed."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.commands.arguments import data_dir, duration, parse, parser, port
from app.commands.output import clean, size, span, table
from router import __version__

ROOT = Path(__file__).resolve().parent.parent.parent


def quorum(*arguments: str, timeout_s: float = 30, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("QUORUM_")} | environ
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


# Exit codes


@pytest.mark.parametrize(
    "command",
    [("status",), ("models",), ("jobs",), ("jobs", "--cancel", "X"), ("jobs", "--front", "X"), ("run", "m", "hello"),
     ("pause",), ("drain",),
     ("drain", "--wait"), ("resume",), ("status", "--json")],
    ids=" ".join,
)  # fmt: skip
def test_a_command_without_a_node_exits_with_3_and_says_how_to_start_one(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    done = quorum(*command, "--data-dir", str(tmp_path))

    assert done.returncode == 3
    assert done.stdout == ""
    assert f"No Quorum is running on {tmp_path}" in done.stderr
    assert "quorum serve" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("dance",), ("serve", "--port", "70000"), ("serve", "--port", "x"), ("pause", "--for", "soon"),
     ("jobs", "--limit", "0"), ("jobs", "--front", "X", "--cancel", "Y"), ("run",), ("serve", "--log-level", "loud"),
     ("status", "extra")],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    done = quorum(*arguments)

    assert done.returncode == 2
    assert "usage: quorum" in done.stderr


def test_the_version_is_printed() -> None:
    done = quorum("--version")

    assert (done.returncode, done.stdout) == (0, f"quorum {__version__}\n")


def test_help_names_every_command_and_the_exit_codes() -> None:
    done = quorum("--help")

    assert done.returncode == 0
    assert "3 no Quorum is running" in " ".join(done.stdout.split())
    for command in ("serve", "status", "models", "run", "jobs", "pause", "drain", "resume", "selftest"):
        assert f"\n    {command} " in done.stdout


def test_a_command_imports_neither_the_window_nor_the_node() -> None:
    program = (
        "import sys; from app.__main__ import main\n"
        "try: main(['status', '--data-dir', '/nonexistent'])\n"
        "finally: print({m.split('.')[0] for m in sys.modules} & {'webview', 'PySide6', 'qtpy', 'aiohttp', 'msgspec'})"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stdout == "set()\n"


@pytest.mark.parametrize(("flags", "hidden"), [([], False), (["--hidden"], True)])
def test_without_a_command_the_desktop_is_opened(
    flags: list[str], hidden: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from app import start
    from app.__main__ import main

    opened: list[tuple[Path, bool]] = []
    monkeypatch.setattr(start, "run", lambda options, hidden: opened.append((options.data_dir, hidden)) or 7)

    assert main([*flags, "--data-dir", str(tmp_path)]) == 7
    assert opened == [(tmp_path, hidden)]


# Flags and their values


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("15m", 900), ("15min", 900), ("1h", 3600), ("1h30m", 5400), ("2d", 172_800),
     ("0.5h", 1800), (" 1H ", 3600), ("1h 30m", 5400)],
)  # fmt: skip
def test_durations_are_read(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "soon", "1y", "h", "1h x", "99999999d", "1e3", "nan", "1,5h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write 90s"):
        duration(text)


@pytest.mark.parametrize("text", ["-1", "65536", "", "7_411", "\u0667", "7411 "])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not a port"):
        port(text)


def test_flags_stand_before_or_after_the_command() -> None:
    before = parser().parse_args(["--data-dir", "/a", "--port", "0", "serve"])
    after = parser().parse_args(["serve", "--data-dir", "/a", "--port", "0"])

    assert (before.data_dir, before.port) == (after.data_dir, after.port) == ("/a", 0)


def test_flags_that_were_not_given_fix_no_setting(tmp_path: Path) -> None:
    from app.__main__ import _options

    bare = _options(parser().parse_args(["serve", "--data-dir", str(tmp_path)]))
    full = _options(parser().parse_args(["serve", "--port", "1", "--peer-port", "2", "--name", "n", "--no-discovery"]))

    assert (bare.data_dir, bare.overrides, bare.discovery, bare.log_level) == (tmp_path, {}, True, "info")
    assert (full.overrides, full.discovery) == ({"port": 1, "peer_port": 2, "name": "n"}, False)


def test_the_data_folder_is_the_flags_then_the_environments_then_the_systems(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QUORUM_DATA_DIR", str(tmp_path / "environment"))
    assert data_dir(parser().parse_args(["status", "--data-dir", str(tmp_path / "flag")])) == tmp_path / "flag"
    assert data_dir(parser().parse_args(["status"])) == tmp_path / "environment"

    monkeypatch.delenv("QUORUM_DATA_DIR")
    assert data_dir(parser().parse_args(["status"])).name == "quorum"


# Output


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, ""), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (98_362_432, "98.4 MB"), (8_100_000_000, "8.1 GB"),
     (999_960, "1.0 MB"), (3 * 10**15, "3000.0 TB")],
)  # fmt: skip
def test_sizes_are_said_as_people_say_them(count: int | None, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (-3.0, "0.0 s"), (0.42, "0.4 s"), (12.7, "12 s"), (200, "3 min"), (7500, "2 h 5 min"),
     (7200, "2 h"), (273_600, "3 d 4 h")],
)  # fmt: skip
def test_durations_are_said_as_people_say_them(seconds: float | None, text: str) -> None:
    assert span(seconds) == text


def test_a_strangers_text_can_not_steer_the_terminal() -> None:
    assert clean("\x1b]0;title\x07a\x1b[2Jb\rc\x9bd\u202ee") == "]0;titlea[2Jbcde"
    assert clean("Zeile\n\tgrün 👩\u200d💻\u00a0日本") == "Zeile\n\tgrün 👩\u200d💻\u00a0日本"


def test_a_table_is_aligned_and_leaves_out_empty_columns() -> None:
    lines = table(
        ["MODEL", "SIZE", "PROBLEM"], [["small", "98 MB", ""], ["larger\nname", "8.1 GB", ""]], right=frozenset({1})
    )

    assert lines == ["MODEL          SIZE", "small         98 MB", "larger name  8.1 GB"]


@pytest.mark.parametrize(
    "words", ["m --max-tokens 5 why blue", "--max-tokens 5 m why blue", "m why --max-tokens 5 blue"]
)
def test_flags_may_stand_anywhere_among_the_words_of_a_prompt(words: str) -> None:
    asked = parse(["run", *words.split()])
    assert (asked.model, asked.prompt, asked.max_tokens) == ("m", ["why", "blue"], 5)


@pytest.mark.parametrize("words", ["run m hello --loud", "run m --max-tokens 5 hello --loud", "status extra"])
def test_what_no_command_takes_is_wrong_usage(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(words.split())
    assert ended.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err
