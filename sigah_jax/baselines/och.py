"""Ordinal constraint hashing (OCH): bits that keep the order of distances between landmarks.

Shapes: n training rows, d columns, L landmarks, a nearest landmarks of a landmark, p principal
components, K bits.

Source: Liu, Ji, Wu and Huang 2017 (AAAI), Ordinal Constrained Binary Code Learning for Nearest
Neighbor Search. What was available of it is the abstract and the authors' public MATLAB code,
which they call similar to their original, not the body of the paper. From these are: the tensor
ordinal graph, which compares the similarity of a pair i, j with that of a pair k, l; its
projection to pairs i, j and i, l of L k-means centres, L³ relations for n⁴; codes sgn(Wᵀ y) of
principal components y, relaxed to tanh; a sigmoid of the difference of inner products of codes as
loss; and descent on the Stiefel manifold with backtracking. All else is marked `ours`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sigah_jax.baselines.kmeans import centres_of
from sigah_jax.baselines.linear import LinearHash
from sigah_jax.errors import BadInput
from sigah_jax.model.pca import principal_directions
from sigah_jax.model.rotation import polar_factor

KMEANS_ROWS = 20_000  # ours: at most, drawn by the key; the authors trained on 5,000 rows in all
SPREAD = 4.0  # ours: root mean square of the components; 4 and 6 rank best in validation
KMEANS_ITERATIONS = 10  # as in the authors' public code
LEAST_FALL = 0.3  # ours: of the fall that the slope promises, or a step is halved
LEAST_STEP = 1e-6  # ours: below it rounding hides the slope


def fit(
    key: jax.Array,
    xt: np.ndarray,
    bits: int,
    landmarks: int,
    nearest: int,
    components: int,
    iterations: int,
) -> LinearHash:
    """PCA, landmarks by k-means, then the projection W of `learn`.

    With more bits than components W has orthonormal rows instead of columns, as in the authors'
    public code, whose example has 64 bits of 20 components.

    Ours: components are scaled to the root mean square `SPREAD` over the landmarks, for tanh is not
    indifferent to scale (the authors' code takes data as it comes: pixels in bytes saturate it).

    Args:
        bits: K, any number; more than d is allowed.
        landmarks: L, 3 to n; 300 in the authors' public code.
        nearest: a, 1 to L - 2; 10 in the authors' public code.
        components: p >= 1, all d where there are fewer; 20 in the authors' public code.
        iterations: steps of W.

    Raises:
        BadInput: numbers that do not fit one another.
    """
    n, d = xt.shape
    components = min(components, d)
    if not 1 <= nearest <= landmarks - 2 <= n - 2:
        raise BadInput(
            "landmarks: OCH takes nearest landmarks < landmarks - 1 < training rows; got "
            f"{nearest} nearest of {landmarks} landmarks of {n} rows"
        )
    kmeans_key, first_key = jax.random.split(key)
    mean, directions, _ = principal_directions(xt, components)
    centres = centres_of(kmeans_key, xt, landmarks, KMEANS_ROWS, KMEANS_ITERATIONS) - mean
    near, farther = relations(centres, nearest)
    y = centres @ directions
    y *= SPREAD / max(np.sqrt(np.mean(y**2)), np.finfo(np.float32).tiny)
    w, _ = learn(first_key, y, near, farther, bits, iterations)
    return LinearHash(mean, directions @ np.asarray(w))


def relations(centres: np.ndarray, nearest: int) -> tuple[np.ndarray, np.ndarray]:
    """Which landmark is nearer than which: the ordinal graph over triplets i, j, l.

    Ours: similarity is Euclidean distance in all d columns; the authors' code divides it by a
    local scale. Ties go to the lower id.

    Args:
        centres: [L, d] f32.
        nearest: a.

    Returns:
        j [L, a] int, the nearest other landmarks of each i, nearest first, and [L, a, L] bool, true
        where landmark l is farther from i than j is.
    """
    squared = np.sum(centres.astype(np.float64) ** 2, axis=1)
    d = squared[:, None] + squared - 2 * centres.astype(np.float64) @ centres.T
    np.fill_diagonal(d, -np.inf)  # a landmark is not farther from itself than from any other
    near = np.argsort(d, axis=1, kind="stable")[:, 1 : nearest + 1]
    return near, d[:, None, :] > np.take_along_axis(d, near, axis=1)[:, :, None]


def ordinal_loss(w: jax.Array, y: jax.Array, near: jax.Array, farther: jax.Array) -> jax.Array:
    """The mean of sigmoid(h_i·h_l - h_i·h_j) over triplets with l farther from i than j, a scalar.

    With h = tanh(Wᵀ y) in place of codes in {-1, +1}, whose Hamming distance is ½ (K - h_i·h_j):
    a triplet costs up to 1 where the codes turn its order around, down to 0 where they keep it.

    Ours: all triplets have a part; the authors' code leaves out those whose order is kept.

    Args:
        w: [p, K] f32.
        y: [L, p] f32, components of the landmarks.
        near, farther: returned by `relations`.
    """
    h = jnp.tanh(jnp.matmul(y, w, precision="highest"))
    inner = jnp.matmul(h, h.T, precision="highest")
    to_near = jnp.take_along_axis(inner, near, axis=1)
    costs = jax.nn.sigmoid(inner[:, None, :] - to_near[:, :, None])
    return jnp.sum(costs * farther) / jnp.maximum(jnp.sum(farther), 1)


@partial(jax.jit, static_argnames=("bits", "iterations"))
def learn(
    key: jax.Array, y: jax.Array, near: jax.Array, farther: jax.Array, bits: int, iterations: int
) -> tuple[jax.Array, jax.Array]:
    """Descent of `ordinal_loss` over W with orthonormal columns, or rows where K > p.

    From a random W, the gradient G gives the direction Z = G - W Gᵀ W on the manifold, and
    W - t Z goes back to it by its polar factor. The step t begins at twice the last one and is
    halved until the loss falls by at least `LEAST_FALL` t ⟨G, Z⟩, so no step increases the loss;
    where no step is found W stays.

    Ours: G is of all triplets, not of those of one landmark i after the other, and t is judged by
    the loss itself, not by a graph Laplacian of signs, which is constant almost everywhere.

    Args:
        y: [L, p] f32.
        near, farther: returned by `relations`.
        bits: K.
        iterations: steps.

    Returns:
        W [p, K] f32 and the losses [iterations + 1] f32, of the random W first, of the returned
        one last.
    """

    def loss(w: jax.Array) -> jax.Array:
        return ordinal_loss(w, y, near, farther)

    def descend(state: tuple, _: None) -> tuple[tuple, jax.Array]:
        w, step = state
        before, gradient = jax.value_and_grad(loss)(w)
        turned = jnp.matmul(w, jnp.matmul(gradient.T, w, precision="highest"), precision="highest")
        z = gradient - turned
        slope = jnp.sum(gradient * z)

        def attempt(step: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            moved = polar_factor(w - step * z)
            return step, moved, loss(moved)

        def too_long(tried: tuple) -> jax.Array:
            step, _, after = tried
            return ~(after <= before - LEAST_FALL * step * slope) & (step > LEAST_STEP)

        step, moved, after = jax.lax.while_loop(
            too_long, lambda tried: attempt(tried[0] / 2), attempt(2 * step)
        )
        return (jnp.where(after <= before, moved, w), step), before

    first = polar_factor(jax.random.normal(key, (y.shape[1], bits)))
    (w, _), losses = jax.lax.scan(descend, (first, jnp.float32(1)), length=iterations)
    return w, jnp.append(losses, loss(w))
