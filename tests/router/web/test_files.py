"""Uploads as hostile clients send them; what is stored is what was sent, or nothing."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from router.node import Node
from router.web.files import _name

MakeNode = Callable[..., Awaitable[Node]]
LINE = b'{"custom_id":"a"}\n'


def part(name: str, content: bytes, filename: str = "", extra: str = "") -> bytes:
    named = f'; filename="{filename}"' if filename else ""
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"{named}\r\n{extra}\r\n'
    return head.encode() + content + b"\r\n"


FILE = part("file", LINE, "lines.jsonl")
PURPOSE = part("purpose", b"batch")
END = b"--x--\r\n"


class Uploads:
    """A node to upload to."""

    def __init__(self, node: Node, http: aiohttp.ClientSession, folder: Path) -> None:
        self.node = node
        self.http = http
        self.folder = folder

    async def send(self, body: bytes, boundary: str = "x") -> tuple[int, dict[str, Any]]:
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        async with self.http.post(f"{self.node.address}/v1/files", data=io.BytesIO(body), headers=headers) as response:
            return response.status, await response.json()

    def stored(self) -> list[bytes]:
        return [path.read_bytes() for path in self.folder.iterdir()]


@pytest.fixture
async def uploads(make_node: MakeNode, http: aiohttp.ClientSession, tmp_path: Path) -> Uploads:
    return Uploads(await make_node(), http, tmp_path / "data" / "files")


@pytest.mark.parametrize("body", [PURPOSE + FILE + END, FILE + PURPOSE + END, b"preamble\r\n" + FILE + PURPOSE + END])
async def test_the_parts_may_come_in_any_order(uploads: Uploads, body: bytes) -> None:
    status, file = await uploads.send(body)

    assert status == 200
    assert (file["object"], file["bytes"], file["filename"], file["status"]) == (
        "file", len(LINE), "lines.jsonl", "processed",
    )  # fmt: skip
    assert uploads.stored() == [LINE]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (PURPOSE + END, "file"),
        (FILE + END, "purpose"),
        (part("purpose", b"assistants") + FILE + END, "purpose"),
        (PURPOSE + FILE + FILE + END, "file"),
        (PURPOSE + FILE, None),
        (PURPOSE + FILE[:-8], None),
        (b"", None),
        (b"--x", None),
        (b"not a form", None),
        (part("purpose", b"b" * 5000) + FILE + END, None),
        (b"".join(part(f"f{number}", b"1") for number in range(40)) + FILE + PURPOSE + END, None),
        (part("file", b"--y--", extra="Content-Type: multipart/mixed; boundary=y\r\n") + PURPOSE + END, None),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + PURPOSE + FILE + END, None),
        (b"--x\r\n" + b"A: b\r\n" * 5000 + b"\r\nx\r\n" + PURPOSE + FILE + END, None),
        (b"--x\r\nA" + b"a" * 100_000 + b": b\r\n\r\nx\r\n" + END, None),
        (PURPOSE + FILE + part("expires_after[anchor]", b"created_at") + part("expires_after[seconds]", b"5") + END,
         "expires_after"),
        (PURPOSE + FILE + part("expires_after[seconds]", b"x") + END, "expires_after"),
    ],
    ids=range(17),
)  # fmt: skip
async def test_a_broken_upload_is_refused_and_leaves_nothing(uploads: Uploads, body: bytes, field: str | None) -> None:
    status, answer = await uploads.send(body)

    assert status == 400
    assert answer["error"]["param"] == field
    assert uploads.stored() == []


async def test_a_boundary_that_is_none_is_refused(uploads: Uploads) -> None:
    status, _ = await uploads.send(FILE + PURPOSE + END, boundary="y" * 200)

    assert status == 400


async def test_a_file_over_the_bound_is_refused_while_it_comes(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.web.files.FILE_BYTES", 1000)

    status, answer = await uploads.send(PURPOSE + part("file", b"x" * 100_000, "f") + END)

    assert status == 413
    assert answer["error"]["code"] == "payload_too_large"
    assert uploads.stored() == []


async def test_a_file_larger_than_other_bodies_may_be_uploaded(uploads: Uploads) -> None:
    content = LINE * 600_000  # more than the 8 MiB of other routes

    status, file = await uploads.send(PURPOSE + part("file", content, "f") + END)

    assert status == 200
    assert file["bytes"] == len(content)
    assert uploads.stored() == [content]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (None, "file.jsonl"),
        ("", "file.jsonl"),
        ("../../etc/passwd", "passwd"),
        ("C:\\a\\b.jsonl", "b.jsonl"),
        ("a\x00\x1b\nb.jsonl", "ab.jsonl"),
        ("x" * 1000, "x" * 255),
    ],
)
def test_a_name_is_shown_without_its_path_and_what_can_not_be_seen(given: str | None, shown: str) -> None:
    assert _name(given) == shown


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("file_id", ["file-unknown", "..%2f..%2fquorum.db", "file-01JOB0000000000000000000A1"])
async def test_what_is_not_there_is_not_found(uploads: Uploads, method: str, file_id: str) -> None:
    for path in ("", "/content"):
        url = f"{uploads.node.address}/v1/files/{file_id}{path}"
        async with uploads.http.request(method, url) as response:
            assert response.status in (404, 405)
