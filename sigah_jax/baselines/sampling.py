"""Rows drawn from a training set, for the methods that need not see all of it."""

import jax
import numpy as np


def drawn_rows(key: jax.Array, xt: np.ndarray, rows: int) -> np.ndarray:
    """`rows` different rows of xt [n, d], in order; all if there are no more. [m, d] f32."""
    if len(xt) > rows:
        xt = xt[np.sort(np.asarray(jax.random.permutation(key, len(xt))[:rows]))]
    return np.asarray(xt, np.float32)
