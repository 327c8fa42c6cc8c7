"""A neighbour graph that need not be exact, for training sets that an exact one takes too long for.

An inverted file of faiss: rows lie in lists, one a centre of k-means, and only the rows of the
lists whose centres are nearest are compared. It runs on the CPU, whatever devices there are.

Shapes: n rows, d columns, k neighbours.

Not responsible for exact graphs (`euclidean`), nor for what recall is enough.
"""

import faiss
import numpy as np

from sigah_jax.retrieval import euclidean, neighbours

LISTS_ROOT = 4  # lists over √n: centres and rows then take about equal time
CENTRE_ROWS = 64  # a list, that k-means sees
BLOCK_ROWS = 1 << 16  # searched at once
SAMPLE = 1000  # rows of `recall`


def neighbour_graph(x: np.ndarray, k: int, probes: int) -> np.ndarray:
    """Nearly the k nearest other rows of each row, by float32 distances.

    A row is never its own neighbour. Rows whose lists hold too few others are compared with all.

    Args:
        x: `[n, d] f32`.
        k: 1 to n - 1.
        probes: lists searched a row, at least 1; all of them give the exact graph, except for ties.

    Returns:
        `[n, k] int32` distinct ids, nearest first.
    """
    euclidean.check(x, x, k, len(x) - 1, "cpu")
    lists = min(len(x), round(LISTS_ROOT * len(x) ** 0.5))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(x.shape[1]), x.shape[1], lists)
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, CENTRE_ROWS
    x = np.ascontiguousarray(x)
    index.train(x)
    index.add(x)
    index.nprobe = min(probes, lists)
    graph = np.empty((len(x), k), np.int32)
    for start in range(0, len(x), BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, len(x)))
        graph[rows] = euclidean.without(index.search(x[rows], k + 1)[1], rows)
    short = np.flatnonzero((graph < 0).any(axis=1))
    if len(short):
        graph[short] = euclidean.nearest_others(x, short, k, "cpu")
    return graph


def recall(x: np.ndarray, graph: np.ndarray, engine: str) -> float:
    """The share of a graph's neighbours that are as near as the exact k nearest, of `SAMPLE` rows.

    Args:
        x: `[n, d] f32`; graph: `[n, k] i32`; engine: as in `euclidean.knn`.
    """
    rows = np.linspace(0, len(x) - 1, min(len(x), SAMPLE)).astype(int)
    exact = euclidean.nearest_others(x, rows, graph.shape[1], engine)
    return neighbours.recall(x[rows], x, graph[rows], exact)
