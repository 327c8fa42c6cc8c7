"""Whether nearest neighbours stand apart, told by how distances grow."""

import numpy as np

from sigah_jax.retrieval import euclidean
from sigah_jax.training import prepare


def of(z):
    z = z.astype(np.float32)
    return prepare.growth(z, euclidean.neighbour_graph(z, 16, "cpu"))


def test_rows_of_one_dimension_grow_alike_at_all_scales():
    rng = np.random.default_rng(0)
    for d in (2, 8):
        assert 0.85 < of(rng.random((4000, d))) < 1.15


def test_pairs_of_near_rows_stand_apart():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2000, 1, 8)) + 0.2 * rng.normal(size=(2000, 2, 8))
    assert of(rows.reshape(-1, 8)) < 0.8


def test_equal_rows_and_few_neighbours_say_nothing():
    assert of(np.zeros((100, 3))) == 1.0
    z = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    assert prepare.growth(z, euclidean.neighbour_graph(z, 3, "cpu")) == 1.0
    twice = np.repeat(z, 2, 0)  # each row is there twice, its nearest is at 0
    assert prepare.growth(twice, euclidean.neighbour_graph(twice, 16, "cpu")) == 1.0
