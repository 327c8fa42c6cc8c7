"""Sign bits of the coordinates themselves: one bit a column, set above the column's mean.

This is the binary quantisation of embedding stores, with the centring that they leave out:
`x > 0` is a constant bit wherever a column does not change sign.

Not responsible for other numbers of bits. The first K columns would be a rule for embeddings
whose columns are sorted by weight; of pixels or of most features they are an arbitrary part,
and the figures would be those of the order of the columns. `pca_sign` sorts them first.
"""

from typing import NamedTuple

import jax
import numpy as np

from sigah_jax.errors import BitsRefused
from sigah_jax.model.pca import mean_row


class Signs(NamedTuple):
    """The threshold of every column."""

    mean: np.ndarray  # [d] f32


def fit(key: jax.Array, xt: np.ndarray, bits: int) -> Signs:
    """The mean of every column is its threshold; K must be d."""
    d = xt.shape[1]
    if bits != d:
        raise BitsRefused(
            f"bits: sign bits are one a column, and the data has {d} columns; "
            f"got {bits} bits, use {d} or leave sign bits out"
        )
    return Signs(mean_row(xt))


def project(params: Signs, x: jax.Array) -> jax.Array:
    """x - mean, `[B, d] -> [B, d] f32`.

    No rounding can flip a bit of float32 rows: a difference of two unequal numbers keeps its sign.
    """
    return x - params.mean
