"""An archive writes nothing but files, folders and inner links below one folder, whatever it says."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from app.update import unpack as unpacking
from app.update.errors import UpdateError
from app.update.unpack import unpack
from tests.app.update.kit import archive, entry

GOOD = {"quorum/quorum": b"#!", "quorum/_internal/lib.so": b"\x7fELF"}
LINK, HARD, PIPE, DEVICE = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE


def put(folder: Path, content: bytes) -> Path:
    path = folder / "a.tar.gz"
    path.write_bytes(content)
    return path


def test_files_modes_and_inner_links_come_out(tmp_path: Path) -> None:
    content = archive(GOOD, entry("quorum/lib.so", LINK, "_internal/lib.so"), entry("quorum/in", LINK, "_internal"))

    top = unpack(put(tmp_path, content), tmp_path / "out", 1000)

    assert top == tmp_path / "out" / "quorum"
    assert (top / "quorum").stat().st_mode & 0o777 == 0o755
    assert (top / "lib.so").read_bytes() == (top / "in" / "lib.so").read_bytes() == b"\x7fELF"


ATTACKS = {
    "up": archive(GOOD | {"quorum/../../evil": b"x"}),
    "absolute": archive(GOOD | {"/tmp/evil": b"x"}),  # noqa: S108 # never written
    "drive": archive(GOOD | {"quorum/c:evil": b"x"}),
    "backslash": archive(GOOD | {"quorum\\..\\evil": b"x"}),
    "device name": archive(GOOD | {"quorum/con.txt": b"x"}),
    "twice": archive(GOOD, tarfile.TarInfo("quorum/quorum")),
    "twice in another case": archive(GOOD, tarfile.TarInfo("quorum/QUORUM")),
    "two tops": archive(GOOD | {"other/file": b"x"}),
    "a file on top": archive({"quorum": b"x"}),
    "nothing": archive({}),
    "link out": archive(GOOD, entry("quorum/l", LINK, "../../evil")),
    "link to root": archive(GOOD, entry("quorum/l", LINK, "/etc")),
    "top is a link": archive({}, entry("quorum", LINK, ".")),
    "through a link": archive({}, entry("quorum/l", LINK, ".."), entry("quorum/l/evil", tarfile.REGTYPE)),
    "link behind a link": archive(
        GOOD, entry("quorum/here", LINK, "."), entry("quorum/here/_internal/out", LINK, "../../../evil")
    ),
    "hard link": archive(GOOD, entry("quorum/h", HARD, "quorum/quorum")),
    "pipe": archive(GOOD, entry("quorum/p", PIPE)),
    "device": archive(GOOD, entry("quorum/d", DEVICE)),
    "bomb": archive(GOOD | {"quorum/zeros": bytes(2000)}),
    "cut": archive(GOOD)[:60],
    "no archive": b"hello",
    "long name": archive(GOOD | {"quorum/" + "x/" * 600 + "y": b"x"}),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_refused_and_nothing_stays(tmp_path: Path, attack: bytes) -> None:
    before = put(tmp_path, attack)

    with pytest.raises(UpdateError, match=r"was refused|can't be written"):
        unpack(before, tmp_path / "out", 1000)
    assert list(tmp_path.iterdir()) == [before]
    assert not (tmp_path.parent / "evil").exists()


def test_a_flood_of_entries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "ENTRIES_MAX", 3)

    with pytest.raises(UpdateError, match="too many files"):
        unpack(put(tmp_path, archive(GOOD, *(tarfile.TarInfo(f"quorum/{n}") for n in range(5)))), tmp_path / "out", 99)


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: io.BufferedIOBase, out: io.BufferedIOBase, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.update.unpack.shutil.copyfileobj", full)
    with pytest.raises(UpdateError, match="disk is too full"):
        unpack(put(tmp_path, archive(GOOD)), tmp_path / "out", 1000)
    assert not (tmp_path / "out").exists()
