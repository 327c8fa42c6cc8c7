"""Search by both codes of a query: its own, Q, and the one that it would have as a base row, S.

    D(q, b) = 2 H(Q, b) + H(S, b)

Bits on which both agree count three times. It ranks better than H(Q, b), for the same stored codes
(research log); of a hasher with one hash function Q = S, and the ranking is Hamming's. ours.

Shapes: Q queries, N base rows, W bytes and K bits a code, k neighbours. Ties go to the lower id.
"""

import jax
import jax.numpy as jnp
import numpy as np

from sigah_jax.devices import parallel
from sigah_jax.retrieval import codes, hamming, topk


def search(
    cq: np.ndarray, cb: np.ndarray, k: int, engine: str, devices: topk.Devices = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest base codes of each query, exact.

    Args:
        cq: `[Q, 2, W] u8`, returned by `Hasher.both_codes`.
        cb: `[N, W] u8`, also a memory map.
        k: 1 to N.
        engine, devices: as in `hamming.search`; both engines give the same integers.

    Returns:
        D `[Q, k] i32` and I `[Q, k] i64`, sorted by (distance, id).

    Raises:
        BadInput: k is not from 1 to N.
        ValueError: arrays that do not fit, an unknown engine.
    """
    _check(cq, cb)
    hamming.check_k(k, len(cb))
    parallel.check_engine(engine)
    if engine == "accelerator":
        d, ids = topk.on_devices(distances, cq, cb, k, devices)
        return d.astype(np.int32), ids
    # the distance of Q, Q, S to a base code that stands there three times
    thrice = cq[:, [0, 0, 1]].reshape(len(cq), 3 * cq.shape[2])
    return hamming.search_by_faiss(thrice, cb, k, copies=3)


def distances(cq: jax.Array, cb: jax.Array) -> jax.Array:
    """D of every query and base row: `[Q, 2, W] u8, [N, W] u8 -> [Q, N] u16`. Works inside jit."""
    _check(cq, cb)
    own, other = (hamming.distances(cq[:, i], cb).astype(jnp.uint16) for i in range(2))
    return 2 * own + other


def weights(cq: jax.Array, bits: int) -> jax.Array:
    """w by which D = (3 K - w·b) / 2, b of -1 and 1: `[Q, 2, W] u8 -> [Q, K] f32`."""
    return 2 * codes.signs(cq[:, 0], bits) + codes.signs(cq[:, 1], bits)


def _check(cq: np.ndarray | jax.Array, cb: np.ndarray | jax.Array) -> None:
    if cq.ndim != 3 or cq.shape[1] != 2:
        raise ValueError(f"both codes of queries must be [Q, 2, W]; got {cq.shape}")
    hamming.check(cq[:, 0], cb)
