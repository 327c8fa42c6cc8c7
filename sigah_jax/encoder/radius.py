"""Search of all rows within a radius of a query by their codes: `sigah_jax.range_search`.

A row is found if the synthetic feature of its code lies near enough to the query's feature; how
near, the pairs of `encoder.calibration` say, which a training keeps with the encoder. The vectors,
where they are at hand, tell which of the rows found lie within the radius.

Shapes: Q queries, n base rows, W packed bytes, d columns, P features, t rows found in all.

Not responsible for the k nearest (`encoder.searching`) nor for files (`sigah_jax.search`).
"""

import math
import numbers
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sigah_jax.devices import parallel
from sigah_jax.encoder import calibration
from sigah_jax.encoder.hasher import Hasher
from sigah_jax.encoder.searching import asked, checked, naming, refuse_long, vectors_of
from sigah_jax.errors import BadInput
from sigah_jax.retrieval import gaps
from sigah_jax.retrieval import rerank as reranking
from sigah_jax.retrieval.metric import Metric, squared_limits, widest_radius

RECALL = 0.95
MOST_ROWS = 100_000  # whose pairs with validation queries are kept; of more, as many evenly
CALLS = 8  # of the decoder between two comparisons with all queries
SCORES = 1 << 22  # scores at once, 4 bytes each
SLACK = 1e-4  # by which scores may differ from distances, over the squared lengths they are made of


class Within(NamedTuple):
    """Rows within a radius of each query, those of query i from `lims[i]` to `lims[i + 1]`."""

    lims: np.ndarray  # [Q + 1] i64, as those of faiss
    distances: np.ndarray  # [t] f32
    ids: np.ndarray  # [t] i64
    recall: float  # on validation queries
    precision: float  # on validation queries, of what codes find


@parallel.default_settings()
def range_search(
    h: Hasher,
    queries: np.ndarray,
    packed: np.ndarray,
    radius: float,
    *,
    recall: float = RECALL,
    rerank: np.ndarray | None = None,
    missing: np.ndarray = (),
    only: np.ndarray | None = None,
) -> Within:
    """All base rows that probably lie within a radius of each query, by their codes.

    The bound of ‖β z - ẑ‖², see `Hasher.query_features`, is the smallest that finds the asked share
    of the rows within the radius of validation queries among the training rows. All codes are
    decoded, a block at a time; beside a block, memory holds what is found.

    Args:
        queries: `[Q, d]` vectors.
        packed: `[n, W] u1`, what `h.encode` made of the base; also a memory map.
        radius: R, by the metric of `h`. l2: the Euclidean distance, not squared; cosine: 1 - cos;
            ip: the least inner product. Rows exactly at R are within.
        recall: the share of the rows within R that is asked for, above 0 and below 1.
        rerank: `[n, d]`, the vectors that the codes are of; of the rows found those within R are
            kept. Also a memory map.
        missing, only: as in `searching.search`.

    Returns:
        The rows of each query by (distance, id), nearest first. Distances are ‖β z - ẑ‖², or with
        `rerank` what R is compared with: Euclidean, 1 - cos, or the inner product. `recall` and
        `precision` are what the bound reached on the validation queries; with `rerank` every row
        that is returned lies within R.

    Raises:
        BadInput: arguments that do not fit one another, rows that are not finite, an encoder
            without pairs, too few pairs for this radius and recall.
        TypeError: h is not a Hasher.
    """
    queries = np.asarray(asked(h, queries))
    with naming("queries"):
        z = h.query_features(queries)
    packed, missing, subset = checked(h, packed, missing, only)
    if rerank is not None:
        rerank = vectors_of(h, rerank, len(packed))
        refuse_long(h, queries, slice(0, None))
    found = calibrated(h, queries, radius, recall)
    none = np.empty(0, np.int64)
    parts = [(none, none.astype(np.float32), none)]  # numbers of queries, distances, ids
    for rows in gaps.blocks(len(packed), missing, subset, CALLS * h.call_rows):
        near = _near(z, found.bounds, h.decode(packed[rows]))
        parts += [(numbers, d, rows[at]) for numbers, d, at in near]
    numbers, d, ids = (np.concatenate(part) for part in zip(*parts, strict=True))
    del parts
    if rerank is not None:
        with naming("rerank"):
            d = reranking.of_pairs(queries, rerank, numbers, ids, h.metric)
        d, within = _compared(h.metric, d, radius)
        numbers, d, ids = numbers[within], d[within], ids[within]
    largest_first = rerank is not None and h.metric.name == "ip"
    order = np.lexsort((ids, -d if largest_first else d, numbers))
    lims = np.append(0, np.cumsum(np.bincount(numbers, minlength=len(z))))
    return Within(lims, d[order], ids[order], found.recall, found.precision)


def pairs_of(h: Hasher, xq: np.ndarray, xb: np.ndarray, packed: np.ndarray) -> calibration.Pairs:
    """What `range_search` needs of queries that were held out and rows: `Hasher.pairs`.

    Args:
        xq: `[V, d']`; xb: `[n, d']`: the points that `retrieval.metric` makes of queries and rows.
        packed: `[n, W] u1`, the codes of the rows.
    """
    h = h.euclidean
    return calibration.pairs(xq, xb, h.query_features(xq), h.decode(packed))


def calibrated(h: Hasher, queries: np.ndarray, radius: float, recall: float) -> calibration.Bounds:
    """Bounds of the synthetic distances of queries `[Q, d]`; BadInput where pairs cannot tell.

    Of ip the distance of points depends on the length of the query, so that each has its own bound.
    """
    ip = h.metric.name == "ip"
    for name, value in (("radius", radius), ("recall", recall)):
        if not isinstance(value, numbers.Real):
            raise BadInput(f"{name}={value!r}: expected a number")
        try:
            float(value)
        except OverflowError as e:
            raise BadInput(f"{name}: is too large a number for a float") from e
    if not math.isfinite(radius) or (radius < 0 and not ip):
        wanted = "a finite number" if ip else "a distance, 0 or more"
        raise BadInput(f"radius={radius}: expected {wanted}")
    if not 0 < recall < 1:
        raise BadInput(f"recall={recall}: expected a share above 0 and below 1")
    if h.pairs is None:
        raise BadInput(
            "radius: this encoder was saved without pairs of validation queries and rows, as those "
            "of checkpoints and of earlier versions are; take that of a finished run, or move "
            "encoder.npz of its run away, then the training's command writes it anew with them, "
            "unless a version with other defaults began the run"
        )
    limits, least = squared_limits(h.metric, radius, queries), calibration.least(h.pairs, recall)
    if len(limits) and not (limits >= least).any():
        remedy = "ask for a smaller recall"
        if least < math.inf:
            widest = widest_radius(h.metric, least, queries)
            # rounded to what is served
            widest += abs(widest) / (-1000 if ip else 1000)
            remedy = f"choose {widest:.4g} or {'less' if ip else 'more'}, or a smaller recall"
        raise BadInput(
            f"radius={radius}: too few rows lie within it of the {len(h.pairs.true)} validation "
            f"queries for recall={recall}; {remedy}"
        )
    return calibration.bounds(h.pairs, limits, recall)


def _near(
    z: np.ndarray, bounds: np.ndarray, z_hat: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of a query and a row of a block whose distance is at most the bound of the query.

    Matrix products sift them, and the distances of those that are left are sums of squared
    differences, so that equal rows are equally far.

    Args:
        z: `[Q, P]`; bounds: `[Q]`; z_hat: `[r, P] f32`.

    Yields:
        Numbers of queries, ‖β z - ẑ‖² f32 and places in the block, `[any]` each.
    """
    halves = np.einsum("rp,rp->r", z_hat, z_hat) / 2
    squared = np.einsum("qp,qp->q", z, z, dtype=np.float64)
    least = ((1 - SLACK) * squared - (1 + SLACK) * bounds) / 2  # of z·ẑ - ½‖ẑ‖²
    step = max(1, SCORES // len(z_hat))
    for start in range(0, len(z), step):
        part = slice(start, start + step)
        scores = z[part] @ z_hat.T
        scores -= halves
        q, at = np.divmod(np.flatnonzero(scores >= least[part, None]), len(z_hat))
        d = reranking.pair_distances(z, start + q, z_hat, at)
        near = d <= bounds[start + q]
        yield start + q[near], d[near], at[near]


def _compared(metric: Metric, d: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Distances of `rerank` as a radius is given, `[any] f32`, and which are within it."""
    with np.errstate(over="ignore"):  # all, or no, distances are within infinity
        limit = np.float32(radius)
    if metric.name == "ip":
        return -d, -d >= limit
    d = np.sqrt(d) if metric.name == "l2" else d
    return d, d <= limit
