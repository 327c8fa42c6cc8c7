"""Hyperplanes through the mean of the training set: the hash function of the linear methods.

Shapes: d columns, p directions, B rows of a batch, K bits.

Not responsible for packing codes, nor for where the hyperplanes come from.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sigah_jax.errors import BitsRefused


class LinearHash(NamedTuple):
    """K hyperplanes through the mean of the training set."""

    mean: np.ndarray  # [d] f32
    weights: np.ndarray  # [d, K] f32, one normal a column


def project(params: LinearHash, x: jax.Array) -> jax.Array:
    """Signed lengths (x - mean) W; code bit k is `project(...)[:, k] > 0`.

    Args:
        params: mean [d] f32, weights [d, K] f32.
        x: [B, d], any real dtype.

    Returns:
        [B, K] f32, in full float32 precision on every device: a bit is a sign, and a
        rounded product near zero flips it.
    """
    return jnp.matmul(x - params.mean, params.weights, precision="highest")


def check_bits(method: str, bits: int, d: int) -> None:
    """Raises BitsRefused if there are more bits than the d principal components of the data."""
    if bits > d:
        raise BitsRefused(
            f"bits: {method} takes principal components, one a bit, and the data has {d} columns; "
            f"got {bits} bits, use at most {d} or leave {method} out"
        )
