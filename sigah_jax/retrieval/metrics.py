"""Metrics of Hamming ranking in closed form, expected over a random order inside ties.

Shapes: Q queries, K bits. `total` and `relevant` are `[Q, K+1]` counts at each distance 0..K.
Every query must have a relevant row.

Source of the tie-aware form: McSherry & Najork 2008; He et al. 2018.
Not responsible for counting: `histograms`.
"""

import numpy as np

from sigah_jax.retrieval.histograms import Histograms

SETS = ("nearest", "nearest10", "top1000", "top2percent")


def set_sizes(base_rows: int) -> tuple[int, int, int, int]:
    """Sizes of `SETS` in a base of N rows: 1, 10, 1000 and 2 % rounded half up, each 1 to N."""
    return tuple(max(1, min(base_rows, n)) for n in (1, 10, 1000, int(0.02 * base_rows + 0.5)))


def average_precision(total: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Average precision over the full ranking: `[Q, K+1], [Q, K+1] -> [Q]`.

    n rows tie, r of them relevant, after N rows with R relevant. The i-th of the tie is relevant
    with probability r/n, and then R + 1 + (i - 1)(r - 1)/(n - 1) of the first N + i are. With
    H = Σ_i 1/(N + i) the tie adds (r/n) [(R + 1) H + (r - 1)/(n - 1) (n - (N + 1) H)].
    """
    n, r = total.astype(np.float64), relevant.astype(np.float64)
    before, found = np.cumsum(n, 1) - n, np.cumsum(r, 1) - r
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, total.sum(1).max() + 1))])
    h = harmonic[np.cumsum(total, 1)] - harmonic[np.cumsum(total, 1) - total]
    slope = (r - 1) / np.maximum(n - 1, 1)
    slope[total <= 1] = 0.0
    gain = r / np.maximum(n, 1) * ((found + 1) * h + slope * (n - (before + 1) * h))
    return gain.sum(1) / r.sum(1)


def relevant_within(total: np.ndarray, relevant: np.ndarray, first: int) -> np.ndarray:
    """Expected relevant rows among the first `first`: `[Q, K+1], [Q, K+1] -> [Q]`."""
    before = np.cumsum(total, 1) - total
    taken = np.clip(first - before, 0, total)
    return (relevant * (taken / np.maximum(total, 1))).sum(1)


def precision_at(total: np.ndarray, relevant: np.ndarray, first: int) -> np.ndarray:
    """Expected share of relevant rows among the first `first`: `-> [Q]`."""
    return relevant_within(total, relevant, first) / np.minimum(first, total.sum(1))


def recall_at(total: np.ndarray, relevant: np.ndarray, first: int) -> np.ndarray:
    """Expected share of the relevant rows that are among the first `first`: `-> [Q]`."""
    return relevant_within(total, relevant, first) / relevant.sum(1)


def pr_curve(total: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall within each Hamming radius 0..K, pooled over all query-base pairs.

    Returns:
        (precision `[K+1]`, recall `[K+1]`); precision is NaN at radii that retrieve nothing.
    """
    retrieved, hits = np.cumsum(total.sum(0)), np.cumsum(relevant.sum(0))
    with np.errstate(invalid="ignore"):
        return hits / retrieved, hits / hits[-1]


def area_rp(total: np.ndarray, relevant: np.ndarray) -> float:
    """Area under `pr_curve` over radii 0..K-1: the "mAP" of the author's earlier public code.

    Trapezoid over unique recalls (the first radius of each), with a flat start at the precision
    of the first radius that retrieves anything.
    """
    precision, recall = (v[:-1] for v in pr_curve(total, relevant))
    some = ~np.isnan(precision)
    recall, first = np.unique(recall[some], return_index=True)
    precision = precision[some][first]
    if not len(recall):
        return 0.0
    return float(recall[0] * precision[0] + np.trapezoid(precision, recall))


def summary(histograms: Histograms) -> dict[str, float]:
    """All metrics of a run, by the keys of results.json. `relevant` is in the order of `SETS`."""
    total = histograms.total
    sets = dict(zip(SETS, histograms.relevant, strict=True))
    out = {
        "map": average_precision(total, sets["top2percent"]).mean(),
        "map@1000": average_precision(total, sets["top1000"]).mean(),
        "area_rp": area_rp(total, sets["top2percent"]),
        "precision@100": precision_at(total, sets["top1000"], 100).mean(),
    }
    for first in (1, 10, 100, 1000):
        out[f"recall@{first}"] = recall_at(total, sets["nearest10"], first).mean()
    for first in (1, 10, 100):
        out[f"1-recall@{first}"] = recall_at(total, sets["nearest"], first).mean()
    return {name: float(value) for name, value in out.items()}
