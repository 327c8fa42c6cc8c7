"""Sparse coding by ISTA: from 1-bit measurements b to a sparse s with b ≈ A s.

Shapes: B batch, K measurements (bits), M atoms, M > K. A is the sensing matrix `[K, M]`.

Not responsible for what is made of s: the dictionary is in `networks.SparseDecoder`.
"""

import jax
import jax.numpy as jnp


def soft_threshold(x: jax.Array, t: jax.Array) -> jax.Array:
    """argmin_s ½(s - x)² + t|s|, elementwise; t >= 0 broadcasts against x."""
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - t, 0.0)


def lipschitz_bound(a: jax.Array) -> jax.Array:
    """An upper bound on σ_max(A)², the Lipschitz constant of the gradient of ½‖b - A s‖².

    For the Gram matrix G = A Aᵀ, whose eigenvalues λ are not negative,
    λ_max <= (Σ λ³²)^(1/32) = tr(G³²)^(1/32) <= K^(1/32) λ_max: at most 17 % too large for
    K <= 128. Five squarings of a K x K matrix, no start vector and no gradient. ours: a power
    iteration of the same cost stays *below* σ_max², and ISTA may then climb.

    Args:
        a: `[K, M] f32`.

    Returns:
        f32 scalar without gradient.
    """
    gram = jax.lax.stop_gradient(a @ a.T)
    bound = jnp.trace(gram)
    power = gram / bound
    for exponent in (2, 4, 8, 16, 32):
        power = power @ power
        trace = jnp.trace(power)
        # invariant: G^exponent = bound^exponent · power and tr(power) = 1, so nothing over- or
        # underflows, however large, small or flat the spectrum
        power = power / trace
        bound = bound * trace ** (1.0 / exponent)
    return bound


def ista(b: jax.Array, a: jax.Array, lam: jax.Array, steps: int) -> jax.Array:
    """`steps` iterations of ISTA from zero towards argmin_s ½‖b - A s‖² + Σ_m λ_m |s_m|.

    s ← S_{λ/L}(s + (b - A s) A / L) with L = `lipschitz_bound(A)`, so the objective never
    increases (Daubechies et al. 2004; Beck & Teboulle 2009). Learned per-atom λ make it a LISTA
    with tied weights (Gregor & LeCun 2010).

    Args:
        b: `[B, K] f32` measurements.
        a: `[K, M] f32` sensing matrix.
        lam: f32 scalar or `[M]`, >= 0, the weight of |s_m|.
        steps: how many, fixed when traced.

    Returns:
        s `[B, M] f32`.
    """
    bound = lipschitz_bound(a)
    s = soft_threshold(b @ a / bound, lam / bound)

    def step(s: jax.Array, _: None) -> tuple[jax.Array, None]:
        return soft_threshold(s + (b - s @ a.T) @ a / bound, lam / bound), None

    return jax.lax.scan(step, s, None, length=steps - 1, unroll=steps <= 8)[0]
