"""Only a folder that we own is replaced; everything else is told how it is updated."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from app.update.installation import Installation, describe, platform_name, root_of, this_installation


def frozen(program: Path, **more: object) -> Installation:
    return describe(program, frozen=True, inside=program.parent / "_internal", **more)  # type: ignore[arg-type]


def test_a_folder_of_ours_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "quorum").mkdir()
    found = frozen(tmp_path / "quorum" / "quorum")

    assert (found.refusal, found.root) == ("", tmp_path / "quorum")
    assert found.work == tmp_path / ".quorum.update"


def test_a_clone_is_not_updated() -> None:
    assert this_installation().refusal == "Quorum runs from a clone."
    assert "git pull" in this_installation().advice


@pytest.mark.parametrize("folder", ["/opt/quorum", "/usr/lib/quorum", "/nix/store/x/quorum"])
def test_a_package_is_left_to_its_manager_also_for_root(folder: str) -> None:
    found = frozen(Path(folder) / "quorum")

    assert found.refusal == "Quorum was installed as a package."
    assert "package manager" in found.advice


def test_single_files_are_replaced_by_hand(tmp_path: Path) -> None:
    program = tmp_path / "quorum"

    assert "single file" in describe(program, frozen=True, inside=Path("/var/tmp/_MEI1")).refusal  # noqa: S108
    assert "AppImage" in frozen(program, environ={"APPIMAGE": "/home/x/Quorum.AppImage"}).refusal


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows asks its own lists of who may")
def test_a_folder_that_we_may_not_write_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "quorum").mkdir()
    tmp_path.chmod(0o500)
    if os.geteuid() == 0:  # root may write everywhere: the system is asked as it answers everybody else
        ask = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: ask(path, mode) and not mode & os.W_OK)
    try:
        assert "may not change" in frozen(tmp_path / "quorum" / "quorum").refusal
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "theirs" / "quorum"
    folder.mkdir(parents=True)
    os.chown(folder, 12345, 12345)
    os.chown(folder.parent, 12345, 12345)

    assert "Another user" in frozen(folder / "quorum").refusal


def test_of_a_bundle_the_whole_bundle_is_replaced() -> None:
    inside = Path("/Applications/Quorum.app/Contents/MacOS/quorum")

    assert root_of(inside) == Path("/Applications/Quorum.app")
    assert root_of(Path("/home/x/quorum/quorum")) == Path("/home/x/quorum")


def test_platforms_are_named_as_in_manifests() -> None:
    system, _, machine = platform_name().partition("-")

    assert system == {"win32": "windows", "darwin": "macos"}.get(sys.platform, "linux")
    assert machine in ("x86_64", "arm64") or machine
