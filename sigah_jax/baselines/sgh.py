"""Scalable graph hashing (SGH): kernelised bits that add up to the similarity of all pairs.

Shapes: n training rows, d columns, m bases of the kernel, K bits.

The similarity of two rows is S̃_ij = 2 exp(-‖x_i - x_j‖² / ρ) - 1, of rows less their mean, and
the bits b_k = sgn(F w_k) in {-1, +1}ⁿ are to make Σ_k b_k b_kᵀ close to K S̃. S̃ is never formed:
by the chord of exp over [-1, 1], exp(z) ≈ z sinh 1 + cosh 1, it is about P Qᵀ with a few columns
more than x has (`fit`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse.linalg import eigsh

from sigah_jax.baselines.sampling import drawn_rows
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput
from sigah_jax.model.pca import BLOCK_ROWS, blocks, mean_row, with_positive_peaks
from sigah_jax.retrieval.euclidean import squared_distances

RIDGE = 1e-6  # γ of the public code, here times the mean diagonal entry of FᵀF


class KernelHash(NamedTuple):
    """K hyperplanes in the space of centred kernel values of m bases."""

    mean: np.ndarray  # [d] f32
    bases: np.ndarray  # [m, d] f32, training rows less the mean
    width: np.ndarray  # [] f32, δ of the kernel exp(-distance² / (2 δ))
    kernel_mean: np.ndarray  # [m] f32, mean of the kernel over the training rows
    weights: np.ndarray  # [m, K] f32


def fit(key: jax.Array, xt: np.ndarray, bits: int, bases: int, rounds: int) -> KernelHash:
    """Feature transformation, then bits one after the other (`learn_bits`).

    With ρ = 2 max ‖x‖², 2 x_i·x_j / ρ is within [-1, 1], where the chord is a good
    approximation, and S̃ ≈ P Qᵀ for
        P(x) = [α e x, β e, 1],  Q(x) = [α e x, β e, -1],  e = exp(-‖x‖² / ρ),
        α² = 4 sinh(1) / ρ,  β² = 2 cosh(1).
    The kernel values F [n, m] have mean zero over the rows, so the constant columns add nothing
    to Fᵀ P Qᵀ F.

    Differences from the authors' public code: rows keep their lengths (it makes them one), and the
    ridge is relative, because F is float32.

    Args:
        bits: K, any number; more than d is allowed.
        bases: m, random training rows, 2 to n; 300 in the authors' public code.
        rounds: how often all bits are learned again; 1 in the authors' public code.

    Raises:
        BadInput: more bases than rows, or rows that are all equal.

    Source: Jiang and Li 2015 (IJCAI), Scalable Graph Hashing with Feature Transformation.
    """
    n = len(xt)
    if not 2 <= bases <= n:
        raise BadInput(
            f"bases: SGH draws them from the {n} training rows; got {bases}, use 2 to {n}"
        )
    base_key, order_key = jax.random.split(key)
    mean = mean_row(xt)
    params = KernelHash(
        mean,
        drawn_rows(base_key, xt, bases) - mean,
        np.float32(1),
        np.zeros(bases, np.float32),
        np.zeros((bases, 0), np.float32),
    )
    width, rho = _scales(params, xt)
    params = params._replace(width=np.float32(width))
    features = parallel.map_rows(kernel, BLOCK_ROWS)(params, xt)
    params = params._replace(kernel_mean=mean_row(features))
    features -= params.kernel_mean
    similarity = transformed_similarity(features, xt, mean, rho)
    weights = learn_bits(order_key, features, similarity, bits, rounds)
    return params._replace(weights=weights.astype(np.float32))


def transformed_similarity(
    features: np.ndarray, xt: np.ndarray, mean: np.ndarray, rho: float
) -> np.ndarray:
    """Fᵀ P Qᵀ F [m, m] f64 for features F [n, m] of rows xt [n, d], by blocks of rows."""
    by_row = np.zeros((features.shape[1], xt.shape[1]))
    by_length = np.zeros(features.shape[1])
    for k, block in zip(blocks(features), blocks(xt), strict=True):
        x = block - mean
        e = np.exp(-np.sum(x**2, axis=1, keepdims=True) / np.float32(rho))
        by_row += k.T @ (e * x)
        by_length += (k.T @ e)[:, 0]
    rows = 4 * np.sinh(1) / rho * by_row @ by_row.T
    return rows + 2 * np.cosh(1) * np.outer(by_length, by_length)


def learn_bits(
    key: jax.Array, features: np.ndarray, similarity: np.ndarray, bits: int, rounds: int
) -> np.ndarray:
    """Weights w_k such that Σ b_k b_kᵀ, b_k = sgn(F w_k), is near K S̃, each fitted to what is left.

    For the residual R = K S̃ - Σ b_j b_jᵀ, over bits j learned so far, w_k is the relaxed solution
        argmax wᵀ Fᵀ R F w  with  wᵀ (FᵀF + γ I) w = 1,
    the first generalised eigenvector. In each further round, in a random order, the term of a
    bit is put back into the residual and the bit is learned again.

    Eigenproblems are float64 and on whitened features F L⁻ᵀ, with L Lᵀ = FᵀF + γ I: kernel values
    of near bases are almost dependent.

    Args:
        features: F [n, m] f32, of mean zero.
        similarity: Fᵀ S̃ F [m, m] f64.
        bits: K.
        rounds: further rounds.

    Returns:
        [m, K] f64, of unit length, with the signs of `with_positive_peaks`.
    """
    gram = sum(np.matmul(k.T, k, dtype=np.float64) for k in blocks(features))
    factor = np.linalg.cholesky(gram + RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram)))
    inverse = np.linalg.inv(factor)
    residual = bits * (inverse @ similarity @ inverse.T)
    weights, terms = np.zeros((len(gram), bits)), np.zeros((len(gram), bits))
    start = np.ones(len(gram))  # of the Lanczos iteration, which would draw one
    orders = [np.arange(bits)]
    for round_key in jax.random.split(key, rounds) if rounds else []:
        orders.append(np.asarray(jax.random.permutation(round_key, bits)))
    for k in np.concatenate(orders):
        residual += np.outer(terms[:, k], terms[:, k])
        _, v = eigsh(residual, k=1, which="LA", v0=start)
        w = inverse.T @ v[:, 0]
        weights[:, k] = w / np.linalg.norm(w)
        b = np.where(features @ weights[:, k].astype(np.float32) > 0, np.float32(1), np.float32(-1))
        terms[:, k] = inverse @ (b @ features)
        residual -= np.outer(terms[:, k], terms[:, k])
    return with_positive_peaks(weights)


def kernel(params: KernelHash, x: jax.Array) -> jax.Array:
    """exp(-‖x - base‖² / (2 δ)) of rows [B, d] and the m bases, [B, m] f32."""
    return jnp.exp(-squared_distances(x - params.mean, params.bases) / (2 * params.width))


def project(params: KernelHash, x: jax.Array) -> jax.Array:
    """Centred kernel values times the weights, `[B, d] -> [B, K] f32`."""
    centred = kernel(params, x) - params.kernel_mean
    return jnp.matmul(centred, params.weights, precision="highest")


def _scales(params: KernelHash, xt: np.ndarray) -> tuple[float, float]:
    """δ, the mean squared distance of rows and bases, and ρ.

    The mean of ‖x - base‖² over all pairs is that of ‖x‖² plus that of ‖base‖², for x has mean 0.
    """
    total, largest = 0.0, 0.0
    for block in blocks(xt):
        squared = np.sum((block - params.mean) ** 2, axis=1, dtype=np.float64)
        total, largest = total + squared.sum(), max(largest, squared.max())
    if largest == 0:
        raise BadInput(f"SGH needs training rows that differ; got {len(xt)} equal ones")
    width = total / len(xt) + np.mean(np.sum(params.bases**2, axis=1, dtype=np.float64))
    return width, 2 * largest
