"""Anchor graph hashing (AGH): signs of the slow eigenvectors of a graph through anchors.

Shapes: n training rows, d columns, m anchors, s nearest anchors of a row, B rows of a batch,
K bits, h eigenvectors of which h₂ are cut a second time (h + h₂ = K).

The graph joins two rows as far as they share anchors: A = Z Λ⁻¹ Zᵀ, where row i of Z [n, m]
holds the weights of the s anchors nearest to row i, which sum to one, and Λ = diag(Zᵀ 1). So A
is never formed: its eigenvectors are Z times those of an m x m matrix, and Z extends them to
rows outside of the training set.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sigah_jax.baselines.kmeans import centres_of
from sigah_jax.errors import BadInput, BitsRefused
from sigah_jax.model.pca import blocks, with_positive_peaks
from sigah_jax.retrieval.euclidean import squared_distances

KMEANS_ROWS = 50_000  # at most, drawn by the key
KMEANS_ITERATIONS = 10  # the anchors need to cover the data, not to converge
TRIVIAL = 1 - 1e-5  # eigenvalues from here on are 1, rounding apart: unconnected parts
POSITIVE = 1e-6  # eigenvalues up to here are rounding errors of zero


class AnchorGraph(NamedTuple):
    """Anchors, their kernel, and the eigenvectors of the graph as functions of anchor weights."""

    centre: np.ndarray  # [d] f32, mean of the anchors: rounding grows with distance from it
    anchors: np.ndarray  # [m, d] f32, less the centre
    widths: np.ndarray  # [s] f32, t of the kernel exp(-distance² / t), s times: shapes hold s
    weights: np.ndarray  # [m, h] f32, the eigenvectors are Z W
    above: np.ndarray  # [h₂] f32, b⁺: the second cut where an eigenvector is positive
    below: np.ndarray  # [h₂] f32, b⁻: the second cut elsewhere; one layer has h₂ = 0


def fit(
    key: jax.Array, xt: np.ndarray, bits: int, anchors: int, nearest: int, layers: int
) -> AnchorGraph:
    """Anchors by k-means, then the eigenvectors of largest eigenvalue below 1 of the graph.

    The kernel exp(-distance² / t) of a row and an anchor has √t = the mean distance of a row to
    its s-th nearest anchor, as in the authors' public code.

    One layer: bit k is the sign of eigenvector k, K of them. Two layers: of ⌈K/2⌉ eigenvectors,
    each cut once more on both sides of zero (`second_thresholds`), so that the slow ones give
    two bits and the fast ones, which vary within neighbourhoods, none. The bits of the first
    cuts come first; of an odd K the last eigenvector is cut once (the paper has even K).

    Args:
        bits: K, less than the anchors (one layer) or than twice as many (two layers).
        anchors: m, at most n; 300 in the paper.
        nearest: s, 1 to m; 2 to a tenth of m by the authors, to be tuned to the data.
        layers: 1 or 2.

    Raises:
        BadInput: numbers that do not fit one another, or a graph of too few eigenvectors.

    Source: Liu, Wang, Kumar and Chang 2011 (ICML), Hashing with Graphs.
    """
    if layers not in (1, 2):
        raise BadInput(f"layers: AGH has one or two layers; got {layers}, use 1 or 2")
    if not 1 <= nearest <= anchors <= len(xt):
        raise BadInput(
            f"anchors: AGH takes nearest anchors <= anchors <= training rows; got {nearest} "
            f"nearest of {anchors} anchors of {len(xt)} rows"
        )
    h = bits if layers == 1 else -(-bits // 2)
    if h >= anchors:
        raise BitsRefused(
            f"bits: AGH with {layers} layer(s) and {bits} bits takes {h} eigenvectors of its "
            f"anchor graph, fewer than anchors; got {anchors} anchors, use more than {h}"
        )
    centroids = centres_of(key, xt, anchors, KMEANS_ROWS, KMEANS_ITERATIONS)
    centre = centroids.mean(axis=0)
    none = np.zeros((anchors, 0), np.float32)
    graph = AnchorGraph(
        centre, centroids - centre, np.ones(nearest, np.float32), none, none[0], none[0]
    )
    graph = graph._replace(widths=np.full(nearest, kernel_width(graph, xt), np.float32))
    mass, shared = _total(_anchor_sums, graph, xt)
    weights = eigenvectors(mass, shared, len(xt), h)
    if layers == 1:
        return graph._replace(weights=weights.astype(np.float32))
    above, below = second_thresholds(graph, xt, mass, weights[:, : bits - h])
    return graph._replace(weights=weights.astype(np.float32), above=above, below=below)


def eigenvectors(mass: np.ndarray, shared: np.ndarray, n: int, h: int) -> np.ndarray:
    """The h eigenvectors of A = Z Λ⁻¹ Zᵀ of largest eigenvalue, less the trivial ones.

    With M = Λ^-½ Zᵀ Z Λ^-½ and M V = V Σ, Y = Z W with W = √n Λ^-½ V Σ^-½ has A Y = Y Σ,
    Yᵀ Y = n I, and Yᵀ 1 = 0 since 1 is the eigenvector of eigenvalue 1. A graph in c parts has
    c eigenvectors of eigenvalue 1, any mixture of which is as good: all are left out. (The
    authors' public code leaves out eigenvalues from 0.999 on; along a curve of many anchors
    these are the slow eigenvectors.) Float64, for Σ reaches down to small numbers.

    Args:
        mass: [m] f64, Zᵀ 1. An anchor that no row is near to has mass 0 and takes no part.
        shared: [m, m] f64, Zᵀ Z.
        n: rows of Z.
        h: number of eigenvectors.

    Returns:
        W [m, h] f64, with the signs of `with_positive_peaks`.

    Raises:
        BadInput: A has fewer than h eigenvalues between 0 and 1.
    """
    root = np.divide(1, np.sqrt(mass), out=np.zeros_like(mass), where=mass > 0)
    values, v = np.linalg.eigh(root[:, None] * shared * root)
    inner = np.flatnonzero((values > POSITIVE) & (values < TRIVIAL))[::-1]
    if len(inner) < h:
        raise BitsRefused(
            f"bits: AGH takes {h} eigenvectors of its anchor graph, which has {len(inner)} between "
            "the trivial and the empty ones; use fewer bits, more anchors or more nearest anchors"
        )
    values, v = values[inner[:h]], v[:, inner[:h]]
    return with_positive_peaks(np.sqrt(n) * root[:, None] * v / np.sqrt(values))


def second_thresholds(
    graph: AnchorGraph, xt: np.ndarray, mass: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where to cut each side of an eigenvector y = Z w again: b⁺ above zero, b⁻ below.

    The cuts are those of the vector that changes least over the graph and is balanced,
        argmin fᵀ (I - A) f  with  1ᵀ f = 0,  f = y - b⁺ where y > 0, f = b⁻ - y elsewhere.
    Let p be the indicator of y > 0, n₁ = 1ᵀ p and β = b⁺ + b⁻: then f = |y| + b⁻ - β p. Since
    (I - A) 1 = 0, the quadratic form depends on β alone and is least at
        β = |y|ᵀ (I - A) p / pᵀ (I - A) p,
    and 1ᵀ f = 0 gives b⁻ = (β n₁ - 1ᵀ |y|) / n.

    Args:
        graph: anchors, centre and widths.
        mass: [m] f64, Zᵀ 1.
        weights: [m, h₂] f64.

    Returns:
        b⁺ and b⁻, [h₂] f32 both.
    """
    graph = graph._replace(weights=weights.astype(np.float32))
    positive, absolute, both, z_positive, z_absolute = _total(_cut_sums, graph, xt)
    # an anchor without mass has no part in Zᵀ p either
    by_mass = z_positive / np.where(mass > 0, mass, 1)[:, None]
    slope = both - np.sum(z_absolute * by_mass, axis=0)
    beta = slope / (positive - np.sum(z_positive * by_mass, axis=0))
    below = (beta * positive - absolute) / len(xt)
    return (beta - below).astype(np.float32), below.astype(np.float32)


def project(params: AnchorGraph, x: jax.Array) -> jax.Array:
    """Eigenvectors y = Z W of the rows, then y - b⁺ or b⁻ - y, `[B, d] -> [B, K] f32`."""
    y = jnp.matmul(anchor_weights(params, x), params.weights, precision="highest")
    first = y[:, : len(params.above)]
    second = jnp.where(first > 0, first - params.above, params.below - first)
    return jnp.concatenate([y, second], axis=1)


def anchor_weights(params: AnchorGraph, x: jax.Array) -> jax.Array:
    """Z [B, m] f32: the kernel of the s nearest anchors of each row, summing to 1, zero elsewhere.

    Ties go to the lower anchor. Far from all anchors, where every kernel is 0 in float32, the
    weights stay what their ratios are.
    """
    d, ids = _nearest_anchors(params, x)
    # The nearest one's exponent is 0 whatever the width: 0 / 0 and inf - inf cannot arise.
    weights = jax.nn.softmax((d[:, :1] - d) / params.widths, axis=1)
    rows = jnp.arange(len(x))[:, None]
    return jnp.zeros((len(x), len(params.anchors))).at[rows, ids].set(weights)


def _nearest_anchors(params: AnchorGraph, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Squared distances [B, s] f32 and ids [B, s] of the s nearest anchors, nearest first."""
    d = squared_distances(x - params.centre, params.anchors)
    nearest, ids = lax.top_k(-d, len(params.widths))
    return -nearest, ids


def kernel_width(graph: AnchorGraph, xt: np.ndarray) -> float:
    """t, the square of the mean distance of a row to its s-th nearest anchor; never 0."""
    (total,) = _total(_distance_sum, graph, xt)
    # 0 where all rows are on anchors
    return max((total / len(xt)) ** 2, np.finfo(np.float32).tiny)


def _total(sums: Callable, graph: AnchorGraph, xt: np.ndarray) -> list[np.ndarray]:
    """`sums(graph, block)` over all blocks of rows, added in float64."""
    parts = ([np.asarray(a, np.float64) for a in sums(graph, block)] for block in blocks(xt))
    return [sum(terms) for terms in zip(*parts, strict=True)]


@jax.jit
def _distance_sum(graph: AnchorGraph, x: jax.Array) -> tuple[jax.Array, ...]:
    """Distances to the s-th nearest anchor, summed."""
    d, _ = _nearest_anchors(graph, x)
    return (jnp.sum(jnp.sqrt(d[:, -1])),)


@jax.jit
def _anchor_sums(graph: AnchorGraph, x: jax.Array) -> tuple[jax.Array, ...]:
    """Zᵀ 1 [m] and Zᵀ Z [m, m]."""
    z = anchor_weights(graph, x)
    return jnp.sum(z, axis=0), jnp.matmul(z.T, z, precision="highest")


@jax.jit
def _cut_sums(graph: AnchorGraph, x: jax.Array) -> tuple[jax.Array, ...]:
    """For y = Z W and p = (y > 0): 1ᵀ p, 1ᵀ |y|, |y|ᵀ p, each [h], and Zᵀ p, Zᵀ |y|, [m, h]."""
    z = anchor_weights(graph, x)
    y = jnp.matmul(z, graph.weights, precision="highest")
    p = (y > 0).astype(y.dtype)
    c = jnp.abs(y)
    z_p, z_c = (jnp.matmul(z.T, v, precision="highest") for v in (p, c))
    return jnp.sum(p, axis=0), jnp.sum(c, axis=0), jnp.sum(c * p, axis=0), z_p, z_c
