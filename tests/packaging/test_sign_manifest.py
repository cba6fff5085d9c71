"""What the release signs is what a program believes and unpacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.update import manifest
from app.update.installation import platform_name
from app.update.unpack import unpack

ROOT = Path(__file__).resolve().parent.parent.parent
NAME = f"quorum-1.2.3-{platform_name()}.tar.gz"


def tool(*words: str | Path, key: str = "") -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("QUORUM_")}
    return subprocess.run(
        [sys.executable, "packaging/sign_manifest.py", *map(str, words)],
        cwd=ROOT,
        env=environ | ({"QUORUM_UPDATE_KEY": key, "QUORUM_UPDATE_KEY_ID": "a"} if key else {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    program = tmp_path / "quorum"
    (program / "_internal").mkdir(parents=True)
    (program / "quorum").write_bytes(b"#!/bin/sh\n")
    (program / "quorum").chmod(0o755)
    (program / "_internal" / "lib.so.1").write_bytes(b"\x7fELF")
    (program / "_internal" / "lib.so").symlink_to("lib.so.1")
    (tmp_path / "dist").mkdir()
    done = tool("archive", program, tmp_path / "dist", "--version", "1.2.3")
    assert done.returncode == 0, done.stderr
    return tmp_path / "dist"


def new_key(folder: Path, name: str = "a") -> tuple[manifest.Key, Path]:
    done = tool("new-key", name, folder / name)
    assert done.returncode == 0, done.stderr
    assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert (folder / name).read_text().strip() not in done.stdout
    return manifest.Key(**json.loads(done.stdout)), folder / name


def test_a_signed_release_is_believed_and_unpacked(dist: Path, tmp_path: Path) -> None:
    key, file = new_key(tmp_path)

    done = tool("sign", dist, "--version", "1.2.3", "--notes", "Faster.", key=file.read_text())

    assert done.returncode == 0, done.stderr
    found = manifest.read((dist / "manifest.json").read_bytes(), [key], time.time())
    offer = manifest.offered(found, "0.1.0", platform_name())
    assert offer is not None
    assert (offer.name, offer.bytes, found.notes) == (NAME, (dist / NAME).stat().st_size, "Faster.")
    top = unpack(dist / NAME, tmp_path / "out", offer.unpacked_bytes)
    assert (top / "quorum").stat().st_mode & 0o777 == 0o755
    assert (top / "_internal" / "lib.so").read_bytes() == b"\x7fELF"
    assert "no program made from this tree trusts this key" in done.stderr


def test_an_archive_is_the_same_every_time(dist: Path, tmp_path: Path) -> None:
    before = (dist / NAME).read_bytes()
    os.utime(tmp_path / "quorum" / "quorum", (1, 1))
    assert tool("archive", tmp_path / "quorum", dist, "--version", "1.2.3").returncode == 0

    assert (dist / NAME).read_bytes() == before


def test_a_release_between_two_keys_is_signed_by_both(dist: Path, tmp_path: Path) -> None:
    (one, first), (two, second) = new_key(tmp_path), new_key(tmp_path, "b")

    done = tool("sign", dist, "--version", "1.2.3", "--key-file", first, "--key-id", "a", "--and", second, "b")

    assert done.returncode == 0, done.stderr
    for key in (one, two):
        assert manifest.read((dist / "manifest.json").read_bytes(), [key], time.time()).version == "1.2.3"


def test_without_a_key_it_refuses_or_does_nothing(dist: Path) -> None:
    assert tool("sign", dist, "--version", "1.2.3").returncode == 1
    skipped = tool("sign", dist, "--version", "1.2.3", "--if-key")

    assert (skipped.returncode, "no manifest was made" in skipped.stdout) == (0, True)
    assert not (dist / "manifest.json").exists()


def test_a_bad_key_is_not_repeated(dist: Path) -> None:
    done = tool("sign", dist, "--version", "1.2.3", key="c2VjcmV0IGJ1dCBzaG9ydA==")

    assert done.returncode == 1
    assert "c2Vj" not in done.stdout + done.stderr
    assert "secret" not in done.stdout + done.stderr


def test_an_empty_folder_and_a_key_that_is_there_are_told(dist: Path, tmp_path: Path) -> None:
    _, file = new_key(tmp_path)

    assert "There is no quorum-9.9.9" in tool("sign", dist, "--version", "9.9.9", key=file.read_text()).stderr
    assert tool("new-key", "a", file).returncode == 1
