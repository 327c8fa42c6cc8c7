"""MNIST, 70,000 x 784: 1,000 random queries, the rest is base and training set. Embedded.

    python -m sigah_jax.main --config=experiments/mnist.py
    python -m sigah_jax.main --config=experiments/mnist.py:bits=32

Expected at 64 bits: 10 to 14 minutes on two CPU cores and 2.3 GB of memory; on the test queries map
.78, recall@10 .41, in stages .63. Other lengths: docs/results.md.
"""

from sigah_jax import mnist

get_config = mnist.get_config


def sweep(h):
    """Six lengths of code, three seeds each. `h`: `launch.grid`."""
    return h.product(h.sweep("bits", (16, 32, 48, 64, 96, 128)), h.sweep("seed", range(3)))
