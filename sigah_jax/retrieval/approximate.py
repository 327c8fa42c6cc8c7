"""A neighbour graph that need not be exact, for training sets that an exact one takes too long for.

An inverted file of faiss: rows lie in lists, one a centre of k-means, and only the rows of the
lists whose centres are nearest are compared. It runs on the CPU, whatever devices there are.

Shapes: n rows, d columns, k neighbours.

Not responsible for exact graphs (`euclidean`), nor for what recall is enough.
"""

import numpy as np

from sigah_jax.process.blas import faiss
from sigah_jax.retrieval import euclidean, evenly, neighbours

LISTS_ROOT = 4  # lists over √n: centres and rows then take about equal time
CENTRE_ROWS = 64  # a list, that k-means sees
BLOCK_ROWS = 1 << 16  # searched at once
SAMPLE = 1000  # rows of `recall`


def neighbour_graph(x: np.ndarray, k: int, probes: int, least: float, engine: str) -> np.ndarray:
    """Nearly the k nearest other rows of each row, by float32 distances.

    A row is never its own neighbour. Rows whose lists hold too few others are compared with all.
    The number of lists that are searched doubles until a sample of rows reaches the recall asked
    for: how many that takes depends on the data far more than on their number.

    Args:
        x: `[n, d] f32`.
        k: 1 to n - 1.
        probes: lists searched a row at first, at least 1; all of them give the exact graph, except
            for ties.
        least: the share of the exact neighbours that is enough, see `recall`; 0 to 1.
        engine: as in `euclidean.knn`, finds the exact neighbours of the sample.

    Returns:
        `[n, k] int32` distinct ids, nearest first.
    """
    euclidean.check(x, x, k, len(x) - 1, engine)
    x = np.ascontiguousarray(x)
    index = _inverted_file(x)
    index.nprobe = min(probes, index.nlist)
    rows = evenly.rows(len(x), SAMPLE)
    exact = euclidean.nearest_others(x, rows, k, engine)
    while index.nprobe < index.nlist:
        if neighbours.recall(x[rows], x, _search(index, x, rows, k), exact) >= least:
            break
        index.nprobe = min(2 * index.nprobe, index.nlist)
    graph = np.empty((len(x), k), np.int32)
    for start in range(0, len(x), BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, len(x)))
        graph[rows] = _search(index, x, rows, k)
    return graph


def recall(x: np.ndarray, graph: np.ndarray, engine: str) -> float:
    """The share of a graph's neighbours that are as near as the exact k nearest, of `SAMPLE` rows.

    Args:
        x: `[n, d] f32`; graph: `[n, k] i32`; engine: as in `euclidean.knn`.
    """
    rows = evenly.rows(len(x), SAMPLE)
    exact = euclidean.nearest_others(x, rows, graph.shape[1], engine)
    return neighbours.recall(x[rows], x, graph[rows], exact)


def _inverted_file(x: np.ndarray) -> faiss.IndexIVFFlat:
    """The index of all rows."""
    lists = min(len(x), round(LISTS_ROOT * len(x) ** 0.5))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(x.shape[1]), x.shape[1], lists)
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, CENTRE_ROWS
    index.train(x)
    index.add(x)
    return index


def _search(index: faiss.IndexIVFFlat, x: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """`[r, k] i64`: the nearest others of these rows among the lists that the index searches."""
    near = euclidean.without(index.search(x[rows], k + 1)[1], rows)
    short = np.flatnonzero((near < 0).any(axis=1))
    if len(short):
        near[short] = euclidean.nearest_others(x, rows[short], k, "cpu")
    return near
