"""What macOS is told of Quorum.app, and the steps to its disk image, with stand-ins for the programs of macOS."""

from __future__ import annotations

import ast
import importlib.util
import os
import plistlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.autostart import LABEL
from router.discovery import SERVICE

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "packaging" / "macos"


def info(version: str) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("macos_info", FOLDER / "info.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    told: dict[str, Any] = module.info(version)
    return told


def test_the_bundle_says_what_macos_asks_for() -> None:
    told = plistlib.loads(plistlib.dumps(info("1.2.3")))

    assert told == info("1.2.3")
    assert told["CFBundleIdentifier"] == LABEL
    assert told["CFBundleShortVersionString"] == told["CFBundleVersion"] == "1.2.3"
    assert told["LSUIElement"] is True
    assert told["NSHighResolutionCapable"] is True
    assert told["NSSupportsSuddenTermination"] is False
    assert [f"{service}.local." for service in told["NSBonjourServices"]] == [SERVICE]
    assert "other computers" in told["NSLocalNetworkUsageDescription"]


def test_the_oldest_macos_is_that_of_the_engines_wheels() -> None:
    lock = (ROOT / "packaging" / "requirements" / "core.txt").read_text("utf-8")
    assert re.search(r"^xllamacpp==", lock, re.MULTILINE)

    assert info("1.0.0")["LSMinimumSystemVersion"] == "13.0"


def test_the_spec_takes_it_from_there() -> None:
    calls = [
        node
        for node in ast.walk(ast.parse((ROOT / "packaging" / "quorum.spec").read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "BUNDLE"
    ]
    (bundle,) = calls
    assert "info(__version__)" in {ast.unparse(keyword.value) for keyword in bundle.keywords}


def test_the_entitlements_are_those_of_a_python_program_and_no_more() -> None:
    entitlements = plistlib.loads((FOLDER / "entitlements.plist").read_bytes())

    needed = ("allow-unsigned-executable-memory", "disable-library-validation")
    assert entitlements == {f"com.apple.security.cs.{name}": True for name in needed}


def test_the_icon_has_what_finder_and_retina_need() -> None:
    with Image.open(ROOT / "assets" / "icon.icns") as icon:
        assert {(size, scale) for size, _, scale in icon.info["sizes"]} >= {(512, 2), (256, 1), (128, 1), (16, 2)}


# The disk image

HDIUTIL = """#!/bin/sh
for last; do :; done
while [ $# -gt 0 ]; do [ "$1" = -srcfolder ] && ls "$2" > "$(dirname "$last")/inside"; shift; done
echo image > "$last"
"""


class Mac:
    """Programs of macOS that note how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.app = folder / "dist" / "Quorum.app"
        libraries = self.app / "Contents" / "Frameworks"
        libraries.mkdir(parents=True)
        (libraries / "libllama.dylib").touch()
        (libraries / "engine.so").touch()
        self.image = folder / "dist" / "quorum.dmg"
        self.bin = folder / "bin"
        self.bin.mkdir()
        note = f'#!/bin/sh\necho "$(basename "$0") $@" >> {folder}/calls\n'
        for name in ("codesign", "xcrun"):
            self._program(name, note)
        self._program("hdiutil", HDIUTIL)

    def _program(self, name: str, script: str) -> None:
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o700)

    def make(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("QUORUM_")}
        return subprocess.run(
            ["sh", str(FOLDER / "dmg.sh"), *(arguments or (str(self.app), str(self.image)))],
            env=kept | {"PATH": f"{self.bin}:{os.environ['PATH']}"} | environ,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().replace(str(self.folder), "").splitlines() if file.exists() else []


@pytest.fixture
def mac(tmp_path: Path) -> Mac:
    return Mac(tmp_path)


def test_without_keys_the_image_is_made_and_says_that_it_is_not_signed(mac: Mac) -> None:
    done = mac.make()

    assert (done.returncode, done.stderr) == (0, "")
    assert "Not signed: QUORUM_SIGN_IDENTITY is not set." in done.stdout
    assert mac.calls == []
    assert mac.image.read_text() == "image\n"
    assert (mac.image.parent / "inside").read_text().split() == ["Applications", "Quorum.app"]


def test_with_an_identity_everything_is_signed_from_the_inside_out(mac: Mac) -> None:
    done = mac.make(QUORUM_SIGN_IDENTITY="Developer ID Application: A B (C)")

    assert done.returncode == 0, done.stderr
    sign = "codesign --force --timestamp --options runtime --sign Developer ID Application: A B (C)"
    inside = "/dist/Quorum.app/Contents/Frameworks"
    assert mac.calls == [
        f"{sign} {inside}/engine.so",
        f"{sign} {inside}/libllama.dylib",
        f"{sign} --entitlements {FOLDER}/entitlements.plist /dist/Quorum.app",
        "codesign --verify --strict --deep /dist/Quorum.app",
        "codesign --force --timestamp --sign Developer ID Application: A B (C) /dist/quorum.dmg",
    ]
    assert "Not notarised" in done.stdout


def test_with_all_keys_the_image_is_notarised_and_stapled(mac: Mac) -> None:
    keys = {"QUORUM_NOTARY_KEY": "/keys/a.p8", "QUORUM_NOTARY_KEY_ID": "ID", "QUORUM_NOTARY_ISSUER": "ISSUER"}
    done = mac.make(QUORUM_SIGN_IDENTITY="me", **keys)

    assert done.returncode == 0, done.stderr
    assert mac.calls[-2:] == [
        "xcrun notarytool submit /dist/quorum.dmg --key /keys/a.p8 --key-id ID --issuer ISSUER --wait --timeout 30m",
        "xcrun stapler staple /dist/quorum.dmg",
    ]
    assert done.stdout == ""


def test_a_signature_that_fails_leaves_no_image(mac: Mac) -> None:
    (mac.bin / "codesign").write_text("#!/bin/sh\nexit 1\n")

    done = mac.make(QUORUM_SIGN_IDENTITY="me")

    assert done.returncode != 0
    assert not mac.image.exists()


def test_what_is_no_bundle_is_refused(mac: Mac, tmp_path: Path) -> None:
    done = mac.make(str(tmp_path), str(mac.image))

    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


# The keys of a runner


def keys(mac: Mac, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    mac._program("security", f'#!/bin/sh\necho "security $1" >> {mac.folder}/calls\n')
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MACOS_")}
    return subprocess.run(
        ["sh", str(FOLDER / "keys.sh"), *arguments],
        env=kept | {"PATH": f"{mac.bin}:{os.environ['PATH']}"} | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_keys_a_runner_does_nothing_and_says_so(mac: Mac, tmp_path: Path) -> None:
    done = keys(mac, str(tmp_path / "keys"))

    assert (done.returncode, done.stdout) == (0, "")
    assert "No keys for signing" in done.stderr
    assert mac.calls == []
    assert not (tmp_path / "keys").exists()


def test_the_keys_of_a_runner_are_private_and_told_to_the_next_steps(mac: Mac, tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    done = keys(
        mac, str(folder),
        MACOS_CERTIFICATE="Y2VydGlmaWNhdGU=", MACOS_CERTIFICATE_PASSWORD="secret", MACOS_SIGN_IDENTITY="me",
        MACOS_NOTARY_KEY="notary", MACOS_NOTARY_KEY_ID="ID", MACOS_NOTARY_ISSUER="ISSUER",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "QUORUM_SIGN_IDENTITY=me",
        f"QUORUM_NOTARY_KEY={folder}/notary.p8",
        "QUORUM_NOTARY_KEY_ID=ID",
        "QUORUM_NOTARY_ISSUER=ISSUER",
    ]
    assert "security import" in mac.calls
    assert (folder / "notary.p8").stat().st_mode & 0o077 == 0
    assert not (folder / "certificate.p12").exists()

    assert keys(mac, "--forget", str(folder)).returncode == 0
    assert not folder.exists()
