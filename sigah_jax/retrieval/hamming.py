"""Hamming distances of packed codes.

Shapes: Q queries, N base rows, W bytes a code.

Not responsible for search or for counting: `histograms` needs no ranking.
"""

import jax
import jax.numpy as jnp
from jax import lax


def distances(cq: jax.Array, cb: jax.Array) -> jax.Array:
    """The number of bits that differ, for every query and base row. Works inside jit.

    Codes are read as 32-bit words, with zero bytes up to a whole word. Memory is `[Q, N]` of
    the result when compiled: cut the base into blocks.

    Args:
        cq: `[Q, W] uint8`, bits past the last one equal in all codes (`codes.pack` has zeros).
        cb: `[N, W] uint8`.

    Returns:
        `[Q, N]`, uint8 where 8 W <= 255, else uint16.

    Raises:
        ValueError: not two matrices of bytes of one width.
    """
    if cq.ndim != 2 or cb.ndim != 2 or cq.shape[1] != cb.shape[1]:
        raise ValueError(f"codes must be [Q, W] and [N, W]; got {cq.shape} and {cb.shape}")
    if cq.dtype != jnp.uint8 or cb.dtype != jnp.uint8:
        raise ValueError(f"packed codes are uint8; got {cq.dtype} and {cb.dtype}")
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
