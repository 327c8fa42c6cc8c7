"""The points of a sweep: what an experiment's `sweep(h)` builds its list with; `h` is this module.

    h.product(h.sweep("bits", (32, 64)), h.sweep("seed", range(3)))   # 6 points

A point is `{field: value}`: a dotted field of the config, or an argument of `get_config`.

Not responsible for whether a field exists or a value is good: `launch.sweep` tries every point.
"""

import builtins
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from sigah_jax.errors import BadInput

Point = dict[str, Any]


def sweep(field: str, values: Iterable[Any]) -> list[Point]:
    """A point a value."""
    return [{field: value} for value in values]


def fixed(field: str, value: Any) -> list[Point]:
    """One point, for a product with others."""
    return [{field: value}]


def product(*parts: Sequence[Point]) -> list[Point]:
    """Every point of each part with every point of the others; the last part varies fastest."""
    return [_join(points) for points in itertools.product(*parts)]


def zip(*parts: Sequence[Point]) -> list[Point]:
    """The first points of all parts together, then the second ones; parts of equal length."""
    if len({len(part) for part in parts}) > 1:
        raise BadInput(f"sweep: zip of parts of {[len(part) for part in parts]} points")
    return [_join(points) for points in builtins.zip(*parts, strict=True)]


def chain(*parts: Sequence[Point]) -> list[Point]:
    """One part after the other."""
    return list(itertools.chain(*parts))


def _join(points: Iterable[Point]) -> Point:
    joined = {}
    for point in points:
        twice = joined.keys() & point.keys()
        if twice:
            raise BadInput(f"sweep: {min(twice)} is in two parts of a product or zip")
        joined |= point
    return joined
