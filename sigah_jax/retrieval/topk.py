"""The k smallest distances of each query over a base of packed codes, on all devices.

Shapes: Q queries, q queries at once, N base rows, W bytes a code, k neighbours, n devices,
r rows of a block. Ties go to the lower id everywhere.

Not responsible for what a distance is: `hamming` and `asymmetric` bring it.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sigah_jax.devices import parallel

BASE_BYTES = 1 << 30  # codes on the devices at once, so that row numbers there fit an int32
BLOCK_ROWS = 1 << 18  # codes compared at once on a device, at most
BLOCK_BYTES = 1 << 28  # the same codes when unpacked, a float32 a bit
PAIRS = 1 << 26  # distances at once on a device, 4 bytes each
RESULTS = 1 << 24  # neighbours found in one pass over the base, about 50 bytes each

Devices = Sequence[jax.Device] | None
Distances = Callable[[jax.Array, jax.Array], jax.Array]


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


def on_devices(
    distances: Distances, queries: np.ndarray, cb: np.ndarray, k: int, devices: Devices
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest base rows of each query; each device searches its slice, then they merge.

    Args:
        distances: `(queries [q, ...], codes [r, W]) -> [q, r]`, not negative and finite; a
            function of a module, for what is compiled is kept under it.
        queries: `[Q, ...]`.
        cb: `[N, W] u8`, also a memory map; `BASE_BYTES` of it are read at once.
        k: 1 to N.

    Returns:
        D `[Q, k] f32` and I `[Q, k] i64`, by (distance, id).
    """
    devs = tuple(parallel.local_devices(devices))
    rows = -(-min(len(cb), max(len(devs), BASE_BYTES // cb.shape[1])) // len(devs))
    most = min(BLOCK_ROWS, max(1, BLOCK_BYTES // (32 * cb.shape[1])))
    blocks, block_rows, group = _shapes(rows, most, k)
    rows = blocks * block_rows
    search = _search(distances, min(k, rows), group, devs)
    d = np.empty((len(queries), k), np.float32)
    ids = np.empty((len(queries), k), np.int64)
    for chunk in query_chunks(len(queries), k):
        step = min(chunk.stop - chunk.start, max(1, PAIRS // block_rows))
        fill = [(0, -(chunk.stop - chunk.start) % step)] + [(0, 0)] * (queries.ndim - 1)
        steps = np.pad(queries[chunk], fill).reshape(-1, step, *queries.shape[1:])
        best = []
        for start in range(0, len(cb), rows * len(devs)):
            base, valid = _slices(cb[start : start + rows * len(devs)], rows, block_rows, devs)
            parts = [np.asarray(a) for a in search(steps, base, valid)]  # [n, steps, step, k]
            near, at = (a.reshape(len(devs), -1, a.shape[-1])[:, : len(d[chunk])] for a in parts)
            firsts = start + rows * np.arange(len(devs))
            best = [merge(best + [(near[i], at[i] + firsts[i]) for i in range(len(devs))], k)]
        d[chunk], ids[chunk] = best[0]
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


def _slices(
    cb: np.ndarray, rows: int, block_rows: int, devices: tuple[jax.Device, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Codes `[n, blocks, r, W]`, filled with zeros, and how many rows of a device are real."""
    valid = np.clip(len(cb) - rows * np.arange(len(devices)), 0, rows).astype(np.int32)
    filled = np.pad(cb, ((0, rows * len(devices) - len(cb)), (0, 0)))
    return filled.reshape(len(devices), -1, block_rows, cb.shape[1]), valid


@functools.cache
def _search(distances: Distances, k: int, group: int, devices: tuple[jax.Device, ...]):
    """`(queries [steps, q, …], codes [n, blocks, r, W], valid [n]) -> D, I [n, steps, q, k]`.

    Places beyond the valid rows come back at infinite distance.
    """

    def search(queries: jax.Array, base: jax.Array, valid: jax.Array):
        block_rows = base.shape[1]
        firsts = block_rows * jnp.arange(len(base), dtype=jnp.int32)

        def step(q: jax.Array) -> tuple[jax.Array, jax.Array]:
            def block(best, at):
                codes, first = at
                d = distances(q, codes).astype(jnp.float32)
                d = jnp.where(first + jnp.arange(block_rows) < valid, d, jnp.inf)
                near, ids = smallest(d, k, group)
                # earlier rows stand first, and top_k takes the first of equals
                d = jnp.concatenate([best[0], near], axis=1)
                ids = jnp.concatenate([best[1], ids + first], axis=1)
                negated, order = lax.top_k(-d, k)
                return (-negated, jnp.take_along_axis(ids, order, 1)), None

            none = jnp.full((len(q), k), jnp.inf), jnp.zeros((len(q), k), jnp.int32)
            return lax.scan(block, none, (base, firsts))[0]

        return lax.map(step, queries)

    return parallel.pmap(search, in_axes=(None, 0, 0), out_axes=0, devices=devices)


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
