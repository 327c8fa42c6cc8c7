"""Signs of the principal components (PCAH): PCA without the rotation of PCA-RR and ITQ.

Shapes: n training rows, d columns, K bits.

Every component is one bit, whatever its variance: bits of little variance weigh as much as the
first, and what a rotation gains is seen against this.
"""

import jax
import numpy as np

from sigah_jax.baselines.linear import LinearHash, check_bits
from sigah_jax.model.pca import principal_directions


def fit(key: jax.Array, xt: np.ndarray, bits: int) -> LinearHash:
    """The first K principal directions, from the largest variance down, as hyperplanes.

    The first bits of a longer code are thus the shorter code.

    Source: the PCA baseline of Gong and Lazebnik 2011 (CVPR), called PCAH in the literature.
    """
    check_bits("PCA signs", bits, xt.shape[1])
    mean, directions, _ = principal_directions(xt, bits)
    return LinearHash(mean, directions)
