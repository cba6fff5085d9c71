"""The signed manifest of a release, for programs that update themselves.

    new-key ID FILE        a new key: the private half into FILE (0600), the entry of assets/update-keys.json to stdout
    archive FOLDER DIST    quorum-VERSION-PLATFORM.tar.gz of the frozen program (dist/quorum, on macOS
                           dist/Quorum.app); the same bytes every time
    sign DIST              DIST/manifest.json over all such archives of this version in DIST

The private key comes from QUORUM_UPDATE_KEY (its base64) or ``--key-file``, its id from QUORUM_UPDATE_KEY_ID or
``--key-id``. ``sign --if-key`` does nothing and says so where there is none. To rotate keys: add the new public key to
assets/update-keys.json, release once signed by both (``--and FILE ID``), then set ``"revoked": true`` on the old one.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import json
import os
import re
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402 (after the path above)

import router  # noqa: E402 (found through the path above)
from app.update import manifest  # noqa: E402 (the same)
from app.update.errors import UpdateError  # noqa: E402 (the same)
from app.update.installation import platform_name  # noqa: E402 (the same)

DAYS = 180
ARCHIVE = re.compile(r"quorum-(?P<version>\d+\.\d+\.\d+)-(?P<platform>[a-z]+-[a-z0-9_]+)\.tar\.gz")
PIECE_BYTES = 1 << 20


class SignError(Exception):
    """What is wrong, for the person who releases."""


def new_key(key_id: str, path: Path) -> None:
    """Make a key; a file that is there stays."""
    private = Ed25519PrivateKey.generate()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(base64.b64encode(private.private_bytes_raw()) + b"\n")
    public = base64.b64encode(private.public_key().public_bytes_raw()).decode()
    print(json.dumps({"id": key_id, "public": public}))


def archive(folder: Path, dist: Path, version: str, platform: str) -> Path:
    """The frozen program as an archive that holds one folder; names sorted, times and owners of nobody."""
    target = dist / f"quorum-{version}-{platform}.tar.gz"
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "1735689600"))

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = epoch
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    with (
        target.open("wb") as file,
        gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=6, mtime=epoch) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted([folder, *folder.rglob("*")]):
            tar.add(path, arcname=str(Path(folder.name) / path.relative_to(folder)), recursive=False, filter=plain)
    return target


def described(path: Path) -> dict[str, object]:
    """One archive as the manifest tells it. Raises SignError."""
    digest, unpacked = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    with tarfile.open(path, "r:gz") as tar:
        for entry in tar:
            if not (entry.isreg() or entry.isdir() or entry.issym()):
                raise SignError(f"{path.name} holds '{entry.name}', which programs refuse to unpack.")
            unpacked += entry.size
    return {"name": path.name, "bytes": path.stat().st_size, "unpacked_bytes": unpacked, "sha256": digest.hexdigest()}


def sign(dist: Path, keys: Sequence[tuple[str, Ed25519PrivateKey]], arguments: argparse.Namespace) -> Path:
    """Write ``dist/manifest.json`` and read it back as a program would. Raises SignError, UpdateError."""
    found = {
        match["platform"]: path
        for path in sorted(dist.iterdir())
        if (match := ARCHIVE.fullmatch(path.name)) and match["version"] == arguments.version
    }
    if not found:
        raise SignError(f"There is no quorum-{arguments.version}-PLATFORM.tar.gz in {dist}.")
    now = int(time.time())
    told = {
        "format": manifest.FORMAT,
        "product": "quorum",
        "version": arguments.version,
        "released_at": now,
        "expires_at": now + arguments.days * 86_400,
        "minimum_version": arguments.minimum,
        "notes": arguments.notes,
        "files": {platform: described(path) for platform, path in found.items()},
    }
    message = manifest.canonical(told)
    signatures = [
        {"key": key_id, "signature": base64.b64encode(private.sign(message)).decode()} for key_id, private in keys
    ]
    content = json.dumps({"manifest": told, "signatures": signatures}, indent=2).encode() + b"\n"
    public = [
        manifest.Key(key_id, base64.b64encode(private.public_key().public_bytes_raw()).decode())
        for key_id, private in keys
    ]
    manifest.read(content, public, now)
    shipped = {key.public for key in manifest.known_keys(ROOT / "assets") if not key.revoked}
    if not shipped.intersection(key.public for key in public):
        print(
            "warning: no program made from this tree trusts this key: add it to assets/update-keys.json",
            file=sys.stderr,
        )
    target = dist / "manifest.json"
    target.write_bytes(content)
    return target


def private_key(text: str) -> Ed25519PrivateKey:
    """Base64 of 32 bytes. Raises SignError without repeating any of it."""
    try:
        return Ed25519PrivateKey.from_private_bytes(base64.b64decode(text.strip(), validate=True))
    except ValueError:
        raise SignError("The private key is not base64 of 32 bytes; 'new-key' makes one.") from None


def given_keys(arguments: argparse.Namespace) -> list[tuple[str, Ed25519PrivateKey]]:
    """The keys to sign with; none where none was given."""
    text = (
        Path(arguments.key_file).read_text("ascii") if arguments.key_file else os.environ.get("QUORUM_UPDATE_KEY", "")
    )
    if not text.strip():
        return []
    if not arguments.key_id:
        raise SignError("Which key is it? Give --key-id or QUORUM_UPDATE_KEY_ID.")
    more = [(key_id, private_key(Path(file).read_text("ascii"))) for file, key_id in arguments.also]
    return [(arguments.key_id, private_key(text)), *more]


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = top.add_subparsers(dest="action", required=True)
    key = actions.add_parser("new-key")
    key.add_argument("id")
    key.add_argument("file", type=Path)
    pack = actions.add_parser("archive")
    pack.add_argument("folder", type=Path)
    pack.add_argument("dist", type=Path)
    pack.add_argument("--version", default=router.__version__)
    pack.add_argument("--platform", default=platform_name())
    made = actions.add_parser("sign")
    made.add_argument("dist", type=Path)
    made.add_argument("--version", default=router.__version__)
    made.add_argument("--minimum", default="0.1.0", help="the lowest version that may update to this one")
    made.add_argument("--notes", default="", help="one sentence for the user")
    made.add_argument("--days", type=int, default=DAYS, help="how long the manifest counts")
    made.add_argument("--key-file", default="")
    made.add_argument("--key-id", default=os.environ.get("QUORUM_UPDATE_KEY_ID", ""))
    made.add_argument("--and", dest="also", nargs=2, action="append", default=[], metavar=("FILE", "ID"))
    made.add_argument("--if-key", action="store_true", help="without a key do nothing")
    return top


def main(words: Sequence[str]) -> int:
    arguments = parser().parse_args(words)
    try:
        if arguments.action == "new-key":
            new_key(arguments.id, arguments.file)
        elif arguments.action == "archive":
            print(archive(arguments.folder.resolve(), arguments.dist, arguments.version, arguments.platform))
        elif keys := given_keys(arguments):
            print(sign(arguments.dist, keys, arguments))
        elif arguments.if_key:
            print("There is no key: no manifest was made, and programs are not told of this release.")
        else:
            raise SignError("There is no key: set QUORUM_UPDATE_KEY or give --key-file.")
    except (SignError, UpdateError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
