"""Principal directions of a large training set, and the baseline PCA + random rotation.

All baselines are linear hash functions on mean-centred rows: `LinearHash` and `project`
are theirs too.
Shapes: n training rows, d columns, p directions, B rows of a batch, K bits.

Not responsible for packing codes, for scaling features, or for rows whose squared norms
float32 cannot hold: the data package refuses those.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sigah_jax.errors import BadInput, BitsRefused

BLOCK_ROWS = 8192


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


def mean_row(xt: np.ndarray, block_rows: int = BLOCK_ROWS) -> np.ndarray:
    """Mean of the rows of xt [n, d], summed in float64 by blocks. Returns [d] f32."""
    total = sum(block.sum(axis=0, dtype=np.float64) for block in _blocks(xt, block_rows))
    return (total / len(xt)).astype(np.float32)


def principal_directions(
    xt: np.ndarray, p: int, block_rows: int = BLOCK_ROWS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The p orthonormal directions of largest variance: argmax_P tr(Pᵀ C P), PᵀP = I.

    C = (1/n) Σ (x - mean)(x - mean)ᵀ is summed in float64 from float32 products of blocks,
    so that memory is one block and two d x d matrices, whatever n is.

    Args:
        xt: [n, d], any real dtype; an array in memory or a memory map.
        p: number of directions, 1 to d. Beyond the rank of xt they are arbitrary.
        block_rows: rows a block; changes the result by rounding only.

    Returns:
        mean [d] f32, directions [d, p] f32 and variances [p] f32 (divided by n, not by
        n - 1), from the largest variance down. The sign of a direction is such that its
        entry of largest magnitude, the first of equals, is positive.

    Raises:
        BadInput: p is not in 1..d, or sums of products overflow float32.
    """
    n, d = xt.shape
    if not 1 <= p <= d:
        raise BitsRefused(
            f"principal directions: one a bit; got {p}, the data has {d} columns, use 1 to {d}"
        )
    mean = mean_row(xt, block_rows)
    covariance = np.zeros((d, d))
    with np.errstate(over="ignore", invalid="ignore"):
        for block in _blocks(xt, block_rows):
            centred = block.astype(np.float32) - mean
            covariance += centred.T @ centred
    if not np.isfinite(covariance).all():
        raise BadInput(
            "principal directions: the training rows hold values so large that float32 "
            "overflows in sums of their products; scale them"
        )
    variances, directions = np.linalg.eigh(covariance / n)
    variances, directions = variances[::-1][:p], directions[:, ::-1][:, :p]
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(p)]
    directions = directions * np.where(largest < 0, -1.0, 1.0)
    # A direction without variance comes out of eigh as a rounding error of either sign.
    return mean, directions.astype(np.float32), np.maximum(variances, 0).astype(np.float32)


def fit(key: jax.Array, xt: np.ndarray, bits: int) -> LinearHash:
    """PCA + random rotation (PCA-RR): the first `bits` principal directions, mixed by a rotation.

    The rotation, uniform over orthogonal matrices, spreads the variance evenly over the
    bits; without it the last bits, of little variance, weigh as much as the first.

    Args:
        key: PRNG key of the rotation.
        xt: [n, d] training rows.
        bits: K, 1 to d.

    Raises:
        BadInput: bits > d.

    Source: the random-rotation baseline of Jégou et al. 2010 (CVPR) and of Gong and
    Lazebnik 2011 (CVPR).
    """
    mean, directions, _ = principal_directions(xt, bits)
    rotation = np.asarray(jax.random.orthogonal(key, bits))
    return LinearHash(mean, directions @ rotation)


def _blocks(xt: np.ndarray, block_rows: int) -> Iterator[np.ndarray]:
    return (xt[start : start + block_rows] for start in range(0, len(xt), block_rows))
