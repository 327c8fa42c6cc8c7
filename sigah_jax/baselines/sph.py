"""Spherical hashing (SpH): a bit says whether a row lies inside of a hypersphere.

Shapes: m rows drawn, d columns, K bits, Q queries, N base rows, W bytes a code.

`project` suits the Hamming distance; the distance that the authors made for these codes is that of
`spherical_groups`.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sigah_jax.baselines.sampling import drawn_rows
from sigah_jax.errors import BitsRefused
from sigah_jax.model.pca import mean_row
from sigah_jax.retrieval import hamming
from sigah_jax.retrieval.euclidean import squared_distances

PIVOT_ROWS = 5  # a first pivot is the mean of that many drawn rows, as in public code
MEAN_TOLERANCE = 0.10  # of m / 4; as in public code
SPREAD_TOLERANCE = 0.15  # of m / 4; as in public code


class Spheres(NamedTuple):
    """K hyperspheres, seen from near the middle of the data: rounding grows with distance."""

    centre: np.ndarray  # [d] f32, mean of the drawn rows
    pivots: np.ndarray  # [K, d] f32, less the centre
    squared_radii: np.ndarray  # [K] f32


def fit(key: jax.Array, xt: np.ndarray, bits: int, rows: int, iterations: int) -> Spheres:
    """K spheres that hold half of the rows each and, in pairs, a quarter in common.

    Half of the rows makes a bit balanced, a quarter in common makes two bits independent.

    Args:
        bits: K, any number from 2 on; more than d is allowed.
        rows: m, at most; all n if there are fewer.
        iterations: at most, for the stopping rule may never be met.

    Source: Heo, Lee, He, Chang and Yoon 2012 (CVPR), Spherical Hashing.
    """
    if bits < 2:
        raise BitsRefused(f"bits: SpH sets spheres against each other; got {bits}, use 2 or more")
    row_key, pivot_key = jax.random.split(key)
    x = drawn_rows(row_key, xt, rows)
    centre = mean_row(x)
    pivots, squared_radii, _ = balance(pivot_key, x - centre, bits, iterations)
    return Spheres(centre, pivots, squared_radii)


def balance(
    key: jax.Array, x: np.ndarray, bits: int, iterations: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moves pivots p until spheres around them overlap as those of independent bits do.

    A radius is the median distance of the rows to the pivot. With o_ij the rows that spheres i
    and j have in common, pivots are pushed apart or pulled together along their difference,
        p_i += (1 / K) Σ_j ½ (o_ij - m/4) / (m/4) (p_i - p_j),
    all at once, until both the mean of |o_ij - m/4| is at most `MEAN_TOLERANCE` and the standard
    deviation of o_ij at most `SPREAD_TOLERANCE` times m/4, over pairs i < j. A step has no step
    size that would guarantee progress, so the overlaps need not improve at each.

    Args:
        x: [m, d] f32, centred.
        bits: K.
        iterations: at most.

    Returns:
        p [K, d] f32, squared radii [K] f32, and [steps + 1, 2] f64, the two numbers of the
        stopping rule divided by m/4: before the first step, and after each of the steps taken.
    """
    m = len(x)
    pivots = x[np.asarray(jax.random.randint(key, (bits, PIVOT_ROWS), 0, m))].mean(axis=1)
    norms = np.einsum("ij,ij->i", x, x)
    pairs = np.triu_indices(bits, 1)
    errors = []
    while True:
        squared = norms[:, None] + np.einsum("ij,ij->i", pivots, pivots) - 2 * (x @ pivots.T)
        # between the two middle values, so that the rounding of a later `project` moves none
        squared_radii = np.median(squared, axis=0)
        inside = (squared < squared_radii).astype(np.float32)
        excess = (inside.T @ inside) / (m / 4) - 1
        errors.append((np.abs(excess[pairs]).mean(), excess[pairs].std()))
        met = errors[-1][0] <= MEAN_TOLERANCE and errors[-1][1] <= SPREAD_TOLERANCE
        if met or len(errors) > iterations:
            return pivots, squared_radii, np.array(errors, np.float64)
        np.fill_diagonal(excess, 0)
        # Σ_j e_ij (p_i - p_j) = (Σ_j e_ij) p_i - Σ_j e_ij p_j
        force = excess.sum(axis=1)[:, None] * pivots - excess @ pivots
        pivots = pivots + force / (2 * bits)


def project(params: Spheres, x: jax.Array) -> jax.Array:
    """radius² - ‖x - pivot‖², positive inside of a sphere: `[B, d] -> [B, K] f32`."""
    return params.squared_radii - squared_distances(x - params.centre, params.pivots)


@functools.cache  # one function for a number of bits, compiled once
def spherical_groups(bits: int) -> tuple[Callable[[jax.Array, jax.Array], jax.Array], int]:
    """The spherical Hamming distance |a xor b| / |a and b|, as groups of ties.

    Rows that lie in many spheres in common are near: two rows outside of a sphere may be
    anywhere, so common zeros count for nothing. Codes without a common one are at infinity, but
    equal codes at 0 (both ours).

    Returns:
        (function, G) of `histograms.group_histograms`: codes [Q, W] and [N, W] u1, whose bits
        past the last are zero, to [Q, N] i32, the place of the distance among its G values.
    """
    values, places = spherical_values(bits)

    def groups(cq: jax.Array, cb: jax.Array) -> jax.Array:
        a, b = (jnp.unpackbits(c, axis=1).astype(jnp.float32) for c in (cq, cb))
        # counts below 2²⁴: float32 holds them exactly
        common = jnp.matmul(a, b.T, precision="highest").astype(jnp.int32)
        differing = hamming.distances(cq, cb).astype(jnp.int32)
        return jnp.asarray(places)[differing, common]

    return groups, len(values)


def spherical_values(bits: int) -> tuple[np.ndarray, np.ndarray]:
    """All values of the distance for K bits, rising, and where each pair of counts is among them.

    Returns:
        [G] f64, and [K + 1, K + 1] i32 by |a xor b| and |a and b|.
    """
    differing, common = np.indices((bits + 1, bits + 1), np.float64)
    ratio = np.where(differing > 0, np.inf, 0.0)
    np.divide(differing, common, out=ratio, where=common > 0)  # equal ratios round alike
    values, places = np.unique(ratio, return_inverse=True)
    return values, places.reshape(ratio.shape).astype(np.int32)
