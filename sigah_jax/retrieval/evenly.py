"""Rows taken evenly from many, for what need not see all of them: the same in every run.

Not responsible for random ones (`baselines.sampling`).
"""

import numpy as np


def rows(n: int, most: int) -> np.ndarray:
    """The numbers of `min(n, most)` different rows of n, rising: `[m] i64`, the first one 0.

    The last is n - 1 unless m is 1.
    """
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)


def of(x: np.ndarray, most: int) -> np.ndarray:
    """x `[n, ...]` itself, or those `rows` of it if it has more than `most`."""
    return x if len(x) <= most else x[rows(len(x), most)]
