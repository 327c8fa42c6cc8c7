import itertools

import numpy as np
import pytest

from sigah_jax.retrieval import metrics

# distances 0, 1, 1, 1, 2 of one query; relevant: the row at 0, one at 1, the row at 2
TOTAL = np.array([[1, 3, 1]])
RELEVANT = np.array([[1, 1, 1]])


def orders():
    """Every ranking that the ties allow, as lists of relevance."""
    return [[1, *middle, 1] for middle in itertools.permutations([1, 0, 0])]


def test_average_precision_is_the_mean_over_all_tie_orders():
    def ap(order):
        hits = np.cumsum(order)
        return np.sum(hits / np.arange(1, 6) * order) / 3

    expected = np.mean([ap(order) for order in orders()])
    assert metrics.average_precision(TOTAL, RELEVANT) == pytest.approx(expected, abs=1e-12)


def test_random_histograms_against_random_orders():
    rng = np.random.default_rng(0)
    distance, relevance = rng.integers(0, 4, 40), rng.random(40) < 0.3
    total = np.bincount(distance, minlength=4)[None]
    relevant = np.bincount(distance[relevance], minlength=4)[None]
    aps, within = [], []
    for _ in range(20000):
        order = relevance[np.lexsort((rng.random(40), distance))]
        aps.append((np.cumsum(order) / np.arange(1, 41))[order].mean())
        within.append(order[:7].sum())
    assert metrics.average_precision(total, relevant) == pytest.approx(np.mean(aps), abs=3e-3)
    expected = np.mean(within) / relevance.sum()
    assert metrics.recall_at(total, relevant, 7) == pytest.approx(expected, abs=3e-3)


def test_precision_and_recall_inside_a_tie():
    # the first two rows: the one at distance 0, and one of three at distance 1 of which one is
    # relevant: 1 + 1/3 relevant
    assert metrics.precision_at(TOTAL, RELEVANT, 2) == pytest.approx((4 / 3) / 2)
    assert metrics.recall_at(TOTAL, RELEVANT, 2) == pytest.approx((4 / 3) / 3)


def test_pr_curve_and_area():
    # radius 0: 1 of 1; radius 1: 2 of 4; radius 2: 3 of 5
    precision, recall = metrics.pr_curve(TOTAL, RELEVANT)
    np.testing.assert_allclose(precision, [1, 0.5, 0.6])
    np.testing.assert_allclose(recall, [1 / 3, 2 / 3, 1])
    # radii 0..1: flat 1/3 · 1, then (1 + 0.5)/2 · 1/3
    assert metrics.area_rp(TOTAL, RELEVANT) == pytest.approx(1 / 3 + 0.75 / 3)


def test_set_sizes_round_half_up_and_are_capped():
    assert metrics.relevance_sizes(69000) == (1, 10, 1000, 1380)
    assert metrics.relevance_sizes(75) == (1, 10, 75, 2)  # 1.5 -> 2
    assert metrics.relevance_sizes(5) == (1, 5, 5, 1)
