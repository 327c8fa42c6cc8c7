"""SiGAH in JAX: binary codes for nearest-neighbour search, learned without labels.

`sigah_jax.fit(x)` trains an encoder on an array, `sigah_jax.hasher.load(workdir)` loads one.
"""

import importlib

__all__ = ["fit", "hasher"]


def __getattr__(name: str):
    """What is asked for, then: importing the package alone does not import JAX."""
    if name == "fit":
        return importlib.import_module("sigah_jax.fitting").fit
    if name == "hasher":
        return importlib.import_module("sigah_jax.encoder.hasher")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
