"""faiss, whose BLAS is told which processor it runs on.

The wheel of faiss carries OpenBLAS 0.3.15, of 2021. It takes processors that are younger for one of
2004, and then multiplies matrices several times more slowly (docs/speed.md). numpy carries a newer
OpenBLAS; its answer is passed on while faiss is loaded. A user's own `OPENBLAS_CORETYPE` stands.

All modules import faiss from here.
"""

import os
from types import ModuleType

import numpy  # noqa: F401  its OpenBLAS is loaded first
import threadpoolctl

VARIABLE = "OPENBLAS_CORETYPE"  # which OpenBLAS reads as it is loaded


def _faiss() -> ModuleType:
    loaded = threadpoolctl.threadpool_info()
    processors = [lib.get("architecture") for lib in loaded if lib["internal_api"] == "openblas"]
    processor = next(filter(None, processors), None)
    pass_on = processor is not None and VARIABLE not in os.environ
    if pass_on:
        os.environ[VARIABLE] = processor
    try:
        import faiss
    finally:
        if pass_on:
            del os.environ[VARIABLE]
    return faiss


faiss = _faiss()
