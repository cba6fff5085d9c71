"""The process around one loaded model: llama.cpp's HTTP server on loopback. Never imported by the node itself.

It reads one JSON line (``Orders``) from its standard input and writes JSON lines (``Word``) to its standard output;
llama.cpp's log goes to standard error. It ends when its standard input closes, and on Linux when its parent dies.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from typing import Any, Final, TypedDict

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
# Information and worse. One step more logs the key's last letters, two steps more log prompts.
VERBOSITY: Final = 3
PROMPT_CACHE_MIB: Final = 512


class Orders(TypedDict):
    """What to load and how. ``context`` is of all slots together; ``batch`` 0 keeps llama.cpp's own."""

    key: str
    model: str
    alias: str
    projector: str
    context: int
    slots: int
    threads: int
    http_threads: int
    gpu_layers: int
    embedding: bool
    pooling: str
    batch: int


class Word(TypedDict, total=False):
    """What the child says: ``event`` is ready (with ``address``) or failed (with ``message``)."""

    event: str
    address: str
    message: str


def main() -> int:
    """Serve until standard input closes; the exit code is 1 when the model can't be loaded."""
    _die_with_parent()
    _die_quietly()
    words = _own_stdout()
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return 0
    orders: Orders = json.loads(line)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        server = _serve(orders)
    except Exception as error:
        _say(words, {"event": "failed", "message": str(error)})
        return 1
    _say(words, {"event": "ready", "address": server.listening_address})
    threading.Event().wait()
    return 0


def _die_with_parent() -> None:
    """Linux ends this process with its parent even while llama.cpp keeps Python from running."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _die_quietly() -> None:
    """A crash leaves no image of the memory on the disk and calls no debugger: prompts are in there."""
    os.environ["GGML_NO_BACKTRACE"] = "1"
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _own_stdout() -> int:
    """Keep standard output for our words: what llama.cpp prints there goes to the log instead."""
    words = os.dup(1)
    os.dup2(2, 1)
    return words


def _say(words: int, word: Word) -> None:
    os.write(words, json.dumps(word).encode() + b"\n")


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


def _serve(orders: Orders) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = orders["model"]
    params.model_alias = {orders["alias"]}
    if orders["projector"]:
        params.mmproj.path = orders["projector"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [orders["key"]]
    params.cors_origins = ""
    params.ui = False
    params.endpoint_slots = True
    params.endpoint_metrics = True
    params.endpoint_props = False
    params.verbosity = VERBOSITY
    params.use_jinja = True
    params.n_ctx = orders["context"]
    params.n_parallel = orders["slots"]
    params.n_threads_http = orders["http_threads"]
    params.n_gpu_layers = orders["gpu_layers"]
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = orders["threads"]
    if orders["embedding"]:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type[f"LLAMA_POOLING_TYPE_{orders['pooling'].upper()}"]
    if orders["batch"]:
        params.n_batch = params.n_ubatch = orders["batch"]
    return xllamacpp.Server(params)


if __name__ == "__main__":
    sys.exit(main())
