"""SiGAH in JAX: binary codes for nearest-neighbour search, learned without labels.

`sigah_jax.fit(x)` trains an encoder on an array, `sigah_jax.hasher.load(workdir)` loads one.
"""

__all__ = ["fit"]


def __getattr__(name: str):
    """`fit` when it is asked for: importing the package alone does not import JAX."""
    if name == "fit":
        from sigah_jax.fitting import fit

        return fit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
