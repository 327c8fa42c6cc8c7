"""Ground truth: which base rows are the s nearest of a query, for several s, certified in float64.

Shapes: Q queries, N base rows, d columns, q queries of one chunk, c candidates. Distances are
squared and Euclidean; ties go to the lower id. The top 2 % of a million rows are 20,000 a query:
they are found by a threshold for each query, not by sorting. The base is read in blocks and may be
a memory map.

Two steps. Float32 search proposes candidates and a limit that every other row lies beyond
(`_below_threshold` on CPU; the device top-k of `euclidean` on accelerators). `_members` then
keeps exactly the nearest s: rows farther from the s-th place than rounding can reach are decided
by their float32 distance, the few others in float64. So both engines give the same integers.

Not responsible for keeping results on disk.
"""

import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from sigah_jax.retrieval import euclidean

# macOS and Windows do not tell which cores a process may use
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
QUERIES = 1024  # at once
PAIRS = 1 << 25  # query-candidate pairs at once, about 10 bytes each
SCORES = 1 << 22  # scores at once and core, 4 bytes each
SAMPLE_ROWS = 1 << 13  # of the base, to guess the threshold from
EXACT_VALUES = 1 << 16  # float64 differences at once: they stay in the cache


def nearest_sets(
    xq: np.ndarray,
    xb: np.ndarray,
    sizes: Sequence[int],
    engine: str,
    devices: euclidean.Devices = None,
) -> np.ndarray:
    """The nearest base rows of each query, exact as sets: the s nearest, for every s in `sizes`.

    Args:
        xq: `[Q, d] f32`.
        xb: `[N, d] f32`.
        sizes: each 1 to N, in any order.
        engine: "cpu" (numpy) or "accelerator" (JAX, base rows split over the devices).
        devices: of the accelerator engine; defaults to all.

    Returns:
        I `[Q, max(sizes)] int32` base ids. For each s in `sizes` the first s columns hold the s
        nearest rows by (float64 distance, id). Between one size and the next, ids rise.

    Raises:
        ValueError: arrays that do not fit, an impossible size or an unknown engine; a row that is
            not finite, where the search cannot tell that it is not among the nearest.
    """
    sizes = sorted(set(sizes))
    for size in (sizes[0], sizes[-1]):
        euclidean.check(xq, xb, size, len(xb), engine)
    k = sizes[-1]
    centre = euclidean.centre_of(xb)
    result = np.empty((len(xq), k), np.int32)
    todo, widen = np.arange(len(xq)), 1
    while len(todo):
        rank, sample_rows = _sample_rank(k, len(xb), widen)
        candidates = max(k, math.ceil(rank / sample_rows * len(xb)))
        step = min(QUERIES, max(1, PAIRS // candidates))
        uncertain = []
        for rows in (todo[start : start + step] for start in range(0, len(todo), step)):
            if engine == "cpu":
                found = _below_threshold(xq[rows], xb, centre, rank, sample_rows)
            else:
                found = _nearest_on_devices(xq[rows], xb, centre, candidates, devices)
            # bound here: the threads must not see the next chunk's
            members = functools.partial(_members, xb=xb, centre=centre, sizes=sizes, found=found)
            with ThreadPoolExecutor(CORES) as pool:
                sets = pool.map(members, range(len(rows)), xq[rows])
            for q, row in zip(rows, sets, strict=True):
                if row is not None:
                    result[q] = row
                elif candidates < len(xb):
                    uncertain.append(q)
                else:
                    result[q] = _among_all(q, xq[q], xb, sizes)
        todo, widen = np.array(uncertain, int), 2 * widen
    return result


def exact_distances(xq: np.ndarray, xb: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Squared distances of each query and its own rows, by direct differences.

    Args:
        xq: `[Q, d]`; xb: `[N, d]`; ids: `[Q, k]` base ids.

    Returns:
        `[Q, k] f64`. Equal rows have equal distances, and whole numbers have exact ones below 2⁵³.
    """
    return np.stack([_exact_distances(x, xb, row) for x, row in zip(xq, ids, strict=True)])


def recall(xq: np.ndarray, xb: np.ndarray, ids: np.ndarray, truth: np.ndarray) -> float:
    """The share of the found rows that are as near as the k-th true neighbour, over all queries.

    By distance and not by id: of base rows at equal distance each is as good as the other.

    Args:
        xq: `[Q, d]`; xb: `[N, d]`; ids, truth: `[Q, k]` base ids, distinct in a row.
    """
    limits = exact_distances(xq, xb, truth).max(axis=1, keepdims=True)
    return float((exact_distances(xq, xb, ids) <= limits).mean())


def _sample_rank(k: int, nb: int, widen: int) -> tuple[int, int]:
    """(rank among a sample of the base that lies beyond the k-th row, rows of the sample).

    Five standard deviations, times `widen`, beyond the expected rank; all of the sample at most.
    """
    sample_rows = -(-nb // -(-nb // SAMPLE_ROWS))
    expected = k * sample_rows / nb
    rank = math.ceil(expected + 5 * widen * (math.sqrt(expected) + 1))
    return min(rank, sample_rows), sample_rows


def _below_threshold(
    xq: np.ndarray, xb: np.ndarray, centre: np.ndarray, rank: int, sample_rows: int
) -> Callable[[int], tuple[np.ndarray, np.ndarray, float]]:
    """The base rows nearer to each query than row number `rank` of a sample of the base.

    The score of a row is a·b - ½‖b‖², for a query a and a row b less the centre: half of the
    negative squared distance up to ½‖a‖². Each core takes its own blocks of the base.

    Returns:
        A function that gives, for a query by its number, float64 `[c]` distances (of float32
        accuracy), int32 `[c]` ids, and the limit that all other rows lie at or beyond; it is
        infinite where all rows came.
    """
    queries = xq - centre
    squared = np.einsum("ij,ij->i", queries, queries, dtype=np.float64)
    threshold = np.full(len(xq), -np.inf, np.float32)
    if rank < sample_rows:
        sample = xb[:: -(-len(xb) // SAMPLE_ROWS)]
        scores = [block.copy() for _, block in _scores(queries, sample, centre, 0, 1)]
        threshold = np.partition(np.concatenate(scores, axis=1), -rank, axis=1)[:, -rank]

    def sift(first: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For every `CORES`-th block: where each query's hits begin, their scores and ids."""
        parts, near = [], None
        for start, scores in _scores(queries, xb, centre, first, CORES):
            wide = scores.shape[1]
            if near is None or near.shape[1] != wide:
                near = np.empty(scores.shape, bool)
            hits = np.flatnonzero(np.greater(scores, threshold[:, None], out=near))
            begins = np.searchsorted(hits, wide * np.arange(len(xq) + 1))
            ids = (hits % wide + start).astype(np.int32)
            parts.append((begins, scores.reshape(-1)[hits], ids))
        return parts

    with ThreadPoolExecutor(CORES) as pool, threadpool_limits(1, "blas"):
        parts = [part for parts in pool.map(sift, range(CORES)) for part in parts]

    def found(q: int) -> tuple[np.ndarray, np.ndarray, float]:
        scores = np.concatenate([scores[b[q] : b[q + 1]] for b, scores, _ in parts])
        ids = np.concatenate([ids[b[q] : b[q + 1]] for b, _, ids in parts])
        limit = squared[q] - 2 * float(threshold[q])
        return squared[q] - 2 * scores.astype(np.float64), ids, limit

    return found


def _scores(
    queries: np.ndarray, xb: np.ndarray, centre: np.ndarray, first: int, every: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Scores a·b - ½‖b‖² of block number `first` of the base and of each `every`-th after it.

    Yields:
        (first row of the block, `[q, n] f32`). The next block overwrites the scores: fresh memory
        for each would take as long as the sums.
    """
    block_rows = min(len(xb), max(1, SCORES // len(queries)))
    centred = np.empty((block_rows, xb.shape[1]), np.float32)
    memory = np.empty(len(queries) * block_rows, np.float32)
    for start in range(first * block_rows, len(xb), every * block_rows):
        rows = xb[start : start + block_rows]
        rows = np.subtract(rows, centre, out=centred[: len(rows)])
        scores = memory[: len(queries) * len(rows)].reshape(len(queries), -1)
        np.matmul(queries, rows.T, out=scores)
        scores -= np.einsum("ij,ij->i", rows, rows) / 2
        yield start, scores


def _nearest_on_devices(xq, xb, centre, candidates: int, devices: euclidean.Devices):
    """As `_below_threshold`, for the `candidates` nearest rows by float32 distance."""
    d32, ids = euclidean.search(xq, xb, centre, candidates, "accelerator", devices)
    limits = d32[:, -1] if candidates < len(xb) else np.full(len(xq), np.inf)
    return lambda q: (d32[q].astype(np.float64), ids[q], limits[q])


def _members(
    q: int,
    xq: np.ndarray,
    xb: np.ndarray,
    centre: np.ndarray,
    sizes: Sequence[int],
    found: Callable[[int], tuple[np.ndarray, np.ndarray, float]],
) -> np.ndarray | None:
    """The row of `nearest_sets` for query number q, `[d]`, or None if `found(q)` cannot tell.

    Let v be the s-th smallest float32 distance and ε the rounding bound at v. Among the s rows
    up to v none is farther than v + ε, so the true s-th distance T is at most that, and a row
    within T has a float32 distance of at most v + 2ε. In the same way T is at least v - ε, and
    rows below v - 2ε are surely within it. What lies between is compared in float64.
    """
    d32, ids, limit = found(q)
    if len(ids) < sizes[-1]:
        return None
    rings = []
    for size in reversed(sizes):
        v = np.partition(d32, size - 1)[size - 1]
        margin = 2 * rounding_bound(xq, centre, v)
        if not v + margin < limit:
            return None
        chosen = d32 < v - margin
        between = np.flatnonzero((d32 >= v - margin) & (d32 <= v + margin))
        missing = size - np.count_nonzero(chosen)
        if missing < len(between):
            d64 = _exact_distances(xq, xb, ids[between])
            between = between[np.lexsort((ids[between], d64))[:missing]]
        chosen[between] = True
        if size < sizes[-1]:
            rings.append(np.sort(ids[~chosen]))
        d32, ids, limit = d32[chosen], ids[chosen], np.inf  # the next set is within this one
    return np.concatenate([np.sort(ids), *reversed(rings)])


def _among_all(q: int, xq: np.ndarray, xb: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """As `_members`, from the float64 distances of all rows: for values that overflow float32."""
    d = _exact_distances(xq, xb, np.arange(len(xb)))
    if not np.isfinite(d).all():
        name = f"base row {np.isfinite(d).argmin()}" if np.isfinite(xq).all() else f"query {q}"
        raise ValueError(f"{name} holds NaN or infinity; remove or repair it")
    order = np.argsort(d, kind="stable")[: sizes[-1]]
    return np.concatenate([np.sort(ring) for ring in np.split(order, sizes[:-1])])


def _exact_distances(xq: np.ndarray, xb: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Squared distances of one query `[d]` and rows `ids`, `[c] f64`, by direct differences."""
    d = np.empty(len(ids))
    step = max(1, EXACT_VALUES // xb.shape[1])
    for start in range(0, len(ids), step):
        part = slice(start, start + step)
        difference = np.subtract(xb[ids[part]], xq, dtype=np.float64)
        d[part] = np.einsum("ij,ij->i", difference, difference)
    return d


def rounding_bound(xq: np.ndarray, centre: np.ndarray, v: float) -> float:
    """How far a float32 distance can be from the true one, for rows up to about v away.

    Let a, b be a query and a row less the centre, u = 2⁻²⁴ and m = d + 16. Subtracting the centre
    in float32 moves a and b by u‖a‖ and u‖b‖; each product in ‖a‖², ‖b‖² and a·b then takes
    part in at most d + 4 roundings, whatever the order of summation. Together that is less
    than γ (‖a‖ + ‖b‖)² with γ = m u / (1 - m u) (Higham 2002, section 3.1), with room left for
    the bf16 × 6 products of a TPU and for the float64 error of exact distances. A row at true
    distance r² has ‖b‖ <= ‖a‖ + r, and r² <= v + γ (2‖a‖ + r)² for rows of float32 distance v;
    r below solves it. Underflow adds at most the smallest normal number an operation. There is no
    overflow where (‖a‖ + ‖b‖)², and so all that is computed of such rows, stays below the largest
    number; otherwise the bound is infinite.
    """
    m, u = len(xq) + 16, 2.0**-24
    gamma = m * u / (1 - m * u)
    tiny = 4 * m * np.finfo(np.float32).tiny
    a = np.linalg.norm(xq.astype(np.float64) - centre)
    v = max(v, 0.0) + tiny
    shift = 2 * gamma * a
    r = (shift + math.sqrt(shift**2 + (1 - gamma) * (v + 4 * gamma * a**2))) / (1 - gamma)
    largest = (2 * a + r) ** 2
    return gamma * largest + tiny if largest < np.finfo(np.float32).max else math.inf
