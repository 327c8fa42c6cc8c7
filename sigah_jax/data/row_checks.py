"""Rows that no training can use are refused; outliers, with which it does worse, are told.

Shapes: n rows, d columns.
"""

import numpy as np

from sigah_jax.errors import BadInput
from sigah_jax.retrieval import evenly
from sigah_jax.retrieval.bad_rows import why_bad

BLOCK_ROWS = 8192  # checked at once
PRECISION_ROWS = 1000  # that `check_precision` looks at
LOST_SPREAD = 0.05  # ours: an error of a twentieth of the spread reorders near neighbours
MIDDLE_ROWS = 1000  # whose median `warn_of_outliers` takes for the middle
OUTLIER_SHARE = 0.01  # of the rows, at most
# ours: with one row of deep60k moved away, validation map (32 bits, 300 steps) falls from .533 to
# .523 at a variance of 10 times that of the others, .495 at 100, .449 at 1,000, .043 at 1,000,000.
# It is 1.0 on MNIST, tiny60k and deep60k, and below 10 for log-normal rows of σ = 2 and Student's t
# of two degrees of freedom
OUTLIER_VARIANCE = 100


def check_directions(x: np.ndarray, name: str) -> None:
    """Raises BadInput naming the first row of `x [n, d]` that is all zeros in float32."""
    for start in range(0, len(x), BLOCK_ROWS):
        zero = ~np.any(np.asarray(x[start : start + BLOCK_ROWS], np.float32), axis=1)
        if zero.any():
            row = start + int(zero.argmax())
            raise BadInput(f"{name}: {why_bad(x[row], row)}")


def check_finite(x: np.ndarray, name: str) -> None:
    """Raises BadInput naming the first row of `x [n, d]` whose squared norm float32 cannot hold.

    Those are rows with NaN, infinity or values so large that they or their squares overflow.
    """
    for start in range(0, len(x), BLOCK_ROWS):
        with np.errstate(over="ignore"):
            rows = np.asarray(x[start : start + BLOCK_ROWS], np.float32)
            bad = ~np.isfinite(np.einsum("ij,ij->i", rows, rows))
        if bad.any():
            row = start + int(bad.argmax())
            raise BadInput(f"{name}: {why_bad(x[row], row)}")


def warn_of_outliers(x: np.ndarray, rows: np.ndarray, name: str) -> str:
    """A warning that a few rows hold nearly all variance of `x [n, d] f32`; "" if none do.

    Features are scaled by the root of the mean squared distance to the middle, and a single row
    of 1e10 leaves all others a spread near 0. It is compared with that of the nearest 99 % of the
    rows. This is not an error: heavy tails are such rows too, and codes can be trained on them.

    Args:
        rows: `[n] i64`, the number of each row in `name`.
    """
    middle = np.median(x[:: -(-len(x) // MIDDLE_ROWS)], axis=0).astype(np.float64)
    squared = np.empty(len(x))
    for start in range(0, len(x), BLOCK_ROWS):
        apart = x[start : start + BLOCK_ROWS] - middle
        squared[start : start + BLOCK_ROWS] = np.einsum("ij,ij->i", apart, apart)
    kept = len(x) - int(OUTLIER_SHARE * len(x))
    usual = np.partition(squared, kept - 1)[:kept].mean()
    if not 0 < OUTLIER_VARIANCE * usual < squared.mean():
        return ""
    far, farthest = int((squared > OUTLIER_VARIANCE * usual).sum()), int(squared.argmax())
    return (
        f"{name}: row {rows[farthest]} lies {np.sqrt(squared[farthest] / usual):.1e} times as far "
        f"from the middle as other training rows, and rows more than "
        f"{np.sqrt(OUTLIER_VARIANCE):.0f} times as far ({far} of {len(x)}) have nearly all "
        "variance, so that codes tell the other rows apart less well; remove or repair them, or "
        "take logarithms of heavy-tailed columns"
    )


def check_precision(x: np.ndarray, name: str) -> None:
    """Raises BadInput if float32 blurs `x [n, d]`, as it does columns far from zero.

    On a sample of rows the error e of rounding is compared with the spread: it is too much if
    sqrt(E‖e - E e‖² / E‖x - E x‖²) > LOST_SPREAD. A constant error shifts all rows alike.
    """
    if np.can_cast(x.dtype, np.float32) or not len(x):
        return
    exact = np.asarray(evenly.of(x, PRECISION_ROWS), np.float64)
    error = exact.astype(np.float32) - exact
    lost, spread = error.var(axis=0).sum(), exact.var(axis=0).sum()
    if lost > LOST_SPREAD**2 * spread:
        raise BadInput(
            f"{name}: {x.dtype} columns lie so far from zero for their spread, or so near to it, "
            f"that float32 blurs the rows (by {np.sqrt(lost / spread):.0%} of the spread); "
            "subtract the mean row, or scale the rows"
        )
