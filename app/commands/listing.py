"""``status``, ``models`` and ``jobs``: what is, as tables or JSON."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from app.client import Client
from app.commands.output import clean, say, say_json, size, span, table

_REASONS = {
    "waits-turn": "its turn",
    "waits-load": "its model is being loaded",
    "waits-other-load": "another model is being loaded",
    "waits-other-model": "jobs for the loaded model go first",
    "waits-paused": "paused: 'quorum resume'",
    "waits-draining": "draining: 'quorum resume'",
    "waits-holder": "no engine has its model now",
    "retry": "to be tried again",
}
"""What ``JobInfo.why`` says of a job that waits, in words."""


def status(client: Client, arguments: argparse.Namespace) -> int:
    """The node, its engines, and the work it has."""
    snapshot = client.call("GET", "/local/v1/status")
    if arguments.json:
        disk = client.call("GET", "/local/v1/disk")
        say_json({part: snapshot[part] for part in ("node", "engines", "models", "jobs")} | {"disk": disk})
        return 0
    node = snapshot["node"]
    mode = str(node["mode"])
    if node["paused_until"]:
        mode += f" for {span(node['paused_until'] - time.time() + 1)}"
    say(f"{clean(node['name'])} is {mode} at {node['address']}")
    lines = [
        ("page", client.page),
        ("work", f"{node['running']} running, {node['waiting']} waiting"),
        ("models", _models_in_words(snapshot["models"])),
        ("memory", f"{size(node['ram_free_bytes'])} free of {size(node['ram_total_bytes'])}"),
        ("gpu", _gpu(node)),
        ("disk", _disk(client.call("GET", "/local/v1/disk"))),
        ("network", ", ".join(node["network"])),
        ("sleep", clean(node["sleep"])),
        ("data", clean(node["data_dir"])),
        ("version", f"{node['version']}, up for {span(time.time() - node['started_at'])}, id {node['id'][:12]}"),
        ("notice", clean(node["notice"])),
    ]
    for title, text in lines:
        if text:
            say(f"  {title:<8}{text}")
    rows = [
        [e["label"], e["state"], f"{e['in_flight']}/{e['width']}", e["version"], e["url"], e["detail"]]
        for e in snapshot["engines"]
    ]
    if rows:
        say()
        for line in table(["ENGINE", "STATE", "BUSY", "VERSION", "ADDRESS", "DETAIL"], rows):
            say(line)
    return 0


def _disk(use: dict[str, Any]) -> str:
    """What is free, and what the data folder takes, largest first."""
    kinds = {
        "models": "models",
        "database": "database",
        "backups": "older databases",
        "logs": "logs",
        "other": "other files",
    }
    taken = sorted(((use[f"{kind}_bytes"], word) for kind, word in kinds.items()), reverse=True)
    shown = [f"{word} {size(amount)}" for amount, word in taken if amount >= 1_000_000] or ["less than 1 MB"]
    return f"{size(use['free_bytes'])} free; the data takes {size(sum(n for n, _ in taken))}: {', '.join(shown)}"


def _models_in_words(models: list[dict[str, Any]]) -> str:
    names = {model["name"] for model in models if model["capabilities"]}  # broken files have none
    warm = {model["name"] for model in models if model["residency"] == "warm"}
    return f"{len(names)}, {len(warm)} in memory" if names else "none; add one on the Models page"


def _gpu(node: dict[str, Any]) -> str:
    if not node["gpu"]:
        return ""
    memory = (
        f", {size(node['vram_free_bytes'])} free of {size(node['vram_total_bytes'])}"
        if node["vram_total_bytes"]
        else ""
    )
    return f"{clean(node['gpu'])}{memory}"


def models(client: Client, arguments: argparse.Namespace) -> int:
    """Every model at every engine."""
    found = client.call("GET", "/local/v1/models")
    if arguments.json:
        say_json(found)
        return 0
    if not found:
        say("There is no model yet. Add one on the Models page, or put a .gguf file into the folder of models.")
        return 0
    rows = [
        [
            model["name"],
            _residency(model),
            size(model["size_bytes"]),
            model["parameters"],
            model["quantisation"],
            model["context"] or "",
            model["engine"],
            "" if model["local"] else model["node_name"],
            model["problem"],
        ]
        for model in found
    ]
    head = ["MODEL", "STATE", "SIZE", "PARAMETERS", "QUANT", "CONTEXT", "ENGINE", "COMPUTER", "PROBLEM"]
    for line in table(head, rows, right=frozenset({2, 5})):
        say(line)
    return 0


def _residency(model: dict[str, Any]) -> str:
    state = str(model["residency"])
    if model["loading_pct"] is not None and state == "loading":
        state += f" {model['loading_pct']} %"
    if model["in_flight"]:
        state += f", {model['in_flight']} running"
    if model["waiting"]:
        state += f", {model['waiting']} waiting"
    return state


def jobs(client: Client, arguments: argparse.Namespace) -> int:
    """The jobs, or the one that was cancelled or moved to the front."""
    if arguments.cancel:
        job = client.call("DELETE", f"/local/v1/jobs/{_checked_id(arguments.cancel)}")
        return _tell(job, f"{job['id']} is {job['state']}", arguments)
    if arguments.front:
        job = client.call("POST", f"/local/v1/jobs/{_checked_id(arguments.front)}/front", {})
        return _tell(job, f"{job['id']} is next in line", arguments)
    found = client.call("GET", "/local/v1/jobs", limit=arguments.limit)
    if arguments.json:
        say_json(found)
        return 0
    if not found:
        say("No jobs.")
        return 0
    now = time.time()
    rows = [
        [
            job["id"],
            job["state"],
            job["place"] or "",
            f"in {span(job['eta_s'])}" if job["eta_s"] is not None else "",
            job["model"],
            job["key"] or "",
            span(now - job["created_at"]),
            span((job["completed_at"] or now) - job["started_at"]) if job["started_at"] else "",
            job["tokens"] or "",
            job["attempt"] or "",
            job["engine"] or "",
            _why(job),
        ]
        for job in found
    ]
    head = ["JOB", "STATE", "PLACE", "STARTS", "MODEL", "FOR", "AGE", "TOOK", "TOKENS", "ATTEMPT", "ENGINE", "WHY"]
    for line in table(head, rows, right=frozenset({2, 6, 7, 8, 9})):
        say(line)
    return 0


def _tell(job: dict[str, Any], sentence: str, arguments: argparse.Namespace) -> int:
    if arguments.json:
        say_json(job)
    else:
        say(sentence)
    return 0


def _checked_id(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def _why(job: dict[str, Any]) -> str:
    """What a job waits for, how far its model is, what went wrong."""
    waits = _REASONS.get(job["why"], job["why"]) if job["state"] == "queued" else ""
    loading = f"loading {job['loading_pct']} %" if job["loading_pct"] is not None and job["state"] == "loading" else ""
    error = f"{job['error']['code']}: {job['error']['message']}" if job["error"] else ""
    return ", ".join(part for part in (waits, loading, error) if part)


COMMANDS: dict[str, Callable[[Client, argparse.Namespace], int]] = {"status": status, "models": models, "jobs": jobs}
