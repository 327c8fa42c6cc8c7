"""Data sets as `Dataset(xt, xv, xb, xq)`: what is trained on, chosen by, searched and asked.

Shapes: d columns; nt, nv, nb, nq rows.

Not responsible for ground truth: `retrieval.euclidean`.
"""

from typing import NamedTuple

import numpy as np

from sigah_jax.data import mnist
from sigah_jax.errors import BadInput


class Dataset(NamedTuple):
    """Four sets of feature vectors, f32, finite."""

    xt: np.ndarray  # [nt, d] training set; validation searches it
    xv: np.ndarray  # [nv, d] validation queries, carved from the training split: choose by these
    xb: np.ndarray  # [nb, d] base, which test queries search
    xq: np.ndarray  # [nq, d] test queries: looked at once, at the end
    image_shape: tuple[int, ...]  # (height, width) if rows are grey images, else ()


def load_dataset(config) -> Dataset:
    """The data set that `config.data` names.

    Raises:
        BadInput: an unknown name, a bad file, a value that is not finite, too few rows.
    """
    if config.data.name != "mnist":
        raise BadInput(f"config.data.name={config.data.name!r}: expected mnist")
    return split(mnist.load_images(), config.data, (mnist.SIDE, mnist.SIDE))


def split(x: np.ndarray, data, image_shape: tuple[int, ...] = ()) -> Dataset:
    """Draws test queries, then validation queries, at random; the rest is base and training set.

    Base = all rows but the test queries. Training set = base without validation queries.

    Args:
        x: `[n, d]`, any real dtype.
        data: `config.data`: queries, val_queries, split_seed, max_rows.
    """
    check_finite(x, f"data set {data.name}")
    order = np.random.default_rng(data.split_seed).permutation(len(x))
    order = order[: data.max_rows] if data.max_rows else order
    if len(order) < 2 * (data.queries + data.val_queries):
        raise BadInput(
            f"config.data: {len(order)} rows are too few for queries={data.queries} and "
            f"val_queries={data.val_queries}; lower them or raise max_rows"
        )
    xq = x[order[: data.queries]].astype(np.float32)
    xb = x[order[data.queries :]].astype(np.float32)
    return Dataset(xb[data.val_queries :], xb[: data.val_queries], xb, xq, image_shape)


def check_finite(x: np.ndarray, name: str, block_rows: int = 65536) -> None:
    """Raises BadInput naming the first row of `x [n, d]` that holds NaN or infinity."""
    for start in range(0, len(x), block_rows):
        bad = ~np.isfinite(x[start : start + block_rows]).all(axis=1)
        if bad.any():
            row = start + int(bad.argmax())
            raise BadInput(f"{name}: row {row} holds NaN or infinity; remove or repair it")
