"""Iterative quantisation (ITQ): the rotation of the principal components nearest to codes.

Shapes: n training rows, d columns, K bits.

Not responsible for the rotation itself (`model.rotation`).
"""

import jax
import numpy as np

from sigah_jax.baselines.linear import LinearHash, check_bits, project
from sigah_jax.devices import parallel
from sigah_jax.model.pca import BLOCK_ROWS, principal_directions
from sigah_jax.model.rotation import rotate


def fit(key: jax.Array, xt: np.ndarray, bits: int, iterations: int) -> LinearHash:
    """PCA to K components, then the rotation of `rotate`.

    Args:
        bits: K, 1 to d.
        iterations: alternations; 50 in the paper.

    Source: Gong and Lazebnik 2011 (CVPR), Iterative Quantization.
    """
    check_bits("ITQ", bits, xt.shape[1])
    mean, directions, _ = principal_directions(xt, bits)
    v = parallel.map_rows(project, BLOCK_ROWS)(LinearHash(mean, directions), xt)
    rotation, _ = rotate(key, v, bits, iterations)
    return LinearHash(mean, directions @ np.asarray(rotation))
