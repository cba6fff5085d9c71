"""Rules of the repository that no linter knows."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import router
from router.errors import CODES
from router.settings import SETTINGS

ROOT = Path(__file__).resolve().parent.parent
LOCKS = sorted((ROOT / "packaging" / "requirements").glob("*.txt"))
MODULES = sorted(path for part in ("app", "router") for path in (ROOT / part).rglob("*.py"))
PROGRAMS = [*MODULES, ROOT / "dev.py", *sorted((ROOT / "packaging").glob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))

MIRRORED_ELSEWHERE = {
    "app/__main__.py": "tests/app/test_cli.py",
    "app/commands/arguments.py": "tests/app/test_cli.py",
    "app/commands/output.py": "tests/app/test_cli.py",
    "app/commands/chat.py": "tests/app/test_cli_run.py",
    "app/commands/control.py": "tests/app/test_cli_node.py",
    "app/commands/doctor.py": "tests/app/test_cli_doctor.py",
    "app/commands/keys.py": "tests/app/test_cli_keys.py",
    "app/commands/listing.py": "tests/app/test_cli_node.py",
    "app/commands/peers.py": "tests/app/test_cli_peers.py",
    "app/commands/serve.py": "tests/app/test_cli_node.py",
    "app/commands/selftest.py": "tests/app/test_cli_selftest.py",
    "app/commands/update.py": "tests/app/test_cli_update.py",
    "app/commands/service.py": "tests/app/test_cli_service.py",
    "app/commands/care.py": "tests/app/test_cli_care.py",
    "app/commands/window_probe.py": "tests/app/test_cli_selftest.py",
    "app/update/errors.py": "tests/app/update/test_feed.py",
    "router/wire_base.py": "tests/router/test_wire.py",
    "router/wire_care.py": "tests/router/test_wire.py",
    "router/wire_peers.py": "tests/router/test_wire.py",
    "router/wire_receipt.py": "tests/router/test_wire.py",
    "router/pairing_call.py": "tests/router/test_pairing.py",
    "router/web/keys.py": "tests/router/web/test_guard.py",
    "router/web/job_request.py": "tests/router/web/test_jobs.py",
    "router/web/service.py": "tests/router/test_node.py",
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def mirror(path: Path) -> Path:
    if elsewhere := MIRRORED_ELSEWHERE.get(name(path)):
        return ROOT / elsewhere
    return ROOT / "tests" / path.relative_to(ROOT).parent / f"test_{path.stem}.py"


def tracked() -> list[Path]:
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this is not a git work tree")
    return [path for line in listed.stdout.split("\0") if line and (path := ROOT / line).is_file()]


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Each call in a file with the last name of what it calls."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            called = node.func
            yield (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")), node


def version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text.split("+")[0].split(".post")[0]))


def locked(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", path.read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize("path", [path for path in MODULES if path.name != "__init__.py"], ids=name)
def test_every_module_has_its_test_file(path: Path) -> None:
    assert mirror(path).is_file(), f"{name(path)} has no {name(mirror(path))}"


@pytest.mark.parametrize("listed", MIRRORED_ELSEWHERE)
def test_the_list_of_exceptions_names_only_files_that_are_there(listed: str) -> None:
    assert (ROOT / listed).is_file()


@pytest.mark.parametrize("path", PROGRAMS, ids=name)
def test_no_module_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 400


def test_every_package_is_installed() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]

    there = {name(path.parent).replace("/", ".") for path in MODULES if path.name == "__init__.py"}
    assert set(packages) == there
    assert {name(path.parent).replace("/", ".") for path in MODULES} == there


def test_the_router_imports_nothing_from_the_app() -> None:
    for path in sorted((ROOT / "router").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [n for n in names if n.split(".")[0] == "app"], f"{name(path)}:{getattr(node, 'lineno', 0)}"


def test_tasks_are_started_only_in_aio() -> None:
    found = [
        f"{name(path)}:{call.lineno}"
        for path in MODULES
        if name(path) != "router/aio.py"
        for called, call in calls(path)
        if called in ("create_task", "ensure_future")
    ]
    assert not found


def test_no_test_sleeps() -> None:
    found = [
        f"{name(path)}:{call.lineno}"
        for path in TESTS
        if "bench" not in path.parts
        for called, call in calls(path)
        if called == "sleep" and not (call.args and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0)
    ]
    assert not found


def test_every_ignored_lint_rule_has_its_reason() -> None:
    bare = re.compile(r"#\s*(noqa|type:\s*ignore)(:\s*[A-Z]+[0-9]+(,\s*[A-Z]+[0-9]+)*|\[[^]]*\])?\s*(# fmt.*)?$")
    found = [
        f"{name(path)}:{number}"
        for path in PROGRAMS
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if bare.search(line)
    ]
    assert not found


def test_the_tables_of_the_readme_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "packaging/docs.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_is_in_the_readme(setting: object) -> None:
    assert f"`{setting.environment}`" in (ROOT / "README.md").read_text("utf-8")  # type: ignore[attr-defined]


@pytest.mark.parametrize("code", CODES)
def test_every_error_is_in_the_readme(code: str) -> None:
    assert f"| `{code}` |" in (ROOT / "README.md").read_text("utf-8")


def test_every_command_and_flag_is_in_the_readme() -> None:
    from app.commands.arguments import parser

    readme = (ROOT / "README.md").read_text("utf-8")
    missing = [
        option
        for action in parser()._actions
        for option in [
            *action.option_strings,
            *(f"quorum {name}" for name in action.choices or () if not action.option_strings),
        ]
        if option not in readme and option not in ("-h", "--help")
    ]
    assert not missing


def test_files_that_the_readme_shows_are_there() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")

    for target in re.findall(r"!?\[[^]]*\]\(([^)#:]+)\)", readme):
        assert (ROOT / target).exists(), target


def test_the_changelog_has_an_entry_for_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]

    assert project == router.__version__
    assert re.search(rf"^## {re.escape(project)}$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_has_exact_versions_with_digests_and_names_no_host(path: Path) -> None:
    text = path.read_text("utf-8")

    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE)
    assert locked(path)
    for entry in re.split(r"\n(?=\S)", text.strip()):
        assert re.match(r"[a-z0-9-]+==\S+", entry), entry.splitlines()[0]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]


def test_the_locks_agree_with_each_other() -> None:
    seen: dict[str, str] = {}
    for path in LOCKS:
        for package, exact in locked(path).items():
            assert seen.setdefault(package, exact) == exact, f"{path.name}: {package}"


def test_the_lock_of_the_starter_model_is_that_of_its_manifest() -> None:
    manifest = json.loads((ROOT / "assets" / "starter-model.json").read_text("utf-8"))
    text = (ROOT / "packaging" / "requirements" / "starter.txt").read_text("utf-8")

    assert f"{manifest['package']}=={manifest['version']}" in text
    assert manifest["wheel_sha256"] in text


def test_the_lock_of_the_page_names_no_address() -> None:
    lock = json.loads((ROOT / "ui" / "package-lock.json").read_text("utf-8"))

    assert all("resolved" not in package for package in lock["packages"].values())
    assert all("integrity" in package for place, package in lock["packages"].items() if place)


@pytest.mark.parametrize(
    "path", [path for path in LOCKS if path.name in ("core.txt", "desktop.txt", "test.txt")], ids=name
)
def test_no_locked_python_package_is_below_its_floor(path: Path) -> None:
    floors = json.loads((ROOT / "packaging" / "audit.json").read_text("utf-8"))["python"]
    have = locked(path)

    assert not {p: have[p] for p, (floor, _) in floors.items() if p in have and version(have[p]) < version(floor)}
    assert {"aiohttp", "zeroconf", "xllamacpp", "cryptography"} <= have.keys() & floors.keys()


def test_no_locked_page_package_is_below_its_floor() -> None:
    floors = json.loads((ROOT / "packaging" / "audit.json").read_text("utf-8"))["npm"]
    packages = json.loads((ROOT / "ui" / "package-lock.json").read_text("utf-8"))["packages"]
    below = [
        f"{place} {package['version']}"
        for place, package in packages.items()
        if (floor := floors.get(place.rpartition("node_modules/")[2]))
        and version(package["version"]) < version(floor[0])
    ]
    assert not below


def test_no_file_names_a_package_registry() -> None:
    # Written in pieces, so that this file does not name them either.
    hosts = [
        a + b for a, b in (("py", "pi.org"), ("python", "hosted.org"), ("registry.", "npmjs"), ("deb.", "debian.org"))
    ]
    found = []
    for path in tracked():
        content = path.read_bytes()
        found += [f"{name(path)}: {host}" for host in hosts if host.encode() in content]
    assert not found


def test_continuous_integration_runs_what_the_readme_says() -> None:
    script = ROOT / ".ci" / "run"

    assert script.stat().st_mode & 0o111
    assert "python3 dev.py lint\npython3 dev.py test" in script.read_text("utf-8")
