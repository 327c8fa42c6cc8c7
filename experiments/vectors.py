"""Anybody's vectors: --config.data.base=my.npy [--config.data.queries=… --config.data.train=…]."""

from sigah_jax import config as base


def get_config(arguments: str = ""):
    """`arguments`: see `sigah_jax.config.get_config`."""
    return base.vectors_config(arguments)


def sweep(h):
    """Three lengths of code. `h`: `launch.grid`."""
    return h.sweep("bits", (32, 64, 128))
