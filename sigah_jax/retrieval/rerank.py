"""Re-ranking: the nearest of each query's candidates, by exact distance of vectors.

Shapes: Q queries, c candidates a query, N base rows, d columns, k neighbours, p pairs of a query
and a candidate. Euclidean distances are squared. Ties go to the lower id.

Not responsible for finding candidates (`hamming`, `asymmetric`) nor for decoding codes to vectors.
"""

from collections.abc import Callable

import numpy as np

from sigah_jax.errors import BadInput
from sigah_jax.process.blas import faiss
from sigah_jax.retrieval import hamming, topk
from sigah_jax.retrieval.bad_rows import why_bad
from sigah_jax.retrieval.metric import L2, Metric, unit

PAIRS = 1 << 24  # pairs at once, about 80 bytes each
ROW_BYTES = 1 << 26  # vectors at once, of those that must be converted or decoded

Compare = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def rerank(
    xq: np.ndarray, base: np.ndarray, candidates: np.ndarray, k: int, metric: Metric = L2
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of each query's candidates, by the original vectors.

    Distances are float32 sums of squared differences: equal rows are equally far, and whole
    numbers whose squared distances stay below 2²⁴ have no rounding. Those of cosine are 1 - cos,
    half of that sum of unit rows; those of ip are -q·x, the sums of products with their sign
    changed, whole numbers below 2²⁴ without rounding. Base rows are read by rising id, each once
    for all queries, so the base may be a memory map larger than memory.

    Args:
        xq: `[Q, d]`, integers or floats.
        base: `[N, d]`, integers or floats.
        candidates: `[Q, c]` base ids, distinct in a row, in any order. -1 stands for none, as
            faiss fills places that it finds no row for, and may come often.
        k: 1 to c.
        metric: what is near.

    Returns:
        D `[Q, k] f32` distances and I `[Q, k] i64`, sorted by (distance, id). Where a query has
        fewer than k candidates, the last places are -1 at infinite distance.

    Raises:
        BadInput: k is not from 1 to c, a distance is not finite, or a row has no cosine (the row
            is named).
        ValueError: shapes that do not fit one another, candidates that are not base ids or -1, or
            an id twice among those of a query.
    """
    xq, base = np.asanyarray(xq), np.asanyarray(base)
    if xq.ndim != 2 or base.ndim != 2 or xq.shape[1] != base.shape[1]:
        raise ValueError(f"rows must be [Q, d] and [N, d]; got {xq.shape} and {base.shape}")

    if metric.name == "cosine":
        xq = _directions(xq, np.arange(len(xq)), "query")
    return nearest(xq, candidates, len(base), k, _comparing(base, metric))


def of_pairs(
    xq: np.ndarray, base: np.ndarray, queries: np.ndarray, ids: np.ndarray, metric: Metric = L2
) -> np.ndarray:
    """The distances of `rerank` of queries[i] and base row ids[i], in any order: `[p] f32`.

    Args:
        xq: `[Q, d]`; base: `[N, d]`: as in `rerank`.
        queries, ids: `[p] i64`, numbers of rows of xq and base, which is not checked.

    Raises:
        BadInput: a distance is not finite, or a row has no cosine (the row is named).
    """
    xq, base = np.asanyarray(xq), np.asanyarray(base)
    if metric.name == "cosine":
        xq = _directions(xq, np.arange(len(xq)), "query")
    x, compare = _as_float32(xq), _comparing(base, metric)
    d = np.empty(len(ids), np.float32)
    for start in range(0, len(ids), PAIRS):
        order = start + np.argsort(ids[start : start + PAIRS], kind="stable")
        d[order] = compare(x, queries[order], ids[order])
    _check_finite(d, ids, x, lambda place: queries[place])
    return d


def _comparing(base: np.ndarray, metric: Metric) -> Compare:
    """The distances of pairs of `nearest`, by this metric."""

    def compare(x: np.ndarray, queries: np.ndarray, ids: np.ndarray) -> np.ndarray:
        if metric.name == "cosine":
            units = lambda rows: _directions(base[rows], rows, "base row")  # noqa: E731
            return block_distances(x, queries, ids, units) / 2
        pairs = minus_products if metric.name == "ip" else pair_distances
        if base.dtype == np.float32 and base.flags.c_contiguous:
            return pairs(x, queries, base, ids)
        return block_distances(x, queries, ids, lambda rows: base[rows], pairs)

    return compare


def _check_finite(
    d: np.ndarray, ids: np.ndarray, x: np.ndarray, query_of: Callable[[int], int], first: int = 0
) -> None:
    """BadInput that names the query or base row of the first pair whose distance is not finite.

    Args:
        d, ids: `[p]`; where an id is -1, no distance is asked for.
        x: `[q, d] f32`, the queries from number `first` on; query_of: the place in x of a pair.
    """
    if (good := np.isfinite(d) | (ids < 0)).all():
        return
    place = int(good.argmin())
    query, row = query_of(place), f"base row {ids[place]}"
    with np.errstate(over="ignore"):
        if not np.isfinite(np.dot(x[query], x[query])):
            row = f"query {first + query}"
    raise BadInput(
        f"{row}: holds NaN, infinity or values whose squared distance overflows float32; remove "
        "or repair it"
    )


def _directions(x: np.ndarray, numbers: np.ndarray, what: str) -> np.ndarray:
    """Unit rows; BadInput for one that is zeros in float32, named by its number."""
    rows = _as_float32(x)
    if not (there := np.any(rows, axis=1)).all():
        place = int(there.argmin())
        raise BadInput(f"{what} {why_bad(x[place], numbers[place]).removeprefix('row ')}")
    return unit(rows)


def nearest(
    xq: np.ndarray, candidates: np.ndarray, rows: int, k: int, compare: Compare
) -> tuple[np.ndarray, np.ndarray]:
    """`rerank` by distances of any origin.

    Args:
        rows: N.
        compare: `(x [q, d] f32, queries [p] i64, ids [p] i64) -> [p] f32`, the distances of
            x[queries[i]] and base row ids[i]; ids do not fall, p >= 1.
    """
    xq, candidates = np.asarray(xq), np.asarray(candidates)
    _check(xq, candidates, rows, k)
    d = np.empty((len(xq), k), np.float32)
    found = np.empty((len(xq), k), np.int64)
    count = candidates.shape[1]
    step = max(1, PAIRS // count)
    for start in range(0, len(xq), step):
        x = _as_float32(xq[start : start + step])
        if not (good := np.isfinite(x).all(axis=1)).all():
            row = start + int(good.argmin())
            raise BadInput(f"query {row}: holds NaN or infinity; remove or repair it")
        ids = np.sort(candidates[start : start + step].astype(np.int64), axis=1)
        if ((ids[:, 1:] == ids[:, :-1]) & (ids[:, 1:] >= 0)).any():
            raise ValueError("candidates must be distinct ids in each row; got an id twice")
        pairs = ids.ravel()
        order = np.argsort(pairs)[np.count_nonzero(pairs < 0) :]
        distances = np.full(ids.size, np.inf, np.float32)
        if len(order):
            distances[order] = compare(x, order // count, pairs[order])
        _check_finite(distances, pairs, x, lambda place: place // count, start)
        # by place instead of id, which may be -1: ids rise by place
        part = slice(start, start + step)
        d[part], places = topk.nearest_first(distances.reshape(ids.shape), np.arange(count), k)
        found[part] = np.take_along_axis(ids, places, 1)
    return d, found


def pair_distances(
    x: np.ndarray, queries: np.ndarray, rows: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """Squared distances of x[queries[i]] and rows[places[i]]: `[p] f32`.

    Args:
        x: `[q, d] f32`; rows: `[n, d] f32`; both stored by rows.
        queries, places: `[p] i64`.
    """
    return _of_pairs(faiss.pairwise_indexed_L2sqr, x, queries, rows, places)


def minus_products(
    x: np.ndarray, queries: np.ndarray, rows: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """-x[queries[i]] · rows[places[i]], as `pair_distances`: smaller is nearer."""
    return -_of_pairs(faiss.pairwise_indexed_inner_product, x, queries, rows, places)


def _of_pairs(function: Callable, x, queries, rows, places) -> np.ndarray:
    out = np.empty(len(queries), np.float32)
    arrays = x, queries, rows, places  # all contiguous and alive during the call
    pointers = (faiss.swig_ptr(a) for a in arrays)
    function(x.shape[1], len(out), *pointers, faiss.swig_ptr(out))
    return out


def block_distances(
    x: np.ndarray,
    queries: np.ndarray,
    keys: np.ndarray,
    read: Callable[[np.ndarray], np.ndarray],
    pairs: Callable = pair_distances,
) -> np.ndarray:
    """`pairs`, or squared distances, of x[queries[i]] and the vector of keys[i]: `[p] f32`.

    Args:
        keys: `[p] i64` that do not fall.
        read: `(rising distinct keys [n]) -> [n, d]` their vectors; each key is read once, in
            blocks of `ROW_BYTES`.
    """
    out = np.empty(len(keys), np.float32)
    first = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))  # of each distinct key
    # a power of two: `read` may compute in blocks of its own, and would fill up an odd rest
    step = 1 << max(0, (ROW_BYTES // (4 * x.shape[1])).bit_length() - 1)
    for start in range(0, len(first), step):
        firsts = first[start : start + step]
        stop = first[start + step] if start + step < len(first) else len(keys)
        part = slice(firsts[0], stop)
        rows = _as_float32(read(keys[firsts]))
        if rows.shape != (len(firsts), x.shape[1]):
            raise ValueError(
                f"{len(firsts)} vectors of d = {x.shape[1]} are compared; got {list(rows.shape)}"
            )
        places = np.repeat(np.arange(len(firsts)), np.diff(firsts, append=stop))
        out[part] = pairs(x, queries[part], rows, places)
    return out


def _as_float32(x: np.ndarray) -> np.ndarray:
    """x, stored by rows; too large a value becomes infinite, whose row is told as bad."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(x, np.float32)


def _check(xq: np.ndarray, candidates: np.ndarray, rows: int, k: int) -> None:
    if candidates.ndim != 2 or len(candidates) != len(xq) or candidates.dtype.kind not in "iu":
        raise ValueError(
            f"candidates must be whole numbers [Q, c] with Q = {len(xq)} queries; "
            f"got {candidates.dtype} {candidates.shape}"
        )
    if candidates.size and not -1 <= candidates.min() <= candidates.max() < rows:
        raise ValueError(
            f"candidates must be ids of the {rows} base rows, or -1 for none; "
            f"got ids from {candidates.min()} to {candidates.max()}"
        )
    hamming.check_k(k, candidates.shape[1])
