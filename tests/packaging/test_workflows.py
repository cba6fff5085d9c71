"""The workflows of the forge: valid, safe, and the same commands as on a developer's computer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))
BIN = Path(sys.executable).parent


def read(name: str) -> dict[str, Any]:
    told: dict[str, Any] = YAML(typ="safe", pure=True).load((FOLDER / f"{name}.yml").read_text("utf-8"))
    return told


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job.get("steps", [])]


def commands(workflow: dict[str, Any], job: str) -> str:
    return "\n".join(step["run"] for step in workflow["jobs"][job]["steps"] if "run" in step)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"NO_COLOR": "1"}
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100, check=False
    )


def test_there_are_three() -> None:
    assert [path.stem for path in WORKFLOWS] == ["build", "release", "test"]


def test_they_fit_the_schema_of_workflows() -> None:
    done = run(BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)

    assert done.returncode == 0, done.stdout


def test_an_audit_of_their_safety_finds_nothing() -> None:
    done = run(BIN / "zizmor", "--offline", "--no-progress", "--config", ".github/zizmor.yml", FOLDER)

    assert done.returncode == 0, done.stdout


def test_the_audit_would_find_something(tmp_path: Path) -> None:
    (tmp_path / "bad.yml").write_text(
        "on: pull_request_target\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n"
        "      - uses: actions/checkout@v5\n      - run: echo ${{ github.event.pull_request.title }}\n"
    )
    done = run(BIN / "zizmor", "--offline", "--no-progress", tmp_path / "bad.yml")

    assert done.returncode != 0
    assert "template-injection" in done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_nothing_is_allowed_unless_a_job_says_so_and_no_job_runs_for_ever(path: Path) -> None:
    workflow = read(path.stem)

    assert workflow["permissions"] == {}
    assert workflow["concurrency"]["group"]
    for name, job in workflow["jobs"].items():
        assert job["permissions"] in ({"contents": "read"}, {"contents": "write"}), name
        assert "uses" in job or 0 < job["timeout-minutes"] <= 90, name
    writing = [name for name, job in workflow["jobs"].items() if job["permissions"] == {"contents": "write"}]
    assert writing == (["draft"] if path.stem == "release" else [])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_named_by_their_commit_with_the_version_beside(path: Path) -> None:
    used = re.findall(r"uses: (.*)", path.read_text("utf-8"))

    assert used
    for action in used:
        assert action == "./.github/workflows/build.yml" or re.fullmatch(
            r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action
        ), action


def test_one_action_has_one_commit() -> None:
    seen: dict[str, str] = {}
    for path in WORKFLOWS:
        for name, commit in re.findall(r"uses: (actions/[a-z-]+)@(\S+)", path.read_text("utf-8")):
            assert seen.setdefault(name, commit) == commit


@pytest.mark.parametrize("job", ["linux", "windows", "macos"])
def test_each_system_builds_tests_installs_and_tests_again_by_the_usual_commands(job: str) -> None:
    told = commands(read("build"), job)

    assert re.search(r"python3? dev\.py build", told)
    assert len(re.findall(r"selftest --json", told)) == 2  # the frozen program, and what was installed
    assert "sign_manifest.py archive" in told
    names = [step.get("name", "") for step in read("build")["jobs"][job]["steps"]]
    order = ["Build", "Self-test of the frozen program", "Install", "Self-test of what was installed"]
    places = [next(place for place, name in enumerate(names) if name.startswith(start)) for start in order]
    assert places == sorted(places)


def test_macs_of_both_processors_are_built() -> None:
    matrix = read("build")["jobs"]["macos"]["strategy"]["matrix"]["include"]

    assert {(entry["system"], entry["processor"]) for entry in matrix} == {
        ("macos-15", "arm64"),
        ("macos-15-intel", "x86_64"),
    }


def test_the_test_workflow_runs_what_the_readme_and_ci_run() -> None:
    told = commands(read("test"), "linux")

    assert told.splitlines() == ["python3 dev.py lint", "python3 dev.py test"]


def test_a_release_is_a_draft_of_everything_with_checksums_and_a_signed_manifest() -> None:
    release = read("release")
    told = commands(release, "draft")

    assert release["jobs"]["draft"]["needs"] == "build"
    assert release["jobs"]["build"]["needs"] == "version"
    for command in ("sign_manifest.py sign --if-key dist", "sha256sum -- *", "sha256sum --check", "--draft"):
        assert command in told, command
    wanted = set(read("build")["on"]["workflow_call"]["secrets"])
    assert set(release["jobs"]["build"]["secrets"]) == wanted


def test_secrets_are_given_to_the_steps_that_need_them_only() -> None:
    for name in ("build", "release", "test"):
        workflow = read(name)
        assert "secrets" not in str(workflow.get("env", "")) + "".join(
            str(job.get("env", "")) for job in workflow["jobs"].values()
        )
        for step in steps(workflow):
            assert "secrets." not in step.get("run", "")
