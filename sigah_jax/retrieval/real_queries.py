"""What a search by real-valued queries is worth: its ranking, its recall re-ranked, its time.

Shapes: Q queries, N base rows, d columns, k neighbours.

Not responsible for what ranks: a `Way` comes from the module that has the codes.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sigah_jax.retrieval import metrics, rankings, rerank

QUERIES = 1000  # of a data set that are ranked; the whole base is sorted for each
RANKED = 1 << 23  # distances at once
FOUND = 100  # rows that the timed search finds, and that are re-ranked
NEAREST = 10  # of them that are kept


class Way(NamedTuple):
    """A way to search a base for some queries."""

    distances: Callable[[slice], np.ndarray]  # of some of the queries to all rows, [q, N]
    search: Callable[[int], np.ndarray]  # k -> [Q, k] ids of the nearest, from the codes alone


def measure(way: Way, xq: np.ndarray, xb: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Metrics of the ranking of the whole base, and what a search that finds 100 rows adds.

    Args:
        xq: `[Q, d]`; xb: `[N, d]`: the vectors.
        truth: `[Q, k]` base ids of the nearest rows, in the order of `metrics.relevance_sizes`.

    Returns:
        The metrics of `metrics.by_query`, means over queries; `reranked`, recall@10 of the 100
        rows found, re-ranked by the vectors; `ms_per_query`, wall time of a search by all queries
        at once, without compilation.
    """
    values = score(way.distances, truth, len(xb))
    count = min(FOUND, len(xb))
    found, milliseconds = timed(lambda: way.search(count), len(xq))
    nearest = min(NEAREST, count)
    _, ids = rerank.rerank(xq, xb, found, nearest)
    hits = [np.isin(true, best).mean() for true, best in zip(truth[:, :nearest], ids, strict=True)]
    return values | {"reranked": float(np.mean(hits)), "ms_per_query": milliseconds}


def timed(search: Callable[[], np.ndarray], queries: int) -> tuple[np.ndarray, float]:
    """What a search by all queries returns, and its milliseconds a query without compilation."""
    search()
    start = time.monotonic()
    found = search()
    return found, 1000 * (time.monotonic() - start) / queries


def score(
    distances: Callable[[slice], np.ndarray], truth: np.ndarray, base_rows: int
) -> dict[str, float]:
    """Metrics of a ranking of the whole base by real distances; the base is sorted for each query.

    Args:
        distances: of some queries, `slice -> [q, N]`.
        truth: `[Q, k]` base ids, as in `measure`.
        base_rows: N.
    """
    sizes, found = metrics.relevance_sizes(base_rows), []
    step = max(1, RANKED // base_rows)
    for start in range(0, len(truth), step):
        part = slice(start, min(start + step, len(truth)))
        h = rankings.ranking_histograms(distances(part), truth[part], sizes)
        found.append(metrics.by_query(h))
    return {name: float(np.concatenate([f[name] for f in found]).mean()) for name in found[0]}
