"""Deep1M, 1,000,000 x 96: official 10,000 queries; trained on rows of the learn split.

    python -m sigah_jax.data.download deep1m
    python -m sigah_jax.main --config=experiments/deep1m.py

Expected: not run on the real data. A stand-in with 400 steps took 3 minutes on two CPU cores and
3.2 GB of memory, before codes were refined (docs/speed.md).
"""

from sigah_jax import config as base


def get_config(arguments: str = ""):
    """`arguments`: see `sigah_jax.config.get_config`."""
    config = base.get_config(arguments)
    config.data.name = "deep1m"
    config.data.train_rows = 100_000  # ours: the exact neighbour graph of more takes long on CPU
    return config


def sweep(h):
    """Six lengths of code, three seeds each. `h`: `launch.grid`."""
    return h.product(h.sweep("bits", (16, 32, 48, 64, 96, 128)), h.sweep("seed", range(3)))
