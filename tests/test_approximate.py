"""The approximate graph against the exact one, and its recall by hand."""

import numpy as np
import pytest

from sigah_jax.retrieval import approximate, euclidean
from tests import sets


def test_all_lists_give_the_exact_graph():
    # 400 rows: 80 lists
    x = sets.low_dimensional(400, 12)
    exact = euclidean.neighbour_graph(x, 10, "cpu")
    np.testing.assert_array_equal(approximate.neighbour_graph(x, 10, 80, 0.0, "cpu"), exact)
    assert approximate.recall(x, exact, "cpu") == 1


def test_more_lists_find_more_and_few_find_some(monkeypatch):
    x = sets.low_dimensional(3000, 12)
    monkeypatch.setattr(approximate, "BLOCK_ROWS", 1000)
    found = []
    for probes in (1, 8, 64):
        graph = approximate.neighbour_graph(x, 10, probes, 0.0, "cpu")
        assert graph.dtype == np.int32 and graph.shape == (3000, 10)
        assert not (graph == np.arange(3000)[:, None]).any()
        assert all(len(set(row)) == 10 for row in graph.tolist())
        found.append(approximate.recall(x, graph, "cpu"))
    assert 0.2 < found[0] < 0.7 < found[1] < 0.99 < found[2]


@pytest.mark.parametrize("least", [0.7, 0.95, 1.0])
def test_lists_are_added_until_enough_is_found(least):
    x = sets.low_dimensional(3000, 12)
    graph = approximate.neighbour_graph(x, 10, 1, least, "cpu")
    found = approximate.recall(x, graph, "cpu")
    assert least <= found
    few = approximate.neighbour_graph(x, 10, 1, 0.0, "cpu")
    assert approximate.recall(x, few, "cpu") < 0.7  # what was asked for at first


def test_rows_of_short_lists_are_compared_with_all():
    # 40 of 50 rows are one place, the others lie far from all and alone in their lists
    x = np.zeros((50, 3), np.float32)
    x[40:] = np.random.default_rng(0).normal(size=(10, 3)) * 100 + 1000
    graph = approximate.neighbour_graph(x, 12, 1, 0.0, "cpu")
    exact = euclidean.neighbour_graph(x, 12, "cpu")
    np.testing.assert_array_equal(graph[40:], exact[40:])
    assert (graph[:40] < 40).all()


def test_recall_by_hand():
    # on a line the 2 nearest of row 0 are 1, 2; of row 1: 0, 2; of row 2: 1, 3 (row 0 is farther)
    x = np.array([[0.0], [1.0], [2.1], [3.0]], np.float32)
    graph = np.array([[1, 2], [0, 3], [0, 1], [2, 1]], np.int32)
    # 2, 1, 1 and 2 of 2
    assert approximate.recall(x, graph, "cpu") == pytest.approx(6 / 8)


def test_an_impossible_k_is_refused():
    with pytest.raises(ValueError, match="from 1 to 4"):
        approximate.neighbour_graph(np.zeros((5, 2), np.float32), 5, 1, 0.0, "cpu")


def test_rows_that_are_equally_near_are_as_good_as_one_another():
    x = np.stack(np.meshgrid(*[np.arange(6.0)] * 3), axis=-1).reshape(-1, 3).astype(np.float32)
    graph = approximate.neighbour_graph(
        x, 7, len(x), 0.0, "cpu"
    )  # 6 at distance 1 within, 12 at √2
    assert approximate.recall(x, graph, "cpu") == 1
