"""Exact Euclidean search in float32: nearest neighbours and neighbour graphs.

Shapes: Q queries, N base rows, d columns, k neighbours, n graph nodes. Distances are squared.
Everywhere ties go to the lower id. Base rows are read in blocks, so memory stays bounded
beside the inputs and results, and the base may be a memory map.

Not responsible for ground truth (`neighbours`), nor for keeping results on disk.
"""

import functools
from collections.abc import Iterator, Sequence

import faiss
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sigah_jax.devices import parallel

BASE_BYTES = 1 << 27  # centred base rows at once, which faiss reads
DEVICE_BASE_BYTES = 1 << 32  # the same, over all devices
PAIRS = 1 << 22  # query-candidate pairs at once, about 50 bytes each
DEVICE_PAIRS = 1 << 26  # distances at once on a device, 4 bytes each
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
    check(xq, xb, k, len(xb), engine)
    d = np.empty((len(xq), k), np.float32)
    ids = np.empty((len(xq), k), np.int32)
    centre = centre_of(xb)
    for rows in _chunks(len(xq), k):
        d[rows], ids[rows] = search(xq[rows], xb, centre, k, engine, devices)
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
    check(x, x, k, len(x) - 1, engine)
    graph = np.empty((len(x), k), np.int32)
    centre = centre_of(x)
    for rows in _chunks(len(x), k + 1):
        _, ids = search(x[rows], x, centre, k + 1, engine, devices)
        own = ids == np.arange(rows.start, rows.stop)[:, None]
        # a row with k + 1 duplicates of lower id does not find itself: then the last one goes
        own[:, -1] |= ~own.any(axis=1)
        graph[rows] = ids[~own].reshape(-1, k)
    return graph


def check(xq: np.ndarray, xb: np.ndarray, k: int, most: int, engine: str) -> None:
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
    """`knn` of one chunk of queries: blocks of the base, merged by (distance, id)."""
    queries = xq - centre
    at_once = BASE_BYTES if engine == "cpu" else DEVICE_BASE_BYTES
    block_rows = min(len(xb), max(1, at_once // (4 * xb.shape[1])))
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
