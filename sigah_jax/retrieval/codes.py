"""Binary codes as bytes: K bits in W = ceil(K / 8) bytes.

Bit order, everywhere in this package: bit 0 is the most significant bit of byte 0, as in
`numpy.packbits`. The bits of the last byte past bit K - 1 are zero, so that the distance of
two packed codes is the distance of their bits.

Not responsible for where bits come from: that is `model.binarize`.
"""

import jax
import jax.numpy as jnp
import numpy as np

BOTH = "both codes of queries"  # in a row, its own and that which it would have as a base row


def packed_bytes(bits: int) -> int:
    """W, the bytes of a code of `bits` bits."""
    return -(-bits // 8)


def row_bytes(bits: int, kind: str) -> int:
    """The bytes of a row of codes of a kind: W, of `BOTH` 2 W."""
    return packed_bytes(bits) * (1 + (kind == BOTH))


def pack(bits: jax.Array | np.ndarray) -> jax.Array:
    """`[..., K] bool -> [..., W] uint8`. Works inside jit and pmap.

    ValueError if the bits are not boolean: a code of -1 and +1 would pack as all ones.
    """
    if bits.dtype != bool:
        raise ValueError(f"pack takes booleans, for example `u > 0`; got dtype {bits.dtype}")
    return jnp.packbits(bits, axis=-1)


def unpack(codes: jax.Array | np.ndarray, bits: int) -> jax.Array:
    """The inverse of `pack`: `[..., W] uint8 -> [..., K] bool`. Works inside jit and pmap.

    ValueError if W is not the width of K = `bits` bits, which the bytes alone do not tell.
    """
    width = codes.shape[-1]
    if width != packed_bytes(bits):
        raise ValueError(f"codes of {bits} bits are {packed_bytes(bits)} bytes wide; got {width}")
    return jnp.unpackbits(codes, axis=-1, count=bits).astype(bool)


def signs(codes: jax.Array | np.ndarray, bits: int) -> jax.Array:
    """`unpack` as the networks take it: `[..., W] uint8 -> [..., K] float32` of -1 and 1."""
    return 2.0 * unpack(codes, bits) - 1.0
