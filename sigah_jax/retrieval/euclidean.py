"""Exact Euclidean neighbours.

Shapes: Q queries, N base rows, d columns, k neighbours. Ties go to the lower id.

Not responsible for caching: `data.cache`.
"""

import faiss
import numpy as np

_QUERY_BLOCK = 256


def _centred(xq: np.ndarray, xb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets less the base mean: distances stay, float32 rounding shrinks."""
    mean = xb.mean(0, dtype=np.float64).astype(np.float32)
    return np.ascontiguousarray(xq - mean, np.float32), np.ascontiguousarray(xb - mean, np.float32)


def _check(xq: np.ndarray, xb: np.ndarray, k: int) -> None:
    if xq.shape[1] != xb.shape[1]:
        raise ValueError(f"queries have {xq.shape[1]} columns, the base {xb.shape[1]}")
    if not 1 <= k <= len(xb):
        raise ValueError(f"k={k} neighbours of a base of {len(xb)} rows; use 1 to {len(xb)}")


def ground_truth(xq: np.ndarray, xb: np.ndarray, k: int) -> np.ndarray:
    """The k nearest base rows of each query, exact in float64.

    Candidates come from a float32 search; their distances are computed again in float64. A query
    is done when its k-th distance lies below what any row left out could have, by a bound on the
    float32 error; else it gets twice as many candidates, in the end all rows.

    Args:
        xq: `[Q, d] f32`; xb: `[N, d] f32`; k: 1 to N.

    Returns:
        `[Q, k] i32` ids by (distance, id).
    """
    _check(xq, xb, k)
    fq, fb = _centred(xq, xb)
    out = np.empty((len(xq), k), np.int32)
    largest = float(np.einsum("nd,nd->n", fb, fb).max())
    # ‖q‖² + ‖b‖² - 2 q·b in float32: each sum of d products errs by at most d·2⁻²⁴ relative to
    # (‖q‖ + ‖b‖)²; 2 covers the rounding of the centring
    reach = np.sqrt(np.einsum("qd,qd->q", fq, fq)) + np.sqrt(largest)
    slack = 2 * (xb.shape[1] + 8) * 2.0**-24 * reach.astype(np.float64) ** 2
    todo, candidates = np.arange(len(xq)), min(len(xb), k + max(32, k // 16))
    while len(todo):
        left = []
        for start in range(0, len(todo), _QUERY_BLOCK):
            rows = todo[start : start + _QUERY_BLOCK]
            found, ids = faiss.knn(fq[rows], fb, candidates)
            for row, farthest, near in zip(rows, found[:, -1], ids, strict=True):
                near = np.sort(near)
                difference = xb[near].astype(np.float64) - xq[row]
                exact = np.einsum("nd,nd->n", difference, difference)
                order = np.argsort(exact, kind="stable")[:k]  # ids rise: ties to the lower
                if candidates < len(xb) and exact[order[-1]] >= farthest - slack[row]:
                    left.append(row)
                else:
                    out[row] = near[order]
        todo, candidates = np.array(left, np.int64), min(len(xb), 2 * candidates)
    return out


def neighbour_graph(x: np.ndarray, k: int) -> np.ndarray:
    """The k nearest other rows of each row, in float32: `[n, d] f32 -> [n, k] i32`.

    A row is never its own neighbour, its duplicates are. Order is by (distance, id), up to
    float32 rounding.
    """
    _check(x, x, k + 1)
    centred = _centred(x, x)[0]
    out = np.empty((len(x), k), np.int32)
    for start in range(0, len(x), 8192):
        block = slice(start, min(start + 8192, len(x)))
        found, ids = faiss.knn(centred[block], centred, k + 1)
        ids = np.take_along_axis(ids, np.lexsort((ids, found), axis=1), 1)
        own = ids == np.arange(block.start, block.stop)[:, None]
        own[~own.any(1), -1] = True  # pushed out by duplicates: drop the farthest instead
        out[block] = ids[~own].reshape(-1, k)
    return out
