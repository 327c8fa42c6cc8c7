"""Input features of the networks: centred, scaled by one number, cut to principal directions.

Shapes: B batch, d input dimension, P kept directions.

Not responsible for finding the directions: `pca`.
"""

import jax
import jax.numpy as jnp


def init_standardiser(mean: jax.Array, directions: jax.Array, variances: jax.Array, dims: int):
    """Arrays of z = Vᵀ(x - x̄)/a with a² = E‖x - x̄‖², so that E‖(x - x̄)/a‖² = 1.

    ours: only the first `dims` principal directions are kept. The scaling is one scalar, so
    Euclidean neighbours of z are those of x up to what the dropped directions hold.

    Args:
        mean: `[d]` training mean x̄.
        directions: `[d, d]` orthonormal principal directions, by falling variance; V is the first
            `dims` of them.
        variances: `[d]` variance along each.
        dims: how many directions to keep.

    Returns:
        (`{"mean" [d], "projection" [d, P]}` f32, variances of z `[P]` f32).
    """
    total = variances.sum()
    projection = directions[:, :dims] / jnp.sqrt(total)
    arrays = {"mean": jnp.asarray(mean, jnp.float32), "projection": projection.astype(jnp.float32)}
    return arrays, jnp.asarray(variances[:dims] / total, jnp.float32)


def standardise(arrays: dict, x: jax.Array) -> jax.Array:
    """z = Vᵀ(x - x̄)/a: `[B, d] -> [B, P] f32`."""
    return jnp.dot(
        x.astype(jnp.float32) - arrays["mean"], arrays["projection"], precision="highest"
    )


def restore(arrays: dict, z: jax.Array) -> jax.Array:
    """x ≈ x̄ + a V z, the point of the kept subspace in input units: `[B, P] -> [B, d] f32`."""
    # the columns of `projection` are orthogonal with squared length 1/a²
    squared = jnp.sum(arrays["projection"] ** 2, 0)
    return arrays["mean"] + jnp.dot(z / squared, arrays["projection"].T, precision="highest")
