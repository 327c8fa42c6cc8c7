"""SIFT1M, 1,000,000 x 128: official 10,000 queries; trained on the 100,000 of the learn split.

    python -m sigah_jax.data.download sift1m
    python -m sigah_jax.main --config=experiments/sift1m.py

Expected: not run.
"""

from sigah_jax import config as base


def get_config(arguments: str = ""):
    """`arguments`: see `sigah_jax.config.get_config`."""
    config = base.get_config(arguments)
    config.data.name = "sift1m"
    return config


def sweep(h):
    """Three lengths of code, three seeds each. `h`: `launch.grid`."""
    return h.product(h.sweep("bits", (32, 64, 128)), h.sweep("seed", range(3)))
