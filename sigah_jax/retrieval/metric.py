"""What is near, as a person names it, as Euclidean order: rows go through here, the rest is l2.

- l2: rows stay as they are.
- cosine: rows are scaled to unit length, ‖a - b‖² = 2 (1 - cos).

Shapes: n rows, d columns. Works on numpy and on JAX arrays, also inside jit.

Not responsible for rows without a length or with NaN: what is made of them is NaN, and whoever
reads files refuses them.
"""

from typing import TYPE_CHECKING, NamedTuple, Union

import numpy as np

if TYPE_CHECKING:  # a config is checked without JAX
    import jax

NAMES = ("l2", "cosine")
UNIT = 1e-3  # by which the lengths of rows may differ from 1 that are called unit rows

Array = Union[np.ndarray, "jax.Array"]


class Metric(NamedTuple):
    """Which order is meant."""

    name: str = "l2"  # of NAMES


L2 = Metric()


def base_rows(metric: Metric, x: Array) -> Array:
    """Rows of the base as points whose Euclidean order is the metric's.

    Args:
        x: `[n, d]`, integers or floats.

    Returns:
        x itself for l2, else `[n, d] f32`; NaN where a row of zeros has no direction.
    """
    return x if metric.name == "l2" else unit(x)


def queries_of(metric: Metric, x: Array) -> Array:
    """The same of queries."""
    return base_rows(metric, x)


def unit(x: Array) -> Array:
    """Rows of unit length, `[n, d] -> [n, d] f32`, whatever size float32 holds; NaN for zeros.

    Rows that are multiples of one another become equal to the bit, if float32 holds them exactly:
    their quotients by their largest value are the same numbers.
    """
    x = x.astype(np.float32)
    with np.errstate(all="ignore"):
        x = x / abs(x).max(axis=-1, keepdims=True)
        return x / (x * x).sum(axis=-1, keepdims=True) ** 0.5


def are_unit(x: np.ndarray) -> bool:
    """Whether all rows `[n, d] f32` have unit length, so that l2 and cosine are one order."""
    return bool((abs(np.sqrt(np.einsum("nd,nd->n", x, x)) - 1) < UNIT).all())
