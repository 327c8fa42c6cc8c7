"""The points of a sweep: what an experiment's `sweep(h)` builds its list with; `h` is this module.

    h.product(h.sweep("bits", (32, 64)), h.sweep("seed", range(3)))   # 6 points

A point is `{field: value}`: a dotted field of the config, or an argument of `get_config`. Lists of
points are added with `+`.

Not responsible for whether a field exists or a value is good: `launch.sweep` tries every point.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from sigah_jax.errors import BadInput

Point = dict[str, Any]


def sweep(field: str, values: Iterable[Any]) -> list[Point]:
    """A point for each value."""
    return [{field: value} for value in values]


def product(*parts: Sequence[Point]) -> list[Point]:
    """Every point of each part with every point of the others; the last part varies fastest."""
    points = []
    for combined in itertools.product(*parts):
        fields = [field for point in combined for field in point]
        twice = next((field for field in fields if fields.count(field) > 1), None)
        if twice:
            raise BadInput(f"sweep: {twice} is in two parts of a product")
        points.append({field: value for point in combined for field, value in point.items()})
    return points
