"""Signs of the principal components (PCAH): PCA without the rotation of PCA-RR and ITQ.

Shapes: n training rows, d columns, K bits.

Not responsible for packing codes. Every component is one bit, whatever its variance: bits of
little variance weigh as much as the first, and what a rotation gains is seen against this.
"""

import jax
import numpy as np

from sigah_jax.baselines.pca import LinearHash, principal_directions, project
from sigah_jax.errors import BitsRefused

__all__ = ["fit", "project"]


def fit(key: jax.Array, xt: np.ndarray, bits: int) -> LinearHash:
    """The first K principal directions, from the largest variance down, as hyperplanes.

    The first bits of a longer code are thus the shorter code.

    Args:
        key: not used, nothing is drawn; there for the common signature.
        xt: [n, d] training rows.
        bits: K, 1 to d.

    Raises:
        BadInput: bits > d.

    Source: the PCA baseline of Gong and Lazebnik 2011 (CVPR), called PCAH in the literature.
    """
    d = xt.shape[1]
    if bits > d:
        raise BitsRefused(
            f"bits: PCA signs are principal components, one a bit, and the data has {d} columns; "
            f"got {bits} bits, use at most {d} or leave PCA signs out"
        )
    mean, directions, _ = principal_directions(xt, bits)
    return LinearHash(mean, directions)
