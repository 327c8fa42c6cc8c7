"""Rankings by real distances as histograms, so that `metrics` reads them as it reads Hamming's.

Shapes: Q queries, N base rows, k true neighbours a query, S relevance sets.

A ranking of N rows would have as many groups of ties as rows. What metrics need are the groups that
hold a relevant row, and how many rows are between them: 2 k + 1 groups at most.

Not responsible for what is relevant (`neighbours`) nor for distances.
"""

from collections.abc import Sequence

import numpy as np

from sigah_jax.retrieval.histograms import Histograms


def ranking_histograms(d: np.ndarray, truth: np.ndarray, sizes: Sequence[int]) -> Histograms:
    """Counts of the groups that hold relevant rows, by rising distance, and of the rows between.

    Args:
        d: `[Q, N]` distances of any kind, finite; equal ones tie.
        truth: `[Q, k]` base ids; the first s columns are the s nearest, for each size s.
        sizes: of the S relevance sets, 1 to k.

    Returns:
        Groups 2 j are the rows without a relevant one before group 2 j + 1; empty groups of some
        queries are at the end.

    Raises:
        ValueError: shapes that do not fit one another, distances that are not finite.
    """
    if d.ndim != 2 or truth.ndim != 2 or len(d) != len(truth) or max(sizes) > truth.shape[1]:
        raise ValueError(f"distances {d.shape} and neighbours {truth.shape} do not fit {sizes}")
    if not np.isfinite(d).all():
        raise ValueError("distances must be finite")
    count = 2 * truth.shape[1] + 1
    total = np.zeros((len(d), count), np.int64)
    relevant = np.zeros((len(sizes), len(d), count), np.int64)
    for q, (row, ids) in enumerate(zip(d, truth, strict=True)):
        ordered, near = np.sort(row), row[ids]
        first, group = np.unique(np.searchsorted(ordered, near, "left"), return_inverse=True)
        last = np.zeros_like(first)
        last[group] = np.searchsorted(ordered, near, "right")
        total[q, 1 : 2 * len(first) : 2] = last - first
        total[q, : 2 * len(first) : 2] = first - np.append(0, last[:-1])
        total[q, 2 * len(first)] = row.size - last[-1]
        for s, size in enumerate(sizes):
            relevant[s, q] = np.bincount(2 * group[:size] + 1, minlength=count)
    return Histograms(total, relevant)
