"""The functions that build the points of a sweep."""

import pytest

from launch import grid as h
from sigah_jax.errors import BadInput

BITS = h.sweep("bits", (16, 32))
SEEDS = h.sweep("seed", range(3))


def test_sweep_and_fixed():
    assert BITS == [{"bits": 16}, {"bits": 32}]
    assert h.fixed("preset", "paper") == [{"preset": "paper"}]
    assert h.sweep("seed", []) == []


def test_a_product_has_every_pair_the_last_part_fastest():
    points = h.product(BITS, h.fixed("preset", "paper"), SEEDS)
    assert [(p["bits"], p["seed"]) for p in points] == [
        (16, 0), (16, 1), (16, 2), (32, 0), (32, 1), (32, 2)
    ]  # fmt: skip
    assert all(p["preset"] == "paper" for p in points)
    assert h.product(BITS) == BITS and h.product(BITS, []) == []


def test_zip_goes_through_its_parts_together():
    assert h.zip(BITS, h.sweep("model.atoms", (256, 512))) == [
        {"bits": 16, "model.atoms": 256},
        {"bits": 32, "model.atoms": 512},
    ]
    with pytest.raises(BadInput, match=r"zip of parts of \[2, 3\] points"):
        h.zip(BITS, SEEDS)


def test_chain_puts_one_part_after_the_other():
    assert h.chain(BITS, h.product(h.fixed("bits", 64), SEEDS)) == [
        {"bits": 16}, {"bits": 32},
        {"bits": 64, "seed": 0}, {"bits": 64, "seed": 1}, {"bits": 64, "seed": 2},
    ]  # fmt: skip


@pytest.mark.parametrize("join", [h.product, h.zip])
def test_a_field_cannot_have_two_values_at_once(join):
    with pytest.raises(BadInput, match="bits is in two parts"):
        join(BITS, BITS)


def test_parts_are_left_as_they_are():
    h.product(BITS, SEEDS)
    assert BITS == [{"bits": 16}, {"bits": 32}]
