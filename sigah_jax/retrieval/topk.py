"""The k smallest distances of each query over a base of codes or vectors, on all devices.

Shapes: Q queries, q queries at once, N base rows, W values a row, k neighbours, n devices,
r rows of a block. Ties go to the lower id everywhere.

Not responsible for what a distance is: `hamming`, `asymmetric` and `euclidean` bring it.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sigah_jax.devices import parallel

BASE_BYTES = 1 << 30  # rows on the devices at once, so that row numbers there fit an int32
BLOCK_ROWS = 1 << 18  # rows compared at once on a device, at most
BLOCK_BYTES = 1 << 28  # the same rows, each code counted as unpacked to float32
PAIRS = 1 << 26  # distances at once on a device, 4 bytes each
RESULTS = 1 << 24  # neighbours found in one pass over the base, about 50 bytes each

Devices = Sequence[jax.Device] | None
Distances = Callable[..., jax.Array]


def query_chunks(queries: int, k: int) -> list[slice]:
    """Slices of the queries, each small enough for one pass over the base."""
    step = max(1, RESULTS // k)
    return [slice(start, min(start + step, queries)) for start in range(0, queries, step)]


def merge(found: list[tuple[np.ndarray, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k smallest of several results of the same queries.

    Args:
        found: (D, I) each `[Q, any]`, by (distance, id); all ids of one are below those of the
            next, so that a stable sort by distance alone gives ties to the lower id.
    """
    if len(found) == 1:
        return found[0][0][:, :k], found[0][1][:, :k]
    d, ids = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
    order = np.argsort(d, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(d, order, 1), np.take_along_axis(ids, order, 1)


def nearest_first(d: np.ndarray, ids: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k smallest of each row by (distance, id), `[Q, k] f32` and `[Q, k] i64`.

    Args:
        d: `[Q, c] f32`, not NaN.
        ids: `[Q, c]`, 0 to 2³² - 1.
    """
    # a float32 sorts as a whole number of its bits, so one holds (distance, id) in that order
    bits = _ordered((d + np.float32(0)).view(np.int32))
    keys = np.sort((bits.astype(np.int64) << 32) | ids.astype(np.int64), axis=1)[:, :k]
    near = _ordered((keys >> 32).astype(np.int32)).view(np.float32)
    return near, keys & 0xFFFFFFFF


def _ordered(bits: np.ndarray) -> np.ndarray:
    """Bits of float32 as i32 that rise with the number, and back: of a negative all but the sign
    are turned over."""
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


def on_devices(
    distances: Distances,
    queries: np.ndarray,
    base: np.ndarray,
    k: int,
    devices: Devices,
    *shared: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest base rows of each query; each device searches its slice, then they merge.

    Args:
        distances: `(queries [q, ...], rows [r, W], *shared) -> [q, r]`, not negative and finite;
            a function of a module, for what is compiled is kept under it.
        queries: `[Q, ...]`.
        base: `[N, W]` codes u8 or vectors f32, also a memory map; `BASE_BYTES` of it are read at
            once, and copied to the devices once.
        k: 1 to N.
        shared: arrays that all distances need.

    Returns:
        D `[Q, k] f32` and I `[Q, k] i64`, by (distance, id).
    """
    n = len(parallel.local_devices(devices))
    row_bytes = base.dtype.itemsize * base.shape[1]
    # `asymmetric` unpacks a code to compare it, a float32 a bit
    wide_bytes = 32 * row_bytes if base.dtype == np.uint8 else row_bytes
    rows = -(-min(len(base), max(n, BASE_BYTES // row_bytes)) // n)
    most = min(BLOCK_ROWS, max(1, BLOCK_BYTES // wide_bytes))
    blocks, block_rows, group = _shapes(rows, most, k)
    rows = blocks * block_rows
    search = parallel.over_slices(_search(distances, k, block_rows, group), rows, devices)
    d = np.empty((len(queries), k), np.float32)
    ids = np.empty((len(queries), k), np.int64)
    chunks = query_chunks(len(queries), k)
    best = [[] for _ in chunks]
    for start in range(0, len(base), rows * n):
        search_slices = search(base[start : start + rows * n])
        for number, chunk in enumerate(chunks):
            count = chunk.stop - chunk.start
            step = min(count, max(1, PAIRS // block_rows))
            steps = parallel.filled(queries[chunk], -(-count // step) * step)
            found = search_slices((steps.reshape(-1, step, *queries.shape[1:]), *shared))
            near, at = (a.reshape(-1, a.shape[-1])[:count] for a in found)
            best[number] = [merge([*best[number], (near, at.astype(np.int64) + start)], k)]
        del search_slices  # and its rows, before the next ones are brought
    for chunk, ((near, at),) in zip(chunks, best, strict=True):
        d[chunk], ids[chunk] = near, at
    return d, ids


def _shapes(rows: int, most: int, k: int) -> tuple[int, int, int]:
    """(blocks, rows of a block, rows of a group) for at least `rows` rows a device.

    A block has `most` rows, or up to a group more.

    A block is sorted twice, its r / g group minima and then the k g rows of k groups: together
    they are fewest at g = √(r / k).
    """
    blocks = -(-rows // most)
    block_rows = -(-rows // blocks)
    group = 1 << max(0, round(math.log2(block_rows / k) / 2))
    return blocks, -(-block_rows // group) * group, group


@functools.cache
def _search(distances: Distances, k: int, block_rows: int, group: int):
    """`((queries [steps, q, ...], *shared), rows [blocks · r, W], first, valid) -> D, I`.

    For `parallel.over_slices`. D and I are `[steps, q, ≤ k]`; places beyond all valid rows come
    at infinite distance.
    """

    def search(given: tuple, base: jax.Array, first: jax.Array, valid: jax.Array):
        queries, *shared = given
        count = min(k, len(base))
        base = base.reshape(-1, block_rows, base.shape[1])
        firsts = block_rows * jnp.arange(len(base), dtype=jnp.int32)

        def step(q: jax.Array) -> tuple[jax.Array, jax.Array]:
            def block(best, at):
                rows, start = at
                d = distances(q, rows, *shared).astype(jnp.float32)
                d = jnp.where(start + jnp.arange(block_rows) < valid, d, jnp.inf)
                near, ids = smallest(d, count, group)
                # earlier rows stand first, and top_k takes the first of equals
                d = jnp.concatenate([best[0], near], axis=1)
                return _least(d, jnp.concatenate([best[1], ids + start], axis=1), count), None

            none = jnp.full((len(q), count), jnp.inf), jnp.zeros((len(q), count), jnp.int32)
            (d, ids), _ = lax.scan(block, none, (base, firsts))
            # side by side in the order of the devices, which is that of their rows
            d, ids = lax.all_gather((d, ids + first), parallel.AXIS, axis=1, tiled=True)
            return _least(d, ids, min(k, d.shape[1]))

        return lax.map(step, queries)

    return search


def _least(d: jax.Array, ids: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The k smallest of each row of d `[q, any]` with their ids, of equals the first."""
    negated, order = lax.top_k(-d, k)
    return -negated, jnp.take_along_axis(ids, order, 1)


def smallest(d: jax.Array, k: int, group: int) -> tuple[jax.Array, jax.Array]:
    """The k smallest of each row and where they are, by (value, place); inside jit.

    Exact without sorting all: columns are cut into groups, and only the k groups of the smallest
    (minimum, place) are searched. Had one of the k smallest values its place in another group,
    then each of those k groups would hold a value before it.

    Args:
        d: `[q, r] f32`, r a multiple of `group`.

    Returns:
        `[q, min(k, r)]` values and int32 places.
    """
    grouped = d.reshape(len(d), -1, group)
    _, groups = lax.top_k(-grouped.min(axis=2), min(k, grouped.shape[1]))
    groups = jnp.sort(groups, axis=1)
    near = jnp.take_along_axis(grouped, groups[:, :, None], 1).reshape(len(d), -1)
    negated, at = lax.top_k(-near, min(k, d.shape[1]))
    return -negated, jnp.take_along_axis(groups, at // group, 1) * group + at % group
