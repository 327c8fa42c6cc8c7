"""Small sets of vectors and a measure, shared by the tests of the learned baselines."""

import numpy as np


def low_dimensional(n: int, d: int) -> np.ndarray:
    """Rows near a curved 6-dimensional sheet in d columns, far from the origin."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n, 6))
    rows = z @ rng.normal(size=(6, d)) + np.sin(2 * z @ rng.normal(size=(6, 8))) @ rng.normal(
        size=(8, d)
    )
    return (rows + 0.05 * rng.normal(size=(n, d)) + 7).astype(np.float32)


def recall(codes: np.ndarray, x: np.ndarray, queries: int) -> float:
    """Share of the 10 nearest rows within the first 50 by Hamming distance, ties by id."""
    found = []
    for i in range(queries):
        d = np.sum((x - x[i]) ** 2, axis=1)
        h = np.sum(codes != codes[i], axis=1)
        d[i], h[i] = np.inf, codes.shape[1] + 1
        near = np.argsort(d, kind="stable")[:10]
        found.append(np.isin(near, np.argsort(h, kind="stable")[:50]).mean())
    return float(np.mean(found))
