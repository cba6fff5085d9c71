"""The tables of GGUF agree with the engine that is shipped."""

from __future__ import annotations

import json
import subprocess
import sys

from router.gguf_types import FILE_TYPES, TENSOR_TYPES

NAMES = (
    "import json, xllamacpp as x; print(json.dumps({t.name.removeprefix('GGML_TYPE_'): t.value for t in x.ggml_type}))"
)


def test_tensor_types_are_those_of_the_engine() -> None:
    told = subprocess.run([sys.executable, "-c", NAMES], capture_output=True, check=True).stdout
    engine = json.loads(told)
    assert set(TENSOR_TYPES) <= set(engine.values())
    sizes = {name: TENSOR_TYPES[number] for name, number in engine.items() if number in TENSOR_TYPES}
    assert sizes["F32"] == (1, 4)
    assert sizes["Q4_K"] == (256, 144)
    assert sizes["Q8_0"] == (32, 34)
    assert sizes["MXFP4"] == (32, 17)


def test_file_types_have_names_people_know() -> None:
    assert FILE_TYPES[15] == "Q4_K_M"
    assert len(set(FILE_TYPES.values())) == len(FILE_TYPES)
