"""Hyperplanes through the mean of the training set: the hash function of the linear methods."""

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
    """Signed lengths (x - mean) W, `[B, d] -> [B, K] f32`."""
    return jnp.matmul(x - params.mean, params.weights, precision="highest")


def check_bits(method: str, bits: int, d: int) -> None:
    """Raises BitsRefused if there are more bits than the d principal components of the data."""
    if bits > d:
        raise BitsRefused(
            f"{method}: one bit takes one principal component, and the data has {d} columns; "
            f"got {bits} bits, use at most {d} or leave {method} out"
        )
