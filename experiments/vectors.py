"""Your own vectors: --config.data.base=my.npy [--config.data.queries=… --config.data.train=…].

    python -m sigah_jax.main --config=experiments/vectors.py:bits=128 --config.data.base=my.npy

Expected on 60,000 x 96 (deep60k) at 64 bits: 10 minutes on two CPU cores, 1.6 GB of memory and map
.69. Other lengths: docs/results.md.
"""

from sigah_jax import config as base


def get_config(arguments: str = ""):
    """`arguments`: see `sigah_jax.config.get_config`."""
    return base.vectors_config(arguments)


def sweep(h):
    """Three lengths of code. `h`: `launch.grid`."""
    return h.sweep("bits", (32, 64, 128))
