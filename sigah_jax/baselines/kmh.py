"""K-means hashing (KMH): the number of the nearest codeword, with near codewords numbered alike.

Shapes: n training rows, d columns, K bits in M subspaces of b bits, k = 2^b codewords of a
subspace, s columns of a subspace, B rows of a batch.

Not responsible for a distance: the authors rank by the Hamming distance of the whole code, as if
the scales of codewords were the same in all subspaces.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sigah_jax.baselines import linear
from sigah_jax.baselines.linear import LinearHash, check_bits
from sigah_jax.baselines.sampling import drawn_rows
from sigah_jax.devices import parallel
from sigah_jax.errors import BitsRefused
from sigah_jax.model.pca import BLOCK_ROWS, principal_directions

LEAST_VARIANCE = 1e-10  # of the largest: smaller ones are rounding errors, and logs need a floor
MOST_SUBSPACE_BITS = 8  # 256 codewords, the most that the authors' public code suggests
STEPS = 20  # of the codewords for each assignment of rows


class Codewords(NamedTuple):
    """M sets of codewords, each in its own columns of the rotated rows."""

    mean: np.ndarray  # [d] f32
    rotation: np.ndarray  # [d, M s] f32, orthonormal except for columns of zeros that fill up
    codewords: np.ndarray  # [M, k, s] f32; row i has the code i, bit 0 the most significant


def fit(
    key: jax.Array,
    xt: np.ndarray,
    bits: int,
    subspace_bits: int,
    rows: int,
    iterations: int,
    affinity: float,
) -> Codewords:
    """`affinity_preserving_kmeans` in each of M = K / b subspaces, the `balanced_groups`.

    Differences from the authors' public code: subspaces of different size are filled up with
    zero columns, so d need not be a multiple of M, and the codewords move together by a step in
    closed form instead of one after the other by a general minimiser.

    Args:
        bits: K, a multiple of `subspace_bits`, at most d.
        subspace_bits: b, 1 to 8; 2, 4 or 8 by data set in the authors' public code.
        rows: trained on, at most; all n if there are fewer.
        iterations: assignments of rows to codewords; 50 in the authors' public code.
        affinity: λ, the weight of the affinity error; 10 in the authors' public code.

    Source: He, Wen and Sun 2013 (CVPR), K-means Hashing.
    """
    d = xt.shape[1]
    if not 1 <= subspace_bits <= MOST_SUBSPACE_BITS or bits % subspace_bits:
        raise BitsRefused(
            f"bits: KMH cuts a code into subspaces of {subspace_bits} bits; got {bits} bits, use "
            f"a multiple, with subspaces of 1 to {MOST_SUBSPACE_BITS} bits"
        )
    check_bits("KMH", bits, d)
    mean, directions, variances = principal_directions(xt, d)
    groups = balanced_groups(variances, bits // subspace_bits)
    rotation = np.concatenate([directions, np.zeros((d, 1), np.float32)], axis=1)[:, groups]
    rotation = rotation.reshape(d, groups.size)
    rotate = parallel.map_rows(linear.project, BLOCK_ROWS)
    z = rotate(LinearHash(mean, rotation), drawn_rows(key, xt, rows))
    codewords = np.empty((len(groups), 2**subspace_bits, groups.shape[1]), np.float32)
    for i, part in enumerate(np.split(z, len(groups), axis=1)):
        codewords[i], _ = affinity_preserving_kmeans(part, subspace_bits, iterations, affinity)
    return Codewords(mean, rotation, codewords)


def balanced_groups(variances: np.ndarray, m: int) -> np.ndarray:
    """Groups of components whose products of variances are about equal.

    From the largest variance down, each goes to the group of smallest product so far, of equals
    the first, among those with room. Sizes are as equal as can be. Logarithms count from below
    the smallest, so that a product never falls by one more component.

    Args:
        variances: [d], not negative, falling.
        m: number of groups, at most d.

    Returns:
        [m, ceil(d / m)] int ids of components, by falling variance; the id d fills up.

    Source: the eigenvalue allocation of Ge, He, Ke and Sun 2013 (CVPR), Optimized Product
    Quantization, which the authors' public code takes over.
    """
    d = len(variances)
    logs = np.log(np.maximum(variances.astype(np.float64), variances[0] * LEAST_VARIANCE))
    logs -= logs.min() - 1
    groups = np.full((m, -(-d // m)), d)
    sizes, products = np.zeros(m, int), np.zeros(m)
    for component, log in enumerate(logs):
        longer = np.count_nonzero(sizes > d // m)
        room = sizes < d // m + (longer < d % m)
        group = np.where(room, products, np.inf).argmin()
        groups[group, sizes[group]] = component
        sizes[group] += 1
        products[group] += log
    return groups


@partial(jax.jit, static_argnames=("bits", "iterations"))
def affinity_preserving_kmeans(
    z: jax.Array, bits: int, iterations: int, affinity: float
) -> tuple[jax.Array, jax.Array]:
    """Codewords c_i that are near to the rows and as far apart as their indices differ.

    The objective is
        E = Σ_x ‖x - c_i(x)‖² / n + λ Σ_ij p_i p_j (‖c_i - c_j‖ - r √h_ij)²,
    with i(x) the codeword nearest to x, p_i the share of rows that it has, h_ij the Hamming
    distance of the numbers i and j, and r a scale. First codewords are the corners of a cube in
    the first b columns, ±a, with a the mean of |x| over those columns, and r = 2 a, so that the
    second term begins at zero; r stays.

    Each iteration assigns the rows, which lowers the first term and sets p, and then takes
    `STEPS` steps of the codewords for fixed rows. Let c⁰ be the codewords before a step, μ_j the
    mean of the rows of j and u_ij the unit vector from c⁰_i to c⁰_j. Since ‖c_i - c_j‖ is at least
    u_ijᵀ (c_j - c_i), E is at most a quadratic function of c, with equality at c⁰, whose minimum is
        c_j = (μ_j + 2 λ (μ + r Σ_i p_i √h_ij u_ij)) / (1 + 2 λ),  μ the mean of all rows,
    so no step increases E, rounding apart. A codeword without rows has no part in E and stays.

    Args:
        z: [n, s] f32, centred, columns by falling variance, s >= b.
        bits: b.
        iterations: assignments.
        affinity: λ.

    Returns:
        c [k, s] f32 and E [iterations, 2] f32, before and after the steps of each iteration.
    """
    numbers = jnp.arange(2**bits)
    corners = bits_of(numbers, bits)
    scale = jnp.mean(jnp.abs(z[:, :bits]))
    first = jnp.zeros((2**bits, z.shape[1])).at[:, :bits].set(corners * scale)
    hamming = jnp.sum(corners[:, None] != corners, axis=2)
    targets = 2 * scale * jnp.sqrt(hamming.astype(z.dtype))
    energy = jnp.mean(jnp.sum(z**2, axis=1))
    mean = jnp.mean(z, axis=0)

    def iterate(c: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        nearest = jax.nn.one_hot(jnp.argmin(scores(z, c), axis=1), len(c), dtype=z.dtype)
        shares = jnp.mean(nearest, axis=0)
        sums = jnp.matmul(nearest.T, z, precision="highest") / len(z)
        occupied = (shares > 0)[:, None]
        means = sums / jnp.where(occupied, shares[:, None], 1)

        def objective(c: jax.Array) -> jax.Array:
            quantisation = energy + jnp.sum(shares[:, None] * c**2) - 2 * jnp.sum(sums * c)
            return quantisation + affinity * shares @ (distances(c) - targets) ** 2 @ shares

        def step(_: int, c: jax.Array) -> jax.Array:
            apart = distances(c)
            pull = shares * targets / jnp.where(apart > 0, apart, jnp.inf)  # [j, i]
            # Σ_i pull_ji (c_j - c_i) = (Σ_i pull_ji) c_j - Σ_i pull_ji c_i
            spread = jnp.sum(pull, axis=1)[:, None] * c - jnp.matmul(pull, c, precision="highest")
            moved = (means + 2 * affinity * (mean + spread)) / (1 + 2 * affinity)
            return jnp.where(occupied, moved, c)

        before = objective(c)
        c = jax.lax.fori_loop(0, STEPS, step, c)
        return c, jnp.stack([before, objective(c)])

    return jax.lax.scan(iterate, first, length=iterations)


def distances(c: jax.Array) -> jax.Array:
    """Euclidean distances [k, k] of codewords [k, s], zero on the diagonal."""
    squared = jnp.sum(c**2, axis=1)[:, None] + scores(c, c)
    return jnp.sqrt(jnp.maximum(squared, 0)) * (1 - jnp.eye(len(c)))


def scores(z: jax.Array, c: jax.Array) -> jax.Array:
    """‖c‖² - 2 z·c, [n, k]: squared distances of rows [n, s] and codewords [k, s], less ‖z‖²."""
    return jnp.sum(c**2, axis=1) - 2 * jnp.matmul(z, c.T, precision="highest")


def bits_of(numbers: jax.Array, bits: int) -> jax.Array:
    """The binary digits of whole numbers [...] as ±1, [..., bits] f32, most significant first."""
    digits = numbers[..., None] >> jnp.arange(bits - 1, -1, -1) & 1
    return 2.0 * digits - 1


def project(params: Codewords, x: jax.Array) -> jax.Array:
    """±1 for the bits of the nearest codeword's index, of equals the lower: `[B, d] -> [B, K]`."""
    m, k, s = params.codewords.shape
    z = linear.project(LinearHash(params.mean, params.rotation), x).reshape(len(x), m, s)
    nearest = jnp.argmin(jax.vmap(scores, in_axes=(1, 0), out_axes=1)(z, params.codewords), axis=2)
    return bits_of(nearest, k.bit_length() - 1).reshape(len(x), -1)
