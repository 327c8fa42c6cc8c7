"""Centres of k-means on a sample of the rows, for the methods that need landmarks.

Shapes: n training rows, d columns.

Not responsible for what the centres are used for. The iterations are faiss's.
"""

import faiss
import jax
import numpy as np


def centres_of(
    key: jax.Array, xt: np.ndarray, number: int, rows: int, iterations: int
) -> np.ndarray:
    """`[number, d] f32` centres of at most max(`rows`, `number`) rows, drawn by the key.

    Args:
        xt: `[n, d]`, any real dtype.
        number: 1 to n.
    """
    sample_key, seed_key = jax.random.split(key)
    rows = max(number, rows)
    if len(xt) > rows:
        xt = xt[np.sort(jax.random.choice(sample_key, len(xt), (rows,), replace=False))]
    x = np.array(xt, np.float32)
    mean = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    x -= mean  # rounding grows with distance from the origin
    kmeans = faiss.Kmeans(
        x.shape[1],
        number,
        niter=iterations,
        seed=int(jax.random.randint(seed_key, (), 0, np.iinfo(np.int32).max)),
        min_points_per_centroid=1,
        max_points_per_centroid=len(x),
    )
    kmeans.train(x)
    return kmeans.centroids + mean
