"""Batches as a pure function of (seed, step): which rows, which neighbours, which draws.

Shapes: A anchors, G rows a group, N neighbours and J draws an anchor, k neighbours in the graph,
n rows of the training set, m training queries.

Not responsible for features (`step.gather` takes them) nor for splitting over devices.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np


class Batch(NamedTuple):
    """The choice of rows of one step, or of S steps with S in front of every shape."""

    rows: np.ndarray | jax.Array  # [A, G] i32, rows of the training set
    neighbour_ranks: np.ndarray | jax.Array  # [A, N] i32, ranks of the last N rows of a group among
    # the neighbours of its anchor, 1 = nearest; N = 0 without a graph
    draws: np.ndarray | jax.Array  # [A, J] f32 uniform in [0, 1), for in-batch positives
    anchors: np.ndarray | jax.Array  # [A] i32, rows of the graph: training queries, or the first
    # rows of the groups where these are the queries


@functools.lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of the n rows in one epoch, `[n] i32`."""
    # two streams of the same seed: even keys are epochs, odd keys are steps
    generator = np.random.Generator(np.random.Philox(key=[seed, 2 * epoch]))
    return generator.permutation(n).astype(np.int32)


def batch(
    seed: int,
    step: int,
    n: int,
    anchors: int,
    others: int,
    neighbours: int,
    draws: int,
    graph: np.ndarray | None,
    queries: int = 0,
) -> Batch:
    """The batch of one step.

    The permutations of all epochs are read as one endless list, A·(1 + others) rows a step: an
    epoch's last rows are never dropped. The neighbours of an anchor are drawn from the graph
    at log-uniform ranks ⌊exp(U ln(k + 1))⌋ in 1..k, each on its own.

    Args:
        n: rows of the training set, at least A·(1 + others).
        anchors: A; others: random rows beside each anchor; neighbours: N; draws: J.
        graph: `[n, k] i32` nearest other rows, nearest first, or None; `[m, k]` nearest rows of
            training queries.
        queries: m, of which the anchors are drawn; 0: they are the first rows of their groups.

    Returns:
        A batch on the host, of G = 1 + others rows a group, and N more with a graph.
    """
    size = anchors * (1 + others)
    epoch, start = divmod(step * size, n)
    rows = permutation(seed, epoch, n)[start : start + size]
    if len(rows) < size:
        rows = np.concatenate([rows, permutation(seed, epoch + 1, n)[: size - len(rows)]])
    rows = rows.reshape(anchors, 1 + others)

    generator = np.random.Generator(np.random.Philox(key=[seed, 2 * step + 1]))
    uniform = generator.random((anchors, draws), np.float32)
    ranks, asked = np.zeros((anchors, 0), np.int32), rows[:, 0]
    if queries:
        asked = generator.integers(queries, size=anchors, dtype=np.int32)
    if graph is not None:
        k = graph.shape[1]
        u = generator.random((anchors, neighbours))
        ranks = np.exp(u * np.log(k + 1)).astype(np.int32).clip(1, k)
        rows = np.concatenate([rows, graph[asked[:, None], ranks - 1]], 1)
    return Batch(rows, ranks, uniform, asked)


def batches(seed: int, first: int, steps: int, **shape) -> Batch:
    """The batches of `steps` steps from `first` on, stacked: every field is `[S, ...]`."""
    each = [batch(seed, step, **shape) for step in range(first, first + steps)]
    return Batch(*(np.stack(field) for field in zip(*each, strict=True)))
