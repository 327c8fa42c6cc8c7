"""Spectral hashing (SH): sinusoids along principal directions, the slowest ones first.

Shapes: n training rows, d columns, p principal directions, K bits.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sigah_jax.baselines import linear
from sigah_jax.baselines.linear import LinearHash
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput
from sigah_jax.model.pca import BLOCK_ROWS, principal_directions


class Sinusoids(NamedTuple):
    """K plane waves cos((x - mean) W - phase)."""

    mean: np.ndarray  # [d] f32
    weights: np.ndarray  # [d, K] f32, a principal direction times an angular frequency a column
    phase: np.ndarray  # [K] f32, radians: the angle at the lower end of the box


def fit(key: jax.Array, xt: np.ndarray, bits: int) -> Sinusoids:
    """The K slowest eigenfunctions of a box that holds the principal components of xt.

    A balanced code of uncorrelated bits that changes least between similar rows relaxes to the
    eigenfunctions of a Laplacian. Of a uniform density on the box Π [a_i, b_i] they are known;
    along one direction i they are
        Φ_ik(v) = cos(k π (v_i - a_i) / (b_i - a_i)),  k = 1, 2, ...,
    with an eigenvalue that grows with the frequency k π / (b_i - a_i) only. The K of lowest
    frequency are taken, equal ones by the direction of larger variance. So a long direction
    gives several bits, and products of two directions none, as in the paper: their bit is the
    exclusive or of two others.

    The box reaches from the least to the greatest training component, as in the authors' public
    code; the paper leaves it open. Its small margin beyond them (one float64 epsilon) is left out.

    Any number of bits; min(K, d) directions are used. BadInput if all training rows are equal.

    Source: Weiss, Torralba and Fergus 2008 (NIPS), Spectral Hashing.
    """
    p = min(bits, xt.shape[1])
    mean, directions, _ = principal_directions(xt, p)
    v = parallel.map_rows(linear.project, BLOCK_ROWS)(LinearHash(mean, directions), xt)
    low = v.min(axis=0).astype(np.float64)
    direction, frequency = slowest_modes(v.max(axis=0) - low, bits)
    return Sinusoids(
        mean,
        (directions[:, direction] * frequency).astype(np.float32),
        (low[direction] * frequency).astype(np.float32),
    )


def slowest_modes(lengths: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The K lowest of the frequencies k π / length, k = 1, 2, ..., over the sides of a box.

    Args:
        lengths: [p], not negative; a side of length zero has no mode.
        bits: K, any number.

    Returns:
        side [K] and angular frequency [K] f64, which rises; of equal ones the first side first.

    Raises:
        BadInput: no side has a length.
    """
    if not lengths.any():
        raise BadInput("training set: spectral hashing needs rows that differ; all rows are equal")
    # The longest side alone has K modes that are no faster than its K-th: none needs k > K.
    with np.errstate(divide="ignore"):
        frequencies = np.pi * np.arange(1, bits + 1) / lengths.astype(np.float64)[:, None]
    order = np.argsort(frequencies, axis=None, kind="stable")[:bits]
    return order // bits, frequencies.ravel()[order]


def project(params: Sinusoids, x: jax.Array) -> jax.Array:
    """cos((x - mean) W - phase), `[B, d] -> [B, K] f32` in -1..1; outside of the box as well."""
    return jnp.cos(linear.project(LinearHash(params.mean, params.weights), x) - params.phase)
