"""Exact Euclidean search in float32: nearest neighbours and neighbour graphs.

Shapes: Q queries, N base rows, d columns, k neighbours, n graph nodes. Distances are squared; ties
go to the lower id. Base rows are read in blocks, so that the base may be a memory map.

Not responsible for ground truth (`neighbours`), for rows that are not finite or whose squared
distances overflow (`data.row_checks.check_finite`), nor for keeping results on disk.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from sigah_jax.devices import parallel
from sigah_jax.process.blas import faiss
from sigah_jax.retrieval import topk
from sigah_jax.retrieval.topk import Devices

BASE_BYTES = 1 << 27  # centred base rows at once, which faiss reads
PAIRS = 1 << 22  # query-candidate pairs at once, about 50 bytes each
CENTRE_ROWS = 4096


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
    check(xq, xb, k, len(xb), engine)
    d = np.empty((len(xq), k), np.float32)
    ids = np.empty((len(xq), k), np.int32)
    centre = centre_of(xb)
    for rows in _chunks(len(xq), k, engine):
        d[rows], ids[rows] = search(xq[rows], xb, centre, k, engine, devices)
    return d, ids


def neighbour_graph(
    x: np.ndarray, k: int, engine: str, queries: np.ndarray | None = None
) -> np.ndarray:
    """The k nearest other rows of each row, in float32 as in `knn`.

    A row is never its own neighbour, duplicates of it are. k is 1 to n - 1.

    Args:
        x: `[n, d] f32`.
        engine: as in `knn`, on all devices.
        queries: `[n, d] f32`, what each row is as a query; None: the row itself.

    Returns:
        `[n, k] int32` ids of the rows, nearest first; ties go to the lower id.

    Raises:
        ValueError: as in `knn`.
    """
    return nearest_others(x, np.arange(len(x)), k, engine, queries)


def nearest_others(
    x: np.ndarray, rows: np.ndarray, k: int, engine: str, queries: np.ndarray | None = None
) -> np.ndarray:
    """`neighbour_graph` of some rows alone: `[n, d] f32, [m] ids -> [m, k] int32`."""
    queries = x if queries is None else queries
    check(queries, x, k, len(x) - 1, engine)
    graph = np.empty((len(rows), k), np.int32)
    centre = centre_of(x)
    for part in _chunks(len(rows), k + 1, engine):
        _, ids = search(queries[rows[part]], x, centre, k + 1, engine, None)
        graph[part] = without(ids, rows[part])
    return graph


def without(ids: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Neighbours `[m, k + 1]` of rows `own [m]` without the row itself: `[m, k]`.

    A row with k + 1 duplicates of lower id does not find itself: then the last one goes.
    """
    out = ids == own[:, None]
    out[:, -1] |= ~out.any(axis=1)
    return ids[~out].reshape(len(ids), -1)


def check(xq: np.ndarray, xb: np.ndarray, k: int, most: int, engine: str) -> None:
    """Raises ValueError unless `knn` can search with these; k is at most `most`."""
    if xq.ndim != 2 or xb.ndim != 2 or xq.shape[1] != xb.shape[1]:
        raise ValueError(f"rows must be [Q, d] and [N, d]; got {xq.shape} and {xb.shape}")
    if xq.dtype != np.float32 or xb.dtype != np.float32:
        raise ValueError(f"rows must be float32; got {xq.dtype} and {xb.dtype}")
    if not 1 <= k <= most:
        raise ValueError(f"k must be from 1 to {most}, the rows to choose from; got {k}")
    parallel.check_engine(engine)


def _chunks(rows: int, candidates: int, engine: str) -> Iterable[slice]:
    if engine == "accelerator":  # which cuts them itself, and copies the base once
        return [slice(0, rows)]
    step = max(1, PAIRS // candidates)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def centre_of(xb: np.ndarray) -> np.ndarray:
    """A point near the middle of the base, `[d] f32`: rounding grows with distance from it.

    The mean of a sample, rounded to a power of two not above the spread of a coordinate. So
    whole numbers stay whole numbers, and their float32 distances exact, after subtraction.
    """
    sample = xb[:: -(-len(xb) // CENTRE_ROWS)].astype(np.float64)
    mean = sample.mean(axis=0)
    spread = np.sqrt(np.mean((sample - mean) ** 2))
    step = 2.0 ** np.floor(np.log2(spread)) if spread > 0 else 1.0
    return (np.round(mean / step) * step).astype(np.float32)


def search(
    xq: np.ndarray, xb: np.ndarray, centre: np.ndarray, k: int, engine: str, devices: Devices
) -> tuple[np.ndarray, np.ndarray]:
    """`knn` of some queries, without its checks; `centre [d] f32` is what `centre_of` gives of xb.

    Returns:
        D `[Q, k] f32` and I `[Q, k] int32`, as `knn`.
    """
    queries = xq - centre
    if engine == "accelerator":
        # base rows are centred where they are compared
        d, ids = topk.on_devices(_distances, queries, xb, k, devices, centre)
        return d, ids.astype(np.int32)
    block_rows, best = max(1, BASE_BYTES // (4 * xb.shape[1])), []
    for start in range(0, len(xb), block_rows):
        base = xb[start : start + block_rows] - centre
        # at a tie for the k-th place faiss keeps the lower ids; their order it leaves open
        d, ids = faiss.knn(queries, base, min(k, len(base)))
        d, ids = topk.nearest_first(np.maximum(d, 0), ids, k)
        best = [topk.merge([*best, (d, ids + start)], k)]
    return best[0][0], best[0][1].astype(np.int32)


def _distances(queries: jax.Array, rows: jax.Array, centre: jax.Array) -> jax.Array:
    """Squared distances of queries less the centre and rows: `[q, d], [r, d], [d] -> [q, r]`.

    One that overflows is the largest number, so that it stands before what fills a block.
    """
    largest = jnp.finfo(jnp.float32).max
    d = squared_distances(queries, rows - centre)
    return jnp.nan_to_num(d, nan=largest, posinf=largest)


def squared_distances(a: jax.Array, b: jax.Array, precision: str | None = "highest") -> jax.Array:
    """‖a‖² + ‖b‖² - 2 a·b, never below 0: `[q, d], [r, d] -> [q, r] f32`. Works inside jit.

    Args:
        precision: of the product. "highest" for distances that decide what is near, which a
            product of fewer bits, as TF32 of a GPU, would order otherwise. None: JAX's setting.
    """
    dots = jnp.matmul(a, b.T, precision=precision)
    return jnp.maximum(jnp.sum(a**2, axis=1)[:, None] + jnp.sum(b**2, axis=1) - 2 * dots, 0)
