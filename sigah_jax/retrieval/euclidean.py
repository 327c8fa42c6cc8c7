"""Exact Euclidean search: nearest neighbours, ground truth certified in float64, graphs.

Shapes: Q queries, N base rows, d columns, k neighbours, n graph nodes. Distances are squared.
Everywhere ties go to the lower id. Base rows are read in blocks, so memory stays bounded
beside the inputs and results, and the base may be a memory map.

Not responsible for keeping results on disk, nor for Hamming distances.
"""

import functools
from collections.abc import Iterator, Sequence

import faiss
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sigah_jax import parallel

BASE_BYTES = 1 << 27  # centred base rows at once
PAIRS = 1 << 22  # query-candidate pairs at once, about 50 bytes each
DEVICE_PAIRS = 1 << 26  # distances at once on a device, 4 bytes each
EXACT_VALUES = 1 << 16  # float64 differences at once: they stay in the cache
CENTRE_ROWS = 4096

Devices = Sequence[jax.Device] | None


def knn(
    xq: np.ndarray, xb: np.ndarray, k: int, engine: str, devices: Devices = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest base rows of each query, in float32.

    Distances are those of centred rows, ‖a‖² + ‖b‖² - 2 a·b, and carry float32 rounding;
    whole numbers whose squared distances stay below 2²⁴ have none.

    Args:
        xq: `[Q, d] f32`.
        xb: `[N, d] f32`.
        k: 1 to N.
        engine: "cpu" (faiss) or "accelerator" (base rows split over the devices).
        devices: of the accelerator engine; defaults to all.

    Returns:
        D `[Q, k] f32` squared distances and I `[Q, k] int32` base ids, sorted by (distance, id).

    Raises:
        ValueError: arrays that do not fit, an impossible k or an unknown engine.
    """
    _check(xq, xb, k, len(xb), engine)
    d = np.empty((len(xq), k), np.float32)
    ids = np.empty((len(xq), k), np.int32)
    centre = _centre(xb)
    for rows in _chunks(len(xq), k):
        d[rows], ids[rows] = _search(xq[rows], xb, centre, k, engine, devices)
    return d, ids


def neighbour_graph(x: np.ndarray, k: int, engine: str, devices: Devices = None) -> np.ndarray:
    """The k nearest other rows of each row, in float32 as in `knn`.

    A row is never its own neighbour, duplicates of it are.

    Args:
        x: `[n, d] f32`.
        k: 1 to n - 1.
        engine, devices: as in `knn`.

    Returns:
        `[n, k] int32` ids, nearest first.

    Raises:
        ValueError: as `knn`.
    """
    _check(x, x, k, len(x) - 1, engine)
    graph = np.empty((len(x), k), np.int32)
    centre = _centre(x)
    for rows in _chunks(len(x), k + 1):
        _, ids = _search(x[rows], x, centre, k + 1, engine, devices)
        own = ids == np.arange(rows.start, rows.stop)[:, None]
        # a row with k + 1 duplicates of lower id does not find itself: then the last one goes
        own[:, -1] |= ~own.any(axis=1)
        graph[rows] = ids[~own].reshape(-1, k)
    return graph


def ground_truth(
    xq: np.ndarray, xb: np.ndarray, k: int, engine: str, devices: Devices = None
) -> np.ndarray:
    """The k nearest base rows of each query by float64 distance, certified.

    Float32 search proposes k + extra candidates, float64 ranks them. With T the k-th float64
    distance and F the largest float32 distance among the candidates, a row outside them has
    a float32 distance >= F. Its true distance is above T if T + `_rounding_bound` < F. Queries
    for which that fails are searched again with twice the extra, at last with all rows.

    Args:
        xq: `[Q, d] f32`.
        xb: `[N, d] f32`.
        k: 1 to N.
        engine, devices: as in `knn`; the result does not depend on them.

    Returns:
        I `[Q, k] int32` base ids, sorted by (float64 distance, id). Duplicate rows tie exactly.

    Raises:
        ValueError: as `knn`.
    """
    _check(xq, xb, k, len(xb), engine)
    centre = _centre(xb)
    result = np.empty((len(xq), k), np.int32)
    todo, extra = np.arange(len(xq)), max(64, k // 16)
    while len(todo):
        candidates = min(k + extra, len(xb))
        uncertain = []
        for chunk in _chunks(len(todo), candidates):
            rows = todo[chunk]
            d32, ids = _search(xq[rows], xb, centre, candidates, engine, devices)
            d64 = _exact_distances(xq[rows], xb, ids)
            order = np.lexsort((ids, d64))[:, :k]
            result[rows] = np.take_along_axis(ids, order, 1)
            kth = np.take_along_axis(d64, order[:, -1:], 1)[:, 0]
            certain = kth + _rounding_bound(xq[rows], centre, kth) < d32[:, -1]
            uncertain.append(rows[~certain])
        todo = np.concatenate(uncertain) if candidates < len(xb) else todo[:0]
        extra *= 2
    return result


def _check(xq: np.ndarray, xb: np.ndarray, k: int, most: int, engine: str) -> None:
    if xq.ndim != 2 or xb.ndim != 2 or xq.shape[1] != xb.shape[1]:
        raise ValueError(f"rows must be [Q, d] and [N, d]; got {xq.shape} and {xb.shape}")
    if xq.dtype != np.float32 or xb.dtype != np.float32:
        raise ValueError(f"rows must be float32; got {xq.dtype} and {xb.dtype}")
    if not 1 <= k <= most:
        raise ValueError(f"k must be from 1 to {most}, the rows to choose from; got {k}")
    if engine not in ("cpu", "accelerator"):
        raise ValueError(f'engine must be "cpu" or "accelerator"; got {engine!r}')


def _chunks(rows: int, candidates: int) -> Iterator[slice]:
    step = max(1, PAIRS // candidates)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _centre(xb: np.ndarray) -> np.ndarray:
    """A point near the middle of the base, `[d] f32`: rounding grows with distance from it.

    The mean of a sample, rounded to a power of two not above the spread of a coordinate. So
    whole numbers stay whole numbers, and their float32 distances exact, after subtraction.
    """
    sample = xb[:: -(-len(xb) // CENTRE_ROWS)].astype(np.float64)
    mean = sample.mean(axis=0)
    spread = np.sqrt(np.mean((sample - mean) ** 2))
    step = 2.0 ** np.floor(np.log2(spread)) if spread > 0 else 1.0
    return (np.round(mean / step) * step).astype(np.float32)


def _search(
    xq: np.ndarray, xb: np.ndarray, centre: np.ndarray, k: int, engine: str, devices: Devices
) -> tuple[np.ndarray, np.ndarray]:
    """`knn` of one chunk of queries: blocks of the base, merged by (distance, id)."""
    queries = xq - centre
    block_rows = min(len(xb), max(1, BASE_BYTES // (4 * xb.shape[1])))
    best = np.full((len(xq), k), np.iinfo(np.uint64).max)
    for start in range(0, len(xb), block_rows):
        base = xb[start : start + block_rows] - centre
        if engine == "cpu":
            # at a tie for the k-th place faiss keeps the lower ids; their order it leaves open
            d, ids = faiss.knn(queries, base, min(k, len(base)))
        else:
            d, ids = _search_devices(queries, base, k, block_rows, devices)
        # a float32 >= +0 sorts as its bits, so one integer holds (distance, id) in that order
        bits = (np.maximum(d, 0) + np.float32(0)).view(np.uint32)
        keys = (bits.astype(np.uint64) << np.uint64(32)) | (ids + start).astype(np.uint64)
        keys = np.concatenate([best, keys], axis=1)
        keys.sort(axis=1)
        best = keys[:, :k]
    d = (best >> np.uint64(32)).astype(np.uint32).view(np.float32)
    return d, (best & np.uint64(0xFFFFFFFF)).astype(np.int32)


def _search_devices(
    queries: np.ndarray, base: np.ndarray, k: int, block_rows: int, devices: Devices
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows of a base block on each device, `[Q, n_devices · k]`, unmerged.

    Filling rows, up to `block_rows`, come back at infinite distance.
    """
    devs = parallel.local_devices(devices)
    n = len(devs)
    rows = -(-block_rows // n)
    valid = np.clip(len(base) - rows * np.arange(n), 0, rows).astype(np.int32)
    base = np.concatenate([base, np.zeros((rows * n - len(base), base.shape[1]), np.float32)])
    step = min(len(queries), max(1, DEVICE_PAIRS // rows))
    fill = np.zeros((-len(queries) % step, base.shape[1]), np.float32)
    steps = np.concatenate([queries, fill]).reshape(-1, step, base.shape[1])
    search = _device_search(min(k, rows), tuple(devs))
    d, ids = search(steps, parallel.split(base, devices=devs), valid)
    ids = np.asarray(ids, np.int64) + (rows * np.arange(n))[:, None, None, None]
    # [n, steps, step, k] -> [Q, n · k], without the filling queries
    by_query = (np.moveaxis(a, 0, 2).reshape(-1, n * d.shape[-1]) for a in (np.asarray(d), ids))
    return tuple(a[: len(queries)] for a in by_query)


@functools.cache
def _device_search(k: int, devices: tuple[jax.Device, ...]):
    """`(queries [steps, q, d], base [n, rows, d], valid [n]) -> D, I [n, steps, q, k]`."""

    def search(queries: jax.Array, base: jax.Array, valid: jax.Array):
        norms = jnp.where(jnp.arange(len(base)) < valid, jnp.sum(base**2, axis=1), jnp.inf)

        def step(q: jax.Array) -> tuple[jax.Array, jax.Array]:
            dots = jnp.matmul(q, base.T, precision="highest")
            d = jnp.sum(q**2, axis=1)[:, None] + norms - 2 * dots
            nearest, ids = lax.top_k(-jnp.maximum(d, 0), k)
            return -nearest, ids

        return lax.map(step, queries)

    return parallel.pmap(search, in_axes=(None, 0, 0), out_axes=0, devices=devices)


def _exact_distances(xq: np.ndarray, xb: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Squared distances of each query and its rows, `[Q, c] f64`, by direct differences."""
    d = np.empty(ids.shape)
    step = max(1, EXACT_VALUES // xb.shape[1])
    for q in range(len(xq)):
        for start in range(0, ids.shape[1], step):
            part = slice(start, start + step)
            difference = np.subtract(xb[ids[q, part]], xq[q], dtype=np.float64)
            d[q, part] = np.einsum("ij,ij->i", difference, difference)
    return d


def _rounding_bound(xq: np.ndarray, centre: np.ndarray, kth: np.ndarray) -> np.ndarray:
    """How far above T the float32 distance of a row within T can be, `[Q] f64`.

    Let a, b be a query and a row less the centre, u = 2⁻²⁴ and m = d + 16. Subtracting the centre
    in float32 moves a and b by u‖a‖ and u‖b‖; each product in ‖a‖², ‖b‖² and a·b then takes
    part in at most d + 3 roundings, whatever the order of summation. Together that is less
    than γ (‖a‖ + ‖b‖)² with γ = m u / (1 - m u) (Higham 2002, section 3.1), with room left for
    the bf16 × 6 products of a TPU and for the float64 error of T. A row within T has
    ‖b‖ <= ‖a‖ + √T. Underflow adds at most the smallest normal number an operation.
    """
    m, u = xq.shape[1] + 16, 2.0**-24
    gamma = m * u / (1 - m * u)
    reach = 2 * np.linalg.norm(xq.astype(np.float64) - centre, axis=1) + np.sqrt(kth)
    return gamma * reach**2 + 4 * m * np.finfo(np.float32).tiny
