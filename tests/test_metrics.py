import itertools

import numpy as np
import pytest

from sigah_jax.retrieval import metrics
from sigah_jax.retrieval.histograms import Histograms, distance_histograms

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


def small_problems():
    """Eight rows at distances 0..3 with a few relevant: (distance, relevance, total, relevant)."""
    rng = np.random.default_rng(1)
    for _ in range(12):
        distance, relevance = np.sort(rng.integers(0, 4, 8)), rng.random(8) < 0.4
        relevance[rng.integers(8)] = True
        total = np.bincount(distance, minlength=4)[None]
        yield distance, relevance, total, np.bincount(distance[relevance], minlength=4)[None]


def all_orders(distance, relevance):
    """The relevance of every ranking that the ties allow, each as often as the others."""
    groups = [itertools.permutations(relevance[distance == d]) for d in range(4)]
    return np.array([np.concatenate(o) for o in itertools.product(*groups)]).astype(float)


def test_ranked_metrics_are_means_over_all_orders_of_ties():
    for distance, relevance, total, relevant in small_problems():
        orders = all_orders(distance, relevance)
        hits = np.cumsum(orders, axis=1)
        ap = np.sum(hits / np.arange(1, 9) * orders, axis=1) / relevance.sum()
        assert metrics.average_precision(total, relevant) == pytest.approx(ap.mean(), abs=1e-12)
        for first in range(1, 9):
            expected = hits[:, first - 1].mean()
            precision = metrics.precision_at(total, relevant, first)
            assert precision == pytest.approx(expected / first, abs=1e-12)
            recall = metrics.recall_at(total, relevant, first)
            assert recall == pytest.approx(expected / relevance.sum(), abs=1e-12)


def test_one_tie_of_all_rows():
    # 1 relevant of 4: (1 + 1/2 + 1/3 + 1/4) / 4; all 4 relevant: 1; K = 1, nothing at distance 1
    total = np.array([[4, 0], [4, 0]])
    ap = metrics.average_precision(total, np.array([[1, 0], [4, 0]]))
    np.testing.assert_allclose(ap, [25 / 48, 1])


def test_average_precision_in_a_large_base():
    # 2 of 3 rows are relevant after 10⁶ rows without one: with N = 10⁶ the sum over positions is
    # 2/3 [1/(N + 1) + (1 + 1/2)/(N + 2) + 2/(N + 3)], to be halved
    n = 10**6
    expected = (1 / (n + 1) + 1.5 / (n + 2) + 2 / (n + 3)) / 3
    ap = metrics.average_precision(np.array([[n, 3]]), np.array([[0, 2]]))
    assert ap == pytest.approx(expected, rel=1e-3)  # rounding of H alone is 10⁻¹⁴ N


def test_harmonic_numbers_are_sums_of_reciprocals():
    n = np.arange(1000)
    expected = np.append(0, np.cumsum(1 / np.arange(1, 1000)))
    np.testing.assert_allclose(metrics._harmonic(n), expected, rtol=0, atol=1e-14)
    n = 10.0 ** np.arange(3, 12)
    expected = np.log(n) + np.euler_gamma + 1 / (2 * n) - 1 / (12 * n**2)  # to 1 / (120 n⁴)
    np.testing.assert_allclose(metrics._harmonic(n), expected, rtol=0, atol=2e-14)


def test_precision_and_recall_of_more_rows_than_there_are():
    # 5 rows, 3 relevant
    assert metrics.precision_at(TOTAL, RELEVANT, 100) == pytest.approx(3 / 5)
    assert metrics.recall_at(TOTAL, RELEVANT, 100) == pytest.approx(1)


def test_curve_pools_pairs_and_is_nan_where_none_is_retrieved():
    # query 1 has 1 relevant of 1 row at distance 1, query 2 has 1 of 3 there and 2 of 4 at 2
    total, relevant = np.array([[0, 1, 0], [0, 3, 4]]), np.array([[0, 1, 0], [0, 1, 2]])
    precision, recall = metrics.pr_curve(total, relevant)
    np.testing.assert_allclose(precision, [np.nan, 2 / 4, 4 / 8])
    np.testing.assert_allclose(recall, [0, 2 / 4, 1])


@pytest.mark.parametrize(
    ("total", "relevant", "area"),
    [
        # (recall, precision) at radii 0..K-1:
        # (1/3, 1), (1/3, 1/4), (2/3, 2/5): equal recalls keep their first radius
        ([1, 3, 1, 5], [1, 0, 1, 1], 1 / 3 + (1 + 2 / 5) / 2 / 3),
        # radius 0 retrieves nothing: (0, -), (1/2, 1/2): flat start at 1/2
        ([0, 2, 2], [0, 1, 1], 1 / 4),
        # radius 0 retrieves an irrelevant row: (0, 0), (1/2, 1/2)
        ([1, 1, 2], [0, 1, 1], 1 / 8),
        # no radius below K retrieves anything relevant
        ([0, 0, 2], [0, 0, 1], 0),
        ([0, 2, 2], [0, 0, 1], 0),
        # K = 1: only radius 0, (1/2, 1/3)
        ([3, 2], [1, 1], 1 / 6),
    ],
)
def test_area_rp(total, relevant, area):
    assert metrics.area_rp(np.array([total]), np.array([relevant])) == pytest.approx(area)


def test_summary_from_codes():
    # one query 00; base 00, 01, 11, 10 at distances 0, 1, 2, 1; nearest first: rows 0, 2, 1, 3.
    # N = 4: sets of 1, 4, 4 and 1 rows, so the last is the nearest, row 0, alone at distance 0
    cq, cb = np.array([[0b00]], np.uint8) << 6, np.array([[0], [1], [3], [2]], np.uint8) << 6
    neighbours = np.array([[0, 2, 1, 3]], np.int32)
    sizes = metrics.relevance_sizes(4)
    assert sizes == (1, 4, 4, 1)
    values = metrics.summary(distance_histograms(cq, cb, neighbours, sizes, 2, "cpu"))
    assert values == pytest.approx(
        {
            "map": 1,
            "area_rp": 1,  # (1, 1) at radius 0, (1, 1/3) at radius 1: equal recalls
            "map@1000": 1,  # all rows are relevant
            "precision@100": 1,
            "recall@1": 1 / 4,
            "recall@10": 1,
            "recall@100": 1,
            "recall@1000": 1,
            "recall@10000": 1,
            "1-recall@1": 1,
            "1-recall@10": 1,
            "1-recall@100": 1,
        }
    )
    assert all(type(value) is float for value in values.values())


def test_summary_takes_each_metric_from_its_set():
    # 10 rows at distances 0..9 of 9-bit codes; a set is where its rows lie
    total = np.ones((1, 10), int)
    nearest, ten = np.eye(10, dtype=int)[[4]], np.array([[1, 1, 0, 0, 0, 0, 0, 0, 0, 0]])
    thousand, percent = np.eye(10, dtype=int)[[1]], np.eye(10, dtype=int)[[3]]
    values = metrics.summary(Histograms(total, np.stack([nearest, ten, thousand, percent])))
    # nearest at place 5, the ten at 1 and 2, the thousand at 2, the 2 % at 4
    assert (values["1-recall@1"], values["1-recall@10"]) == (0, 1)
    assert (values["recall@1"], values["recall@10"]) == (0.5, 1)
    assert (values["map@1000"], values["map"]) == pytest.approx((1 / 2, 1 / 4))
    assert values["precision@100"] == pytest.approx(1 / 10)
    # recall jumps from 0 to 1 at radius 3, precision from 0 to 1/4
    assert values["area_rp"] == pytest.approx(1 / 8)


def test_refuses_counts_that_cannot_be():
    for function in (metrics.average_precision, metrics.area_rp):
        with pytest.raises(ValueError, match="among those of total"):
            function(TOTAL, TOTAL + 1)
        with pytest.raises(ValueError, match="without one"):
            function(TOTAL, 0 * RELEVANT)
        with pytest.raises(ValueError, match=r"\(1, 3\) and \(1, 2\)"):
            function(TOTAL, RELEVANT[:, :2])
    with pytest.raises(ValueError, match="at least one; got 0"):
        metrics.recall_at(TOTAL, RELEVANT, 0)


def test_summary_refuses_another_number_of_sets():
    with pytest.raises(ValueError, match="nearest10, top1000, top2percent; got 2 sets"):
        metrics.summary(Histograms(TOTAL, np.stack([RELEVANT, RELEVANT])))


def test_set_sizes_round_half_up_and_are_capped():
    assert metrics.relevance_sizes(69000) == (1, 10, 1000, 1380)
    assert metrics.relevance_sizes(75) == (1, 10, 75, 2)  # 1.5 -> 2
    assert metrics.relevance_sizes(5) == (1, 5, 5, 1)
    assert metrics.relevance_sizes(1) == (1, 1, 1, 1)
    with pytest.raises(ValueError, match="got 0"):
        metrics.relevance_sizes(0)
