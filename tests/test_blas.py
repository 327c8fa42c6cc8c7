"""faiss computes with the kernels of the processor, as numpy does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOADED = """
import json, os, threadpoolctl
import sigah_jax.retrieval.euclidean
print(json.dumps([threadpoolctl.threadpool_info(), os.environ.get("OPENBLAS_CORETYPE")]))
"""


def processors(**variables) -> tuple[dict[str, str], str | None]:
    """What the OpenBLAS of numpy and of faiss took the processor for, and the variable afterwards.

    In a process of its own: both read the variable while they are loaded.
    """
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"} | variables
    out = subprocess.run(
        [sys.executable, "-c", LOADED], env=environment, capture_output=True, check=True, cwd=ROOT
    ).stdout
    libraries, variable = json.loads(out)
    blas = [lib for lib in libraries if lib["internal_api"] == "openblas"]
    owners = {"numpy": "numpy.libs", "faiss": "faiss_cpu.libs"}
    found = {
        owner: lib["architecture"]
        for owner, folder in owners.items()
        for lib in blas
        if folder in lib["filepath"]
    }
    if set(found) != set(owners):
        pytest.skip("not both of numpy and faiss bring an OpenBLAS here")
    return found, variable


def test_faiss_takes_the_processor_for_what_numpy_takes_it_for():
    found, variable = processors()
    same = {"Zen": "Haswell"}  # faiss's OpenBLAS has one name for both, which share their kernels
    assert found["faiss"] == same.get(found["numpy"], found["numpy"]) and variable is None


def test_a_variable_that_is_set_stands():
    found, variable = processors(OPENBLAS_CORETYPE="Nehalem")
    assert found == {"numpy": "Nehalem", "faiss": "Nehalem"} and variable == "Nehalem"


def test_no_module_imports_faiss_by_itself():
    for top in ("sigah_jax", "experiments", "launch"):
        for path in (ROOT / top).rglob("*.py"):
            lines = [line.strip() for line in path.read_text().splitlines()]
            own = path.name == "blas.py"
            assert own or not any(line.startswith(("import faiss", "from faiss")) for line in lines)
