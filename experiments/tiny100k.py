"""Tiny100K, 100,000 x 384 GIST: 1,000 random queries, the rest is base and training set.

The original file is not public. Without it, CIFAR-10 and CIFAR-100 stand in: see docs/data.md.

    python -m sigah_jax.data.download cifar
    python -m sigah_jax.main --config=experiments/tiny100k.py

Expected: not run on the original.
"""

from sigah_jax import config as base


def get_config(arguments: str = ""):
    """`arguments`: see `sigah_jax.config.get_config`."""
    config = base.get_config(arguments)
    config.data.name = "tiny100k"
    return config


def sweep(h):
    """Six lengths of code, three seeds each. `h`: `launch.grid`."""
    return h.product(h.sweep("bits", (16, 32, 48, 64, 96, 128)), h.sweep("seed", range(3)))
