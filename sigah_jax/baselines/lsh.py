"""Locality-sensitive hashing by random hyperplanes, on mean-centred data.

Shapes: n training rows, d columns, K bits.
"""

import jax
import numpy as np

from sigah_jax.baselines.linear import LinearHash
from sigah_jax.model.pca import mean_row


def fit(key: jax.Array, xt: np.ndarray, bits: int) -> LinearHash:
    """K hyperplanes of standard normal direction through the mean of xt.

    A bit differs between x and y with probability angle(x - mean, y - mean) / π, so the
    Hamming distance estimates the angle. The data gives the mean alone.

    Any number of bits, also more than d.

    Source: Charikar 2002 (STOC), section 3; the centring is ours, as in the ITQ literature.
    """
    weights = jax.random.normal(key, (xt.shape[1], bits))
    return LinearHash(mean_row(xt), np.asarray(weights))
