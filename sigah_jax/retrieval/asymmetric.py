"""Asymmetric distances: the base is codes, the query stays real and loses nothing.

By projection: a bit that differs from the query's own costs as much as the query was sure of it.
By synthetic feature: the query against what the decoder makes of a code. The decoder is not
linear in the bits, so no table a byte holds its distances: candidates are decoded and compared.

Shapes: Q queries, N base rows, W bytes and K bits a code, d columns, c candidates a query,
k neighbours. Ties go to the lower id.

Not responsible for projections or decoding: `hasher` brings both.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sigah_jax.retrieval import codes, hamming, rerank, topk


def by_projection(
    u: np.ndarray, cb: np.ndarray, k: int, devices: topk.Devices = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest base codes of each query, exact, by weighted Hamming distance.

    D(u, b) = Σ_k |u_k| [b_k differs from sign(u_k)] = ½(‖u‖₁ - u·b) with b in {-1, +1}: the rank
    is that of -u·b, and D is the Hamming distance where all |u_k| = 1. One engine for all
    devices, a matrix product of unpacked blocks; base rows are split over them.

    u is rounded to multiples of 2^⌈log₂‖u‖₁⌉ · 2⁻²³, about as fine as a float32 sum is. On that
    grid sums have no rounding in whatever order, so equal codes tie and devices do not matter.

    Args:
        u: `[Q, K] f32` real projections of the queries, whose code bits are u > 0.
        cb: `[N, W] u8` packed codes, also a memory map.
        k: 1 to N.
        devices: defaults to all.

    Returns:
        D `[Q, k] f32` and I `[Q, k] i64`, sorted by (distance, id).

    Raises:
        BadInput: k is not from 1 to N.
        ValueError: projections and codes that do not fit, projections that are not finite.
    """
    u, cb = np.asarray(u), np.asarray(cb)
    if u.ndim != 2 or cb.ndim != 2 or cb.shape[1] != codes.packed_bytes(u.shape[1]):
        raise ValueError(
            f"projections must be [Q, K] and codes [N, ceil(K / 8)]; got {u.shape} and {cb.shape}"
        )
    if cb.dtype != np.uint8:
        raise ValueError(f"packed codes are uint8; got {cb.dtype}")
    if not np.isfinite(u).all():
        raise ValueError("projections must be finite; got NaN or infinity")
    hamming.check_k(k, len(cb))
    wide = u.astype(np.float64)
    total = np.abs(wide).sum(axis=1, keepdims=True)
    unit = 2.0 ** (np.ceil(np.log2(np.where(total > 0, total, 1))) - 23)
    d, ids = topk.on_devices(_projected, np.round(wide / unit).astype(np.float32), cb, k, devices)
    return (d * unit).astype(np.float32), ids


def by_feature(
    xq: np.ndarray,
    cb: np.ndarray,
    candidates: np.ndarray,
    k: int,
    decode: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of each query's candidates by ‖x_q - x̂(b)‖², x̂ decoded from the code.

    Each distinct code among the candidates is decoded once, in blocks of bounded memory.

    Args:
        xq: `[Q, d]`, in the units of `decode`.
        cb: `[N, W] u8` packed codes, also a memory map.
        candidates: `[Q, c]` base ids, distinct in a row, in any order; -1 as in `rerank.rerank`.
        k: 1 to c.
        decode: `codes [n, W] u8 -> [n, d]`, for example `Hasher.decode` or `Hasher.synthesise`.

    Returns:
        D `[Q, k] f32` squared distances and I `[Q, k] i64`; these and errors as in `rerank.rerank`.
    """
    cb = np.asarray(cb)

    def compare(x: np.ndarray, queries: np.ndarray, ids: np.ndarray) -> np.ndarray:
        new = np.diff(ids, prepend=ids[0] - 1) > 0
        packed, number = distinct(np.ascontiguousarray(cb[ids[new]]))
        numbers = number[np.cumsum(new) - 1]
        order = np.argsort(numbers)
        out = np.empty(len(ids), np.float32)
        out[order] = rerank.block_distances(
            x, queries[order], numbers[order], lambda rows: decode(packed[rows])
        )
        return out

    return rerank.nearest(xq, candidates, len(cb), k, compare)


def distinct(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of codes `[n, W] u8`, `[m, W]`, and the number of each row's, `[n] i64`."""
    words = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8))).view(np.uint64)
    order = np.lexsort(words.T)
    new = np.ones(len(order), bool)
    new[1:] = (words[order[1:]] != words[order[:-1]]).any(axis=1)
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(new) - 1
    return packed[order[new]], number


def _projected(u: jax.Array, packed: jax.Array) -> jax.Array:
    """Σ max(u, 0) - u·β for bits β in {0, 1}: `[q, K] f32, [r, W] u8 -> [q, r] f32`."""
    bits = codes.unpack(packed, u.shape[1]).astype(jnp.float32)
    products = jnp.matmul(u, bits.T, precision="highest")
    return jnp.sum(jnp.maximum(u, 0), axis=1)[:, None] - products
