"""Search among codes of which some rows are missing.

Shapes: Q queries, N rows of codes, W bytes a code, k neighbours.

Not responsible for how neighbours are found, nor for why a row is missing.
"""

from collections.abc import Callable

import numpy as np

from sigah_jax.retrieval import topk

COPY_BYTES = 1 << 28  # rows and their numbers that are copied at once

Find = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def search(
    find: Find, cb: np.ndarray, missing: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """`find(cb, k)` as if the rows `missing` were not there, by the row numbers in cb.

    The other rows are copied in blocks of `COPY_BYTES`, so that memory stays bounded.

    Args:
        find: gives (distances, row numbers), `[Q, k]` each, by (distance, row number).
        cb: `[N, W] u8`, also a memory map.
        missing: `[m] i64`, rising.
        k: 1 to N - m.
    """
    if not len(missing):
        return find(cb, k)
    rows, best = len(cb) - len(missing), []
    step = max(1, COPY_BYTES // (cb.shape[1] + 8))
    for start in range(0, rows, step):
        at = present(np.arange(start, min(start + step, rows)), missing)
        d, ids = find(cb[at], min(k, len(at)))
        best = [topk.merge([*best, (d, at[ids])], k)]
    return best[0]


def present(numbers: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Row numbers of the rows that are counted from 0 without those of `missing [m]`, rising."""
    return numbers + np.searchsorted(missing - np.arange(len(missing)), numbers, side="right")
