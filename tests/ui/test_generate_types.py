"""The page's types are those of ``router/wire.py``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """``ui/generate_types.py`` as a module; ``ui`` is no package."""
    spec = importlib.util.spec_from_file_location("generate_types", ROOT / "ui" / "generate_types.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_types_of_the_page_are_fresh(generator: ModuleType) -> None:
    assert generator.main(["--check"]) == 0, "run 'python ui/generate_types.py'"


def test_stale_types_are_noticed_and_not_overwritten(
    generator: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "wire.gen.ts"
    target.write_text("// old\n")
    assert generator.main(["--check", "--target", str(target)]) == 1
    assert target.read_text() == "// old\n"
    assert "stale" in capsys.readouterr().err
    assert generator.main(["--target", str(target)]) == 0
    assert generator.main(["--check", "--target", str(target)]) == 0


def test_every_struct_of_the_wire_has_its_interface(generator: ModuleType) -> None:
    text = generator.render()
    for struct in generator.structs():
        assert f"export interface {struct.__name__} {{" in text
    assert 'export type JobState = "queued" | "loading" | "working" | "done" | "failed" | "cancelled";' in text


def test_answers_are_whole_and_requests_may_leave_out_what_has_a_default(generator: ModuleType) -> None:
    text = generator.render()
    receipt = text[text.index("export interface Receipt {") :].split("}", 1)[0]
    change = text[text.index("export interface Change {") :].split("}", 1)[0]
    message = text[text.index("export interface NewMessage {") :].split("}", 1)[0]
    assert "?:" not in receipt
    assert "ttft_s: number | null;" in receipt
    assert change.count("?:") == change.count(";")
    assert "content: string;" in message
    assert "parent_id?: string | null;" in message
