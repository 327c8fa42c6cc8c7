"""The rotation of vectors that brings them nearest to codes: iterative quantisation (ITQ).

Shapes: n rows, p columns, K bits.

Not responsible for finding principal components (`pca`), nor for L2-normalising rows: faiss's
`ITQTransform` does after centring, the paper does not, and Euclidean neighbours need the lengths.
(faiss 1.15 also takes U V for U Vᵀ in its Procrustes step, so its loss stops early:
14.1 against our 11 on the first 32 components of MNIST. Its ITQ is not this one.)
"""

from functools import partial

import jax
import jax.numpy as jnp

from sigah_jax.model import binarize


@partial(jax.jit, static_argnames=("bits", "iterations"))
def rotate(key: jax.Array, v: jax.Array, bits: int, iterations: int) -> tuple[jax.Array, jax.Array]:
    """A local minimum of ‖B - V R‖² over codes B in {-1, +1} and R with orthonormal rows.

    From the first rows of a uniformly random rotation, alternates the two exact minimisers
        B = sign(V R), with sign(0) = -1 as in a code,
        R = the polar factor of Vᵀ B (orthogonal Procrustes),
    so the loss never increases, rounding apart. More bits than columns are ours: ‖V R‖ is that
    of V for every R, so the minimisers stay the same.

    Args:
        key: PRNG key of the first rotation.
        v: [n, p] f32, centred; its scale changes the losses, not the rotation.
        bits: K, at least p.
        iterations: alternations.

    Returns:
        R [p, K] f32 and the losses [iterations + 1] f32, ‖B - V R‖² / n: of the random
        rotation first, of the returned one last.
    """

    def quantise(rotation: jax.Array) -> tuple[jax.Array, jax.Array]:
        rotated = jnp.matmul(v, rotation, precision="highest")
        b = binarize.sign(rotated)
        return b, jnp.mean(jnp.sum((b - rotated) ** 2, axis=1))

    def alternate(rotation: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        b, loss = quantise(rotation)
        return polar_factor(jnp.matmul(v.T, b, precision="highest")), loss

    first = jax.random.orthogonal(key, bits)[: v.shape[1]]
    rotation, losses = jax.lax.scan(alternate, first, length=iterations)
    return rotation, jnp.append(losses, quantise(rotation)[1])


def polar_factor(w: jax.Array) -> jax.Array:
    """The matrix with orthonormal columns, or rows, nearest to w: U Vᵀ of its SVD."""
    u, _, vt = jnp.linalg.svd(w, full_matrices=False)
    return jnp.matmul(u, vt, precision="highest")
