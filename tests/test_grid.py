"""The functions that build the points of a sweep."""

import pytest

from launch import grid as h
from sigah_jax.errors import BadInput

BITS = h.sweep("bits", (16, 32))
SEEDS = h.sweep("seed", range(3))


def test_a_sweep_is_a_point_a_value():
    assert BITS == [{"bits": 16}, {"bits": 32}]
    assert h.sweep("seed", []) == []


def test_a_product_has_every_pair_the_last_part_fastest():
    points = h.product(BITS, h.sweep("preset", ["paper"]), SEEDS)
    assert [(p["bits"], p["seed"]) for p in points] == [
        (16, 0), (16, 1), (16, 2), (32, 0), (32, 1), (32, 2)
    ]  # fmt: skip
    assert all(p["preset"] == "paper" for p in points)
    assert h.product(BITS) == BITS == [{"bits": 16}, {"bits": 32}] and h.product(BITS, []) == []


def test_a_field_cannot_have_two_values_at_once():
    with pytest.raises(BadInput, match="bits is in two parts"):
        h.product(BITS, BITS)
