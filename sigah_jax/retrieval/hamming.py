"""Hamming distances of packed codes, and exact search by them.

Shapes: Q queries, N base rows, W bytes a code, k neighbours.

Not responsible for counting: `histograms` needs no ranking.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput
from sigah_jax.process.blas import faiss
from sigah_jax.retrieval import topk

BASE_BYTES = 1 << 28  # codes that faiss reads at once
FAST_BYTES = (4, 8, 16, 20, 32, 64)  # widths for which faiss has code of its own, 4 times as fast


def search(
    cq: np.ndarray, cb: np.ndarray, k: int, engine: str, devices: topk.Devices = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest base codes of each query, exact; ties go to the lower id.

    Args:
        cq: `[Q, W] u8`, bits past the last one equal in all codes (`codes.pack` has zeros).
        cb: `[N, W] u8`, also a memory map, read in blocks.
        k: 1 to N.
        engine: "cpu" (faiss) or "accelerator" (base rows split over the devices). Both give the
            same integers.
        devices: of the accelerator engine; defaults to all.

    Returns:
        D `[Q, k] i32` bits that differ and I `[Q, k] i64` base ids (whatever N, as faiss does),
        sorted by (distance, id).

    Raises:
        BadInput: k is not from 1 to N.
        ValueError: not two matrices of bytes of one width, an unknown engine.
    """
    check(cq, cb)
    check_k(k, len(cb))
    parallel.check_engine(engine)
    if engine == "accelerator":
        d, ids = topk.on_devices(distances, cq, cb, k, devices)
        return d.astype(np.int32), ids
    return search_by_faiss(cq, cb, k)


def search_by_faiss(
    cq: np.ndarray, cb: np.ndarray, k: int, copies: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """`search` by faiss on the CPU, also of queries of several codes whose distances add up.

    Args:
        cq: `[Q, copies · W] u8`, the codes of a query one after the other.
        cb: `[N, W] u8`.
    """
    width = next((fast for fast in FAST_BYTES if fast >= cq.shape[1]), cq.shape[1])
    d, ids = np.empty((len(cq), k), np.int32), np.empty((len(cq), k), np.int64)
    cq, rows = _widened(cq, 1, width), max(1, BASE_BYTES // width)
    for chunk in topk.query_chunks(len(cq), k):
        best = []
        for start in range(0, len(cb), rows):
            block = _widened(cb[start : start + rows], copies, width)
            # rows come by rising id, one replaces the last of the heap only if strictly nearer,
            # and the heap orders by (distance, id): so the lower ids stay, and come out in order
            near, at = faiss.knn_hamming(cq[chunk], block, min(k, len(block)), "hc")
            best = [topk.merge([*best, (near, at + start)], k)]
        d[chunk], ids[chunk] = best[0]
    return d, ids


def _widened(packed: np.ndarray, copies: int, width: int) -> np.ndarray:
    """Codes `[n, W]` as often beside one another, and zeros up to `width` bytes: contiguous."""
    if packed.shape[1] == width:
        return np.ascontiguousarray(packed)
    out = np.zeros((len(packed), width), np.uint8)
    for i in range(copies):
        out[:, i * packed.shape[1] : (i + 1) * packed.shape[1]] = packed
    return out


def check_k(k: int, rows: int) -> None:
    """Raises BadInput unless k neighbours can be chosen from so many rows."""
    if not 1 <= k <= rows:
        raise BadInput(f"k={k}: must be from 1 to {rows}, the rows to choose from")


def check(cq: np.ndarray | jax.Array, cb: np.ndarray | jax.Array) -> None:
    """Raises ValueError unless both are codes of one width."""
    if cq.ndim != 2 or cb.ndim != 2 or cq.shape[1] != cb.shape[1]:
        raise ValueError(f"codes must be [Q, W] and [N, W]; got {cq.shape} and {cb.shape}")
    if cq.dtype != jnp.uint8 or cb.dtype != jnp.uint8:
        raise ValueError(f"packed codes are uint8; got {cq.dtype} and {cb.dtype}")


def distances(cq: jax.Array, cb: jax.Array) -> jax.Array:
    """The number of bits that differ, for every query and base row. Works inside jit.

    Args:
        cq, cb: `[Q, W]` and `[N, W] uint8`, as in `search`; codes that do not fit are a ValueError.

    Returns:
        `[Q, N]`, uint8 where 8 W <= 255, else uint16. Compiled, it takes no more memory than
        this: cut the base into blocks.
    """
    check(cq, cb)
    dtype = jnp.uint8 if 8 * cq.shape[1] <= 255 else jnp.uint16
    words_q, words_b = _words(cq), _words(cb)
    # a sum of terms, not of an axis: the compiler then makes one pass without a [Q, N, words] array
    total = sum(
        lax.population_count(words_q[:, None, w] ^ words_b[None, :, w])
        for w in range(words_q.shape[1])
    )
    return total.astype(dtype)


def _words(codes: jax.Array) -> jax.Array:
    """`[n, W] uint8 -> [n, ceil(W / 4)] uint32`; the order of bytes in a word does not matter."""
    n, width = codes.shape
    padded = jnp.pad(codes, ((0, 0), (0, -width % 4)))
    return lax.bitcast_convert_type(padded.reshape(n, -1, 4), jnp.uint32)
