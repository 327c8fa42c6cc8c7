"""Pairs of true and synthetic distances, and the bounds that follow from them."""

import math

import numpy as np
import pytest

from sigah_jax.encoder import calibration
from sigah_jax.encoder.calibration import Pairs


def squared(a, b):
    return ((a[:, None].astype(float) - b) ** 2).sum(-1)


@pytest.mark.parametrize("n", [1, 2, 100, 3000])
def test_pairs_are_those_of_a_query_and_rows_at_all_ranks(n, monkeypatch):
    monkeypatch.setattr(calibration, "SORTED", 7 * n)  # 7 queries at once
    rng = np.random.default_rng(0)
    xq, xb, z, z_hat = (
        rng.normal(size=(rows, d)).astype(np.float32)
        for rows, d in ((30, 5), (n, 5), (30, 4), (n, 4))
    )
    xq, xb = xq + 100, xb + 100  # far from the origin
    held = calibration.pairs(xq, xb, z, z_hat)
    ends = np.cumsum(held.weight).astype(int)
    assert ends[-1] == n and (held.weight <= 1 + ends / 8).all()
    assert (held.weight[: min(n, 8)] == 1).all()  # the nearest are all there
    true, synthetic = squared(xq, xb), squared(z, z_hat)
    for i in range(30):
        order = np.argsort(true[i])
        at = np.abs(true[i][:, None] - held.true[i]).argmin(axis=0)
        np.testing.assert_allclose(held.true[i], true[i][at], rtol=1e-6)
        np.testing.assert_allclose(held.synthetic[i], synthetic[i][at], rtol=1e-6)
        places = np.argsort(order)[at]  # the rank of each, in the ranks that it stands for
        assert (places < ends).all() and (places >= ends - held.weight).all()
    if n == 3000:  # not all at one end of these ranks
        assert 0.3 < np.mean((places - ends + held.weight) / held.weight, where=ends > 100) < 0.7


def made(queries=30):
    """Of each query 10 pairs that stand for themselves and 5 that stand for 4 rows each."""
    rng = np.random.default_rng(1)
    true = np.sort(rng.uniform(0, 4, (queries, 15)), axis=1)
    synthetic = true + rng.uniform(0, 1, true.shape)
    weight = np.repeat([1, 4], [10, 5])
    return Pairs(*(a.astype(np.float32) for a in (true, synthetic, weight)))


@pytest.mark.parametrize("recall", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("limit", [1.5, 3.0, 9.0])
def test_a_bound_is_the_least_that_finds_the_share(limit, recall):
    held = made()
    found = calibration.bounds(held, np.array([limit, limit]), recall)
    # every row once, where a pair stands for several
    counts = np.broadcast_to(held.weight.astype(int), held.true.shape).ravel()
    true, synthetic = (np.repeat(a.ravel(), counts) for a in held[:2])
    within = true <= limit
    share = lambda bound: (synthetic[within] <= bound).mean()  # noqa: E731
    (bound,) = set(found.bounds)
    assert share(bound) >= recall > share(np.nextafter(np.float32(bound), np.float32(0)))
    assert found.recall == pytest.approx(share(bound))
    assert found.precision == pytest.approx(within[synthetic <= bound].mean())


def test_queries_of_several_limits_have_bounds_of_their_own():
    held = made()
    one, other = (calibration.bounds(held, np.array([limit]), 0.9) for limit in (2, 3))
    both = calibration.bounds(held, np.array([3.0, 2.0, -1.0, 3.0]), 0.9)
    np.testing.assert_array_equal(both.bounds, [*other.bounds, *one.bounds, -np.inf, *other.bounds])
    assert one.precision < both.precision < other.precision


def test_the_least_limit_has_pairs_and_queries_enough():
    # of 5 missed at a recall of .95 there are 100, and 20 queries have one each
    true = np.arange(200.0).reshape(20, 10)
    held = Pairs(true, true, np.ones(10))
    assert calibration.least(held, 0.95) == 190  # the nearest row of the last query
    assert calibration.least(Pairs(true.T, true.T, np.ones(20)), 0.95) == math.inf  # 10 queries
    rows = true.reshape(10, 20).T  # 0 to 180 by 20, then 1 to 181 and so on
    held = Pairs(rows, rows, np.ones(10))
    assert calibration.least(held, 0.95) == 99  # the hundredth pair
    assert calibration.least(held, 0.5) == 19  # the twentieth query
    assert calibration.least(held, 0.98) == math.inf  # 250 pairs
    # smaller limits count as that one
    found = [calibration.bounds(held, np.array([limit]), 0.95) for limit in (99.0, 1.0)]
    assert found[0].bounds == found[1].bounds and found[0].recall == found[1].recall
