"""The sufficient statistic of every Hamming metric: two histograms of the distances of each query.

Shapes: Q queries, N base rows, W bytes and K bits a code, k neighbours a query, S relevance
sets. A distance is an integer 0..K, so a ranking is K + 1 groups of ties, and its metrics are
closed forms of how many rows, and how many relevant rows, are in each group. Any other distance
of codes has groups of ties too (`group_histograms`).

Not responsible for what is relevant (`neighbours`) or for the closed forms (`metrics`).
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sigah_jax.devices import parallel
from sigah_jax.retrieval import codes, hamming

NEIGHBOUR_BYTES = 1 << 26  # codes of neighbours gathered at once


class Histograms(NamedTuple):
    """How many base rows lie at each Hamming distance 0..K, or in each of other groups of ties.

    Attributes:
        total: `[Q, K + 1] int64`, all base rows.
        relevant: `[S, Q, K + 1] int64`, the rows of each relevance set.
    """

    total: np.ndarray
    relevant: np.ndarray


def distance_histograms(
    cq: np.ndarray,
    cb: np.ndarray,
    neighbours: np.ndarray,
    sizes: Sequence[int],
    bits: int,
    engine: str,
    block_rows: int = 8192,
    devices: Sequence[jax.Device] | None = None,
) -> Histograms:
    """Counts the base rows, all and relevant, at each Hamming distance from each query.

    The base streams by in blocks, so memory does not grow with N.

    Args:
        cq, cb: `[Q, W]` and `[N, W] uint8` packed codes of the queries and of the base.
        neighbours: `[Q, k] int32` base ids, the true neighbours, of
            `neighbours.nearest_sets`: the first s columns are the s nearest, for each size s.
        sizes: of the S relevance sets; set s is the first `sizes[s]` neighbours, 1 to k.
        bits: K.
        engine: "cpu" (numpy counts) or "accelerator" (counted on the devices, base rows split
            over them). Both give the same integers.
        block_rows: base rows a block, and a device; `[Q, block_rows]` distances are in memory.
        devices: of the accelerator engine; defaults to all.

    Raises:
        ValueError: shapes, widths, ids or sizes that do not fit one another.
    """
    _check(cq, cb, neighbours, sizes, bits)
    parallel.check_engine(engine)
    if engine == "accelerator":
        total = _total_devices(cq, cb, bits, block_rows, parallel.local_devices(devices))
    else:
        total = _total_cpu(hamming.distances, bits + 1, cq, cb, block_rows)
    return Histograms(total, _relevant(hamming.distances, bits + 1, cq, cb, neighbours, sizes))


def group_histograms(
    groups: Callable[[jax.Array, jax.Array], jax.Array],
    count: int,
    cq: np.ndarray,
    cb: np.ndarray,
    neighbours: np.ndarray,
    sizes: Sequence[int],
    block_rows: int = 8192,
) -> Histograms:
    """The same for another distance of codes, which has `count` different values.

    Args:
        groups: `codes [q, W], [r, W] -> [q, r]` whole numbers, the place of each distance among
            its values, 0 the least; the same object each time, for it is compiled.
        count: G, as K + 1 in the shapes of `Histograms`.
        cq, cb, neighbours, sizes, block_rows: as in `distance_histograms`; they are not checked.
    """
    total = _total_cpu(groups, count, cq, cb, block_rows)
    return Histograms(total, _relevant(groups, count, cq, cb, neighbours, sizes))


def _check(
    cq: np.ndarray, cb: np.ndarray, neighbours: np.ndarray, sizes: Sequence[int], bits: int
) -> None:
    width = codes.packed_bytes(bits)
    for name, c in (("cq", cq), ("cb", cb)):
        if c.ndim != 2 or not len(c) or c.shape[1] != width or c.dtype != np.uint8:
            raise ValueError(
                f"{name} must be rows of uint8 codes of {bits} bits, so {width} bytes wide; "
                f"got {c.dtype} {c.shape}"
            )
        if (c[:, -1] & (0xFF >> (bits - 1) % 8 + 1)).any():
            raise ValueError(f"{name} has bits set past the last of {bits}")
    if neighbours.ndim != 2 or len(neighbours) != len(cq):
        raise ValueError(
            f"neighbours must be [Q, k] with Q = {len(cq)} queries; got {neighbours.shape}"
        )
    if not all(1 <= size <= neighbours.shape[1] for size in sizes):
        raise ValueError(
            f"sizes must be from 1 to k = {neighbours.shape[1]} neighbours; got {tuple(sizes)}"
        )
    if neighbours.size and not 0 <= neighbours.min() <= neighbours.max() < len(cb):
        raise ValueError(
            f"neighbours must be ids of the {len(cb)} base rows; "
            f"got ids from {neighbours.min()} to {neighbours.max()}"
        )


def _total_cpu(
    groups: Callable, count: int, cq: np.ndarray, cb: np.ndarray, block_rows: int
) -> np.ndarray:
    total = np.zeros((len(cq), count), np.int64)
    queries, rows = jnp.asarray(cq), min(block_rows, len(cb))
    for start in range(0, len(cb), rows):
        block = cb[start : start + rows]
        d = np.asarray(_all(groups, queries, parallel.filled(block, rows)))[:, : len(block)]
        for q, row in enumerate(d):
            total[q] += np.bincount(row, minlength=count)
    return total


def _total_devices(
    cq: np.ndarray, cb: np.ndarray, bits: int, block_rows: int, devices: list[jax.Device]
) -> np.ndarray:
    rows = min(block_rows, -(-len(cb) // len(devices)))
    at_once = rows * len(devices)
    count = parallel.over_slices(_device_counter(bits), rows, devices)
    return sum(
        count(cb[start : start + at_once])(cq).astype(np.int64)
        for start in range(0, len(cb), at_once)
    )


@functools.cache
def _device_counter(bits: int):
    """`(cq, cb [rows, W], first, valid) -> [Q, K + 1] int32`, summed over the devices."""

    def count(cq: jax.Array, cb: jax.Array, first: jax.Array, valid: jax.Array) -> jax.Array:
        d = hamming.distances(cq, cb)
        # a distance that no code has keeps the filling rows out of every count
        d = jnp.where(jnp.arange(len(cb)) < valid, d, bits + 1).astype(d.dtype)
        at = lax.map(
            lambda distance: jnp.sum(d == distance, axis=1, dtype=jnp.int32),
            jnp.arange(bits + 1, dtype=d.dtype),
        )
        return lax.psum(at.T, parallel.AXIS)

    return count


def _relevant(
    groups: Callable,
    count: int,
    cq: np.ndarray,
    cb: np.ndarray,
    neighbours: np.ndarray,
    sizes: Sequence[int],
) -> np.ndarray:
    """`[S, Q, count] int64`: the same for both engines, for it is Q k distances, not Q N."""
    relevant = np.zeros((len(sizes), len(cq), count), np.int64)
    step = max(1, NEIGHBOUR_BYTES // max(1, neighbours.shape[1] * cq.shape[1]))
    for start in range(0, len(cq), step):
        ids = neighbours[start : start + step]
        near = np.asarray(_paired(groups, cq[start : start + step, None], cb[ids]))[:, 0]
        for q, row in enumerate(near, start):
            for s, size in enumerate(sizes):
                relevant[s, q] = np.bincount(row[:size], minlength=count)
    return relevant


@functools.partial(jax.jit, static_argnums=0)
def _all(groups: Callable, cq: jax.Array, cb: jax.Array) -> jax.Array:
    return groups(cq, cb)


@functools.partial(jax.jit, static_argnums=0)
def _paired(groups: Callable, cq: jax.Array, cb: jax.Array) -> jax.Array:
    return jax.vmap(groups)(cq, cb)
