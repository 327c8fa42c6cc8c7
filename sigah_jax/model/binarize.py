"""Binarisation of real projections, and the gradient that passes through it.

Shapes: B batch, K bits. Code bit k is (u_k > 0); as a number it is +1 or -1. u = 0 gives -1.

Not responsible for packing bits into bytes: that is `retrieval.codes`.
"""

import jax
import jax.numpy as jnp


def sign(u: jax.Array) -> jax.Array:
    """+1 where u > 0, else -1. `[B, K] f32 -> [B, K] f32`. Zero gives -1, unlike `jnp.sign`."""
    return jnp.where(u > 0, 1.0, -1.0).astype(u.dtype)


def straight_through(u: jax.Array, width: float) -> jax.Array:
    """`sign(u)` forward, the gradient of w tanh(u/w) backward. `[B, K] f32 -> [B, K] f32`.

    Straight-through estimator (Bengio et al. 2013); tanh as surrogate is ours: it stops the
    gradient of bits that are far from their threshold.

    Args:
        width: w > 0, in units of u: how far from the threshold a bit is still moved.
    """
    soft = width * jnp.tanh(u / width)
    return jax.lax.stop_gradient(sign(u)) + (soft - jax.lax.stop_gradient(soft))
