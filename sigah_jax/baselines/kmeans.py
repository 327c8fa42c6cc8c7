"""Centres of k-means on a sample of the rows, by faiss, for the methods that need landmarks."""

import jax
import numpy as np

from sigah_jax.baselines.sampling import drawn_rows
from sigah_jax.model.pca import mean_row
from sigah_jax.process.blas import faiss


def centres_of(
    key: jax.Array, xt: np.ndarray, number: int, rows: int, iterations: int
) -> np.ndarray:
    """`[number, d] f32` centres of at most max(`rows`, `number`) rows of xt `[n, d]`."""
    sample_key, seed_key = jax.random.split(key)
    x = drawn_rows(sample_key, xt, max(number, rows))
    mean = mean_row(x)
    x = x - mean  # rounding grows with distance from the origin
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
