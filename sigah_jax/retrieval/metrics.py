"""Hamming metrics in closed form from distance histograms, expected over the order of ties.

Shapes: Q queries, K bits; `total` and `relevant` are `[Q, K + 1]`, the rows, and the relevant
rows, at each Hamming distance. A distance is one group of ties, and every value here is the
mean over all orders inside each group, equally likely (McSherry & Najork 2008, Computing
Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores). All
arithmetic is in float64.

What is relevant has no ties: of base rows at one Euclidean distance on the border of a relevance
set those of lower id are in it, so that every set has its size and all methods are compared by the
same sets. The order of the base says nothing of the codes, so this is one fair draw of the ties. On
MNIST, tiny60k and deep60k no border of 150 test queries has a tie. Rows of whole numbers have many:
there no ranking reaches 1, and `sigah_jax.measure` counts by distance.

Not responsible for counting (`histograms`) or for what is relevant (`neighbours`).
"""

from typing import NamedTuple

import numpy as np
from scipy import special

from sigah_jax.retrieval.histograms import Histograms

RECALL_AT = (1, 10, 100, 1000, 10000)
NEAREST_RECALL_AT = (1, 10, 100)


class RelevanceSizes(NamedTuple):
    """How many nearest neighbours are relevant, in the order of `Histograms.relevant`."""

    nearest: int
    nearest10: int
    top1000: int
    top2percent: int


def relevance_sizes(base_rows: int) -> RelevanceSizes:
    """The sizes for a base of N rows: 1, 10, 1,000 and 2 % of N, none above N.

    2 % of N is rounded to the nearest, halves up, and is at least 1.
    """
    if base_rows < 1:
        raise ValueError(f"a base has at least one row; got {base_rows}")
    two_percent = (base_rows + 25) // 50
    return RelevanceSizes(
        1, min(10, base_rows), min(1000, base_rows), max(1, min(two_percent, base_rows))
    )


def summary(histograms: Histograms) -> dict[str, float]:
    """All metrics of one search, by the keys of `results.json`.

    Args:
        histograms: with the relevance sets of `relevance_sizes`, in its order.

    Returns:
        `map`, `area_rp` (relevant: top 2 %), `map@1000`, `precision@100` (relevant: top 1,000),
        `recall@R` (share of the 10 nearest within the first R) and `1-recall@R` (the nearest
        within the first R), means over queries except for `area_rp`.
    """
    each = {name: float(values.mean()) for name, values in by_query(histograms).items()}
    area = area_rp(histograms.total, RelevanceSizes(*histograms.relevant).top2percent)
    return {"map": each.pop("map"), "area_rp": float(area)} | each


def by_query(histograms: Histograms) -> dict[str, np.ndarray]:
    """The metrics of `summary` that are means over queries, `[Q]` each, before the mean."""
    total, sets = histograms
    if len(sets) != len(RelevanceSizes._fields):
        raise ValueError(
            f"metrics read the sets {', '.join(RelevanceSizes._fields)}; got {len(sets)} sets"
        )
    relevant = RelevanceSizes(*sets)
    values = {
        "map": average_precision(total, relevant.top2percent),
        "map@1000": average_precision(total, relevant.top1000),
        "precision@100": precision_at(total, relevant.top1000, 100),
    }
    for r in RECALL_AT:
        values[f"recall@{r}"] = recall_at(total, relevant.nearest10, r)
    for r in NEAREST_RECALL_AT:
        values[f"1-recall@{r}"] = recall_at(total, relevant.nearest, r)
    return values


def average_precision(total: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Average precision of the whole ranking, `[Q]`.

    For a group of n rows, r of them relevant, after N rows, R of them relevant, the expected
    sum of precision over its relevant rows is
        (r / n) Σ_{i=1..n} (R + 1 + (i - 1) (r - 1) / (n - 1)) / (N + i)
        = (r / n) [(R + 1) H + (r - 1) / (n - 1) (n - (N + 1) H)],  H = H_{N+n} - H_N,
    with second part 0 for n = 1; the sum over groups is divided by the number of relevant rows.
    """
    n, r = _counts(total, relevant)
    after = np.cumsum(n, axis=1)
    before = after - n
    relevant_before = np.cumsum(r, axis=1) - r
    h = _harmonic(after) - _harmonic(before)
    inside = (r - 1) / np.maximum(n - 1, 1) * (n - (before + 1) * h)
    sums = r / np.maximum(n, 1) * ((relevant_before + 1) * h + np.where(n > 1, inside, 0))
    return sums.sum(axis=1) / r.sum(axis=1)


def precision_at(total: np.ndarray, relevant: np.ndarray, rows: int) -> np.ndarray:
    """The relevant share of the first `rows` rows, `[Q]`; of all rows where there are fewer."""
    n, r = _counts(total, relevant)
    return _hits(n, r, rows) / np.minimum(rows, n.sum(axis=1))


def recall_at(total: np.ndarray, relevant: np.ndarray, rows: int) -> np.ndarray:
    """The share of the relevant rows that is within the first `rows` rows, `[Q]`."""
    n, r = _counts(total, relevant)
    return _hits(n, r, rows) / r.sum(axis=1)


def pr_curve(total: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall within each Hamming radius 0..K, pooled over query-base pairs.

    Returns:
        precision `[K + 1]`, NaN at a radius within which no pair is retrieved, and recall
        `[K + 1]`, which never falls.
    """
    n, r = _counts(total, relevant)
    retrieved, hits = np.cumsum(n.sum(axis=0)), np.cumsum(r.sum(axis=0))
    precision = np.where(retrieved > 0, hits / np.maximum(retrieved, 1), np.nan)
    return precision, hits / hits[-1]


def area_rp(total: np.ndarray, relevant: np.ndarray) -> float:
    """The area under `pr_curve` over radii 0..K-1: the "mAP" of OCH (AAAI 2017) and OEH (2016).

    Trapezoids between the distinct recalls, each with the precision of its first radius. The
    curve starts flat, at recall 0 and the precision of radius 0. If radius 0 retrieves nothing,
    it starts at the precision of the first radius that retrieves a relevant pair; if it retrieves
    only irrelevant pairs, at (0, 0). The curve ends at radius K - 1 and is not extended to
    recall 1. (Their code ends one radius below the largest distance of any pair, which cuts the
    last sliver of recall where no pair is at distance K.)
    """
    precision, recall = pr_curve(total, relevant)
    recall, first = np.unique(recall[:-1], return_index=True)
    precision = precision[first]
    if recall[0] > 0:
        recall, precision = np.append(0, recall), np.append(precision[0], precision)
    elif np.isnan(precision[0]) and len(precision) > 1:
        precision[0] = precision[1]
    return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2))


def _counts(total: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both histograms as float64, which holds whole numbers to 2⁵³.

    ValueError if shapes differ, counts cannot be, or a query has no relevant row.
    """
    if total.ndim != 2 or total.shape != relevant.shape:
        raise ValueError(
            f"total and relevant must both be [Q, K + 1]; got {total.shape} and {relevant.shape}"
        )
    if (relevant < 0).any() or (relevant > total).any():
        raise ValueError("relevant must count rows among those of total, from 0 to total")
    if not relevant.any(axis=1).all():
        raise ValueError("every query must have a relevant row; got a query without one")
    return total.astype(np.float64), relevant.astype(np.float64)


def _hits(n: np.ndarray, r: np.ndarray, rows: int) -> np.ndarray:
    """Expected relevant rows among the first `rows`, `[Q]`: a cut group gives its share."""
    if rows < 1:
        raise ValueError(f"the first rows must be at least one; got {rows}")
    before = np.cumsum(n, axis=1) - n
    taken = np.clip(rows - before, 0, n)
    return np.sum(taken / np.maximum(n, 1) * r, axis=1)


def _harmonic(n: np.ndarray) -> np.ndarray:
    """H_n = Σ_{i=1..n} 1 / i for whole n >= 0."""
    return special.digamma(n + 1.0) + np.euler_gamma
