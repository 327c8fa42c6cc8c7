"""What is near, as a person names it, as Euclidean order: rows go through here, the rest is l2.

- l2: rows stay as they are.
- cosine: rows are scaled to unit length, ‖a - b‖² = 2 (1 - cos).
- ip: a base row x becomes (x/M, sqrt(1 - ‖x/M‖²)) with M the largest length of a row, a query q
  (q/‖q‖, 0). Both are of unit length and ‖a - b‖² = 2 (1 - q·x / (M ‖q‖)), so that the nearest has
  the largest inner product (Bachrach et al. 2014). A base row that is longer than M becomes
  (x/‖x‖, 0), as if it were M long: its product counts for too little.

The order of points is that of the metric up to rounding in float32: inner products that differ by
less than about 1e-7 M ‖q‖ may change places. `rerank` compares the products themselves.

Shapes: n rows, d columns, d' columns of points: d + 1 for ip, else d. Works on numpy and on JAX
arrays, also inside jit.

Not responsible for rows with NaN, nor for zeros that have no cosine: what is made of them holds
NaN, and the modules that read rows refuse them.
"""

from typing import TYPE_CHECKING, NamedTuple, Union

import numpy as np

if TYPE_CHECKING:  # a config is checked without JAX
    import jax

NAMES = ("l2", "cosine", "ip")
BLOCK_ROWS = 8192  # whose lengths are computed at once
UNIT = 1e-3  # by which the lengths of rows may differ from 1 that are called unit rows
TINY = np.finfo(np.float32).tiny

Array = Union[np.ndarray, "jax.Array"]


class Metric(NamedTuple):
    """Which order is meant."""

    name: str = "l2"  # of NAMES
    largest: float = 0.0  # M of ip, a float32; else 0

    @property
    def added(self) -> int:
        """d' - d."""
        return int(self.name == "ip")

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What an encoder keeps of it among its arrays, beside the name."""
        return {"largest": np.full(1, self.largest, np.float32)} if self.added else {}


L2 = Metric()


def base_rows(metric: Metric, x: Array) -> Array:
    """Rows of the base as points whose Euclidean order is the metric's.

    Args:
        x: `[n, d]`, integers or floats.

    Returns:
        x itself for l2, else `[n, d'] f32`; NaN where a row of zeros has no direction.
    """
    if metric.name == "ip":
        x = x.astype(np.float32) / np.float32(metric.largest)
        xp = x.__array_namespace__()
        with np.errstate(all="ignore"):
            squared = (x * x).sum(axis=-1, keepdims=True)
            longer = xp.maximum(squared, 1)
            return xp.concatenate([x / longer**0.5, (1 - squared / longer) ** 0.5], axis=-1)
    return x if metric.name == "l2" else unit(x)


def queries_of(metric: Metric, x: Array) -> Array:
    """The same of queries; of ip one of zeros is at the same distance from all base rows."""
    if metric.name == "ip":
        x = unit(x, TINY)
        return x.__array_namespace__().concatenate([x, 0 * x[:, :1]], axis=-1)
    return base_rows(metric, x)


def rows_of(metric: Metric, points: Array) -> Array:
    """The rows that points of the base stand for, `[n, d'] -> [n, d]`; of cosine the unit rows."""
    return metric.largest * points[:, :-1] if metric.added else points


def squared_limits(metric: Metric, radius: float, queries: np.ndarray) -> np.ndarray:
    """The squared distance of points that a radius is, for each query: `[Q, d] -> [Q] f64`.

    Args:
        radius: l2: Euclidean distance; cosine: 1 - cos; ip: the least inner product, which depends
            on the length of the query, and is negative where no row of training reaches it. What
            is too large for a square is infinite.
    """
    if metric.name == "ip":
        with np.errstate(divide="ignore", invalid="ignore"):
            limits = 2 * (1 - radius / _largest_products(metric, queries))
        return np.where(np.isnan(limits), np.inf, limits)  # every product of a query of zeros is 0
    radius = float(radius)  # numbers of numpy warn where their square is infinite
    return np.full(len(queries), 2.0 * radius if metric.name == "cosine" else radius * radius)


def widest_radius(metric: Metric, squared: float, queries: np.ndarray) -> float:
    """The radius whose squared limit, of one query at least, is so large; `squared_limits`."""
    if metric.name == "ip":
        return float(_largest_products(metric, queries).max() * (1 - squared / 2))
    return squared / 2 if metric.name == "cosine" else squared**0.5


def _largest_products(metric: Metric, queries: np.ndarray) -> np.ndarray:
    """M ‖q‖ of each query, `[Q, d] -> [Q] f64`."""
    return metric.largest * np.linalg.norm(queries.astype(np.float64), axis=1)


def as_queries(metric: Metric, points: Array) -> Array:
    """Points of the base as those that the same rows would be as queries: `[n, d'] f32`, both."""
    return queries_of(metric, points[:, :-1]) if metric.added else points


def unit(x: Array, least: float = 0.0) -> Array:
    """Rows of unit length, `[n, d] -> [n, d] f32`, whatever size float32 holds.

    Rows that are multiples of one another become equal to the bit, if float32 holds them exactly:
    their quotients by their largest value are the same numbers.

    Args:
        least: divisors are at least this; 0 makes NaN of a row of zeros, `TINY` zeros.
    """
    x = x.astype(np.float32)
    xp = x.__array_namespace__()
    with np.errstate(all="ignore"):
        x = x / xp.maximum(abs(x).max(axis=-1, keepdims=True), least)
        return x / xp.maximum((x * x).sum(axis=-1, keepdims=True) ** 0.5, least)


def longest(x: np.ndarray) -> float:
    """The largest length of rows `[n, d]`, 0 without any; x may be a memory map.

    Rows that are not finite, or that float32 cannot compute with, have no code and do not count.
    """
    largest = 0.0
    for start in range(0, len(x), BLOCK_ROWS):
        block = np.asarray(x[start : start + BLOCK_ROWS], np.float64)
        squared = np.einsum("nd,nd->n", block, block)
        largest = squared[squared <= np.finfo(np.float32).max].max(initial=largest)
    return float(np.sqrt(largest))


def of(name: str, length: float) -> Metric:
    """The metric of training rows of which the longest has this length."""
    if name != "ip":
        return Metric(name)
    largest = np.float32(length)
    if float(largest) < length:
        largest = np.nextafter(largest, np.float32(np.inf))
    return Metric(name, float(largest) or 1.0)


def kept(name: str, arrays: dict) -> Metric:
    """The metric of that name whose `Metric.arrays` are among an encoder's; KeyError without them.

    Raises:
        ValueError: there is no metric of that name.
    """
    if name not in NAMES:
        raise ValueError(f"its metric is {name!r}, of a newer version")
    return Metric(name, float(arrays["largest"][0])) if name == "ip" else Metric(name)


def are_unit(x: np.ndarray) -> bool:
    """Whether all rows `[n, d] f32` have unit length: then l2, cosine and ip are one order."""
    return bool((abs(np.sqrt(np.einsum("nd,nd->n", x, x)) - 1) < UNIT).all())
