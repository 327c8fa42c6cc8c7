"""How far a synthetic feature may lie so that rows within a radius are found, and how surely.

True and synthetic distances of validation queries and training rows say it. A training keeps some
of these pairs with the encoder: all near ones, and fewer of the far ones, each of which then stands
for several. ours.

Shapes: V validation queries, n rows, c pairs a query, Q queries, d columns, P features. Distances
are squared; the true ones are those of the points that `retrieval.metric` makes of rows.

Not responsible for the unit of a radius, nor for the search (`encoder.radius`).
"""

import math
from typing import NamedTuple

import numpy as np

from sigah_jax.retrieval import euclidean, neighbours

PER_OCTAVE = 8  # pairs of a query between a rank and its double, if there are so many ranks
SORTED = 1 << 23  # distances that are sorted at once
LEAST_MISSED = 5  # pairs beyond the bound, at least, so that their share is known
LEAST_QUERIES = 20  # that must have a row within the radius


class Pairs(NamedTuple):
    """Distances between queries and rows that stand for all rows."""

    true: np.ndarray  # [V, c] f32 squared distances of points
    synthetic: np.ndarray  # [V, c] f32, ‖β z - ẑ‖² of the same pairs
    weight: np.ndarray  # [c] f32, how many rows each stands for


class Bounds(NamedTuple):
    """What is found where synthetic distances are limited, measured on the pairs."""

    bounds: np.ndarray  # [Q] f64, of ‖β z - ẑ‖²; -inf where no row can be, inf where all are
    recall: float  # the share found of the rows within the radius, all queries together
    precision: float  # the share within the radius of the rows found


def pairs(xq: np.ndarray, xb: np.ndarray, z: np.ndarray, z_hat: np.ndarray) -> Pairs:
    """Pairs of each query and rows at all ranks; which of those of about one rank is random.

    Args:
        xq: `[V, d]`; xb: `[n, d]`: points of queries and of rows.
        z: `[V, P]`; z_hat: `[n, P]`: the features of xq and the synthetic features of xb.
    """
    n = len(xb)
    octaves = math.ceil(math.log2(n + 1))
    edges = np.unique(np.geomspace(1, n + 1, 1 + PER_OCTAVE * octaves).round().astype(int)) - 1
    shape = len(xq), len(edges) - 1
    ranks = np.random.default_rng(0).integers(edges[:-1], edges[1:], shape)
    centre = euclidean.centre_of(xb)
    base, picked = xb - centre, np.empty(shape, np.int64)
    squared, step = np.einsum("nd,nd->n", base, base), max(1, SORTED // n)
    for start in range(0, len(xq), step):
        part = slice(start, start + step)
        order = np.argsort(squared - 2 * (xq[part] - centre) @ base.T, axis=1)
        picked[part] = np.take_along_axis(order, ranks[part], 1)
    true, synthetic = (
        neighbours.exact_distances(*both, picked).astype(np.float32)
        for both in ((xq, xb), (z, z_hat))
    )
    return Pairs(true, synthetic, np.diff(edges).astype(np.float32))


def least(held: Pairs, recall: float) -> float:
    """The smallest squared distance for which `bounds` has pairs enough; inf if there is none."""
    rows = math.ceil(LEAST_MISSED / (1 - recall))
    true, nearest = np.sort(held.true, axis=None), np.sort(held.true.min(axis=1))
    if rows > len(true) or len(nearest) < LEAST_QUERIES:
        return math.inf
    return float(max(true[rows - 1], nearest[LEAST_QUERIES - 1]))


def bounds(held: Pairs, limits: np.ndarray, recall: float) -> Bounds:
    """The bound of each query's synthetic distances, below which the asked share is found.

    It is the weighted quantile `recall` of the synthetic distances of pairs within the limit.

    Args:
        limits: `[Q] f64`, the squared distance of each query within which rows are wanted, one of
            them `least` or more. Smaller ones count as `least`, negative ones find nothing, and
            infinite ones all rows.
        recall: above 0, below 1.
    """
    order = np.argsort(held.synthetic, axis=None)
    true, synthetic = held.true.ravel()[order], held.synthetic.ravel()[order].astype(np.float64)
    weight = np.broadcast_to(held.weight, held.true.shape).ravel()[order].astype(np.float64)
    returned = np.cumsum(weight)
    raised = np.where(limits < 0, limits, np.maximum(limits, least(held, recall)))
    levels, numbers, counts = np.unique(raised, return_inverse=True, return_counts=True)
    found, totals = np.full(len(levels), -np.inf), np.zeros(3)
    for i in np.flatnonzero(levels >= 0):
        within = np.cumsum(weight * (true <= levels[i]))
        found[i] = synthetic[np.searchsorted(within, recall * within[-1])]
        if levels[i] == np.inf:  # all rows are within, whatever lies how far
            found[i] = np.inf
        last = np.searchsorted(synthetic, found[i], side="right") - 1
        totals += counts[i] * np.array([within[last], within[-1], returned[last]])
    with np.errstate(invalid="ignore"):  # without queries
        shares = totals[0] / totals[1:]
    return Bounds(found[numbers], *shares.tolist())
