"""PCA with a random rotation (PCA-RR): the principal components, mixed.

Shapes: n training rows, d columns, K bits.
"""

import jax
import numpy as np

from sigah_jax.baselines.linear import LinearHash, check_bits
from sigah_jax.model.pca import principal_directions


def fit(key: jax.Array, xt: np.ndarray, bits: int) -> LinearHash:
    """The first K principal directions, turned by a uniformly random rotation.

    The rotation spreads the variance evenly over the bits; without it the last bits, of little
    variance, weigh as much as the first.

    Source: the random-rotation baseline of Jégou et al. 2010 (CVPR) and of Gong and
    Lazebnik 2011 (CVPR).
    """
    check_bits("PCA-RR", bits, xt.shape[1])
    mean, directions, _ = principal_directions(xt, bits)
    return LinearHash(mean, directions @ np.asarray(jax.random.orthogonal(key, bits)))
