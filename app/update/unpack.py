"""A verified archive is unpacked beside the program: plain files, folders, and links that stay inside. Nothing else.

The signature has been checked before; this bounds what a mistake of those who release, or a stolen key, could write.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from app.update.errors import UpdateError
from app.update.feed import disk_error

ENTRIES_MAX: Final = 50_000
NAME_MAX: Final = 1024
PIECE_BYTES: Final = 1 << 20
_WINDOWS_NAMES: Final = frozenset(
    {"con", "prn", "aux", "nul", *(f"com{n}" for n in range(10)), *(f"lpt{n}" for n in range(10))}
)


def unpack(archive: Path, target: Path, most_bytes: int) -> Path:
    """Unpack into ``target``, which must not be there, and return the one folder at its top. Raises UpdateError.

    What was unpacked of a refused archive is removed.
    """
    try:
        target.mkdir(mode=0o700)
        _unpack(archive, target, most_bytes)
        top = list(target.iterdir())
        if len(top) != 1 or not top[0].is_dir() or top[0].is_symlink():
            raise _odd("it does not hold one folder")
        return top[0]
    except BaseException as error:
        shutil.rmtree(target, ignore_errors=True)
        if isinstance(error, tarfile.TarError | EOFError | zlib.error):
            raise _odd("it is not a proper archive") from error
        if isinstance(error, OSError):
            raise disk_error(error) from error
        raise


def _unpack(archive: Path, target: Path, most_bytes: int) -> None:
    """Files first, links last: nothing is ever written through a link of the archive."""
    links: list[tuple[Path, str]] = []
    left, seen = most_bytes, set[str]()
    with tarfile.open(archive, "r:gz") as tar:
        for member in _members(tar):
            name = _safe_name(member.name)
            if name.casefold() in seen and not member.isdir():
                raise _odd("a name comes twice")
            seen.add(name.casefold())
            path = target / name
            if member.isdir():
                path.mkdir(mode=0o755, parents=True, exist_ok=True)
            elif member.isreg():
                left -= member.size
                if left < 0:
                    raise _odd("it is larger than announced")
                _write(tar, member, path)
            elif member.issym():
                links.append((path, member.linkname))
            else:
                raise _odd("it holds something that is neither file nor folder")
    for path, aim in links:
        _link(target, path, aim)
    inside = target.resolve()
    for path, _ in links:
        if not path.resolve().is_relative_to(inside):
            raise _odd("a link leads out of it")


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for count, member in enumerate(tar):
        if count >= ENTRIES_MAX:
            raise _odd("it holds too many files")
        yield member


def _safe_name(name: str) -> str:
    """A relative name without ``..``, drives and odd letters. Raises UpdateError."""
    path = PurePosixPath(name)
    if (
        not name
        or len(name) > NAME_MAX
        or name.startswith("/")
        or any(part == ".." or part.split(".")[0].lower() in _WINDOWS_NAMES for part in path.parts)
        or any(letter in '\\:*?"<>|' or ord(letter) < 32 for letter in name)
        or not path.parts
    ):
        raise _odd("a name in it is not allowed")
    return str(path)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    source = tar.extractfile(member)
    if source is None:
        raise _odd("a file in it has no content")
    mode = 0o755 if member.mode & 0o100 else 0o644
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with source, os.fdopen(handle, "wb") as out:
        shutil.copyfileobj(source, out, PIECE_BYTES)
    path.chmod(mode)


def _link(target: Path, path: Path, aim: str) -> None:
    """A relative link whose aim, read as it stands, lies inside."""
    there = os.path.normpath(str(path.parent.relative_to(target) / aim))
    if aim.startswith("/") or "\\" in aim or len(aim) > NAME_MAX or there == ".." or there.startswith(("../", "/")):
        raise _odd("a link leads out of it")
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if path.parent.resolve() != target.resolve() / path.parent.relative_to(target):
        raise _odd("a link lies behind a link")
    path.symlink_to(aim)


def _odd(why: str) -> UpdateError:
    return UpdateError(f"The archive of the update was refused: {why}.")
