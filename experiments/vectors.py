"""Anybody's vectors: --config.data.base=my.npy [--config.data.queries=… --config.data.train=…]."""

from sigah_jax import config as base


def get_config(arguments: str = ""):
    """`arguments`: see `sigah_jax.config.get_config`."""
    config = base.get_config(arguments)
    config.data.name = "vectors"
    config.data.train_rows = 100_000  # ours: the exact neighbour graph of more takes long on CPU
    return config
