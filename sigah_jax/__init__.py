"""SiGAH in JAX: binary codes for nearest-neighbour search, learned without labels.

    h = sigah_jax.fit(x, bits=128)                   # or sigah_jax.load("encoder.npz")
    codes = h.encode(x)
    distances, ids = sigah_jax.search(h, queries, codes, k=10)

Names are imported when they are asked for: the package alone does not import JAX.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers and editors, which know nothing of `__getattr__`
    from sigah_jax.encoder.hasher import Hasher
    from sigah_jax.encoder.radius import range_search
    from sigah_jax.encoder.searching import search
    from sigah_jax.errors import BadInput
    from sigah_jax.fitting import fit
    from sigah_jax.run.loading import load

__all__ = ["BadInput", "Hasher", "fit", "load", "range_search", "search"]
_MODULES = {
    "BadInput": "errors",
    "Hasher": "encoder.hasher",
    "fit": "fitting",
    "load": "run.loading",
    "range_search": "encoder.radius",
    "search": "encoder.searching",
}


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"sigah_jax.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
