"""Principal directions of a large training set.

Shapes: n training rows, d columns, p directions.

Not responsible for scaling features, or for rows whose squared norms float32 cannot hold: the
data package refuses those.
"""

from collections.abc import Iterator

import numpy as np

from sigah_jax.errors import BadInput

BLOCK_ROWS = 8192


def mean_row(xt: np.ndarray) -> np.ndarray:
    """Mean of the rows of xt [n, d], summed in float64 by blocks. Returns [d] f32."""
    total = sum(block.sum(axis=0, dtype=np.float64) for block in blocks(xt))
    return (total / len(xt)).astype(np.float32)


def principal_directions(xt: np.ndarray, p: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The p orthonormal directions of largest variance: argmax_P tr(Pᵀ C P), PᵀP = I.

    C = (1/n) Σ (x - mean)(x - mean)ᵀ is summed in float64 from float32 products of blocks,
    so that memory is one block and two d x d matrices, whatever n is.

    Args:
        xt: [n, d], any real dtype; an array in memory or a memory map.
        p: number of directions, 1 to d. Beyond the rank of xt they are arbitrary.

    Returns:
        mean [d] f32, directions [d, p] f32 and variances [p] f32 (divided by n, not by
        n - 1), from the largest variance down. Signs are those of `with_positive_peaks`.

    Raises:
        BadInput: sums of products overflow float32.
        ValueError: p is not in 1..d.
    """
    n, d = xt.shape
    if not 1 <= p <= d:
        raise ValueError(f"there are 1 to {d} principal directions of {d} columns; got {p}")
    mean = mean_row(xt)
    covariance = np.zeros((d, d))
    with np.errstate(over="ignore", invalid="ignore"):
        for block in blocks(xt):
            centred = block.astype(np.float32) - mean
            covariance += centred.T @ centred
    if not np.isfinite(covariance).all():
        raise BadInput(
            "principal directions: the training rows hold values so large that float32 "
            "overflows in sums of their products; scale them"
        )
    variances, directions = np.linalg.eigh(covariance / n)
    variances, directions = variances[::-1][:p], with_positive_peaks(directions[:, ::-1][:, :p])
    # A direction without variance comes out of eigh as a rounding error of either sign.
    return mean, directions.astype(np.float32), np.maximum(variances, 0).astype(np.float32)


def with_positive_peaks(columns: np.ndarray) -> np.ndarray:
    """Eigenvectors [m, p] with their signs settled.

    The entry of largest magnitude in a column, the first of equals, is positive.
    """
    peaks = columns[np.abs(columns).argmax(axis=0), np.arange(columns.shape[1])]
    return columns * np.where(peaks < 0, -1.0, 1.0)


def blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows [n, ...] in blocks of BLOCK_ROWS, so that memory is bounded whatever n is."""
    return (rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS))
