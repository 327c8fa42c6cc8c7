"""Random hyperplanes against the theory P(a bit differs) = angle / π."""

import jax
import numpy as np
import pytest

from sigah_jax.baselines import linear, lsh


@pytest.mark.parametrize("degrees", [0, 10, 60, 90, 135, 180])
def test_share_of_differing_bits_is_the_angle_over_pi(degrees):
    # Two points of different length at this angle as seen from the mean, which is (4, -2, 1):
    # the training rows are the mean plus and minus the same offsets.
    mean = np.array([4, -2, 1], np.float32)
    offsets = np.array([[1, 0, 0], [0, 2, 0]], np.float32)
    angle = np.radians(degrees)
    x = np.array([[1, 0, 0], [3 * np.cos(angle), 3 * np.sin(angle), 0]], np.float32) + mean
    bits = 40_000
    params = lsh.fit(jax.random.key(7), np.concatenate([mean + offsets, mean - offsets]), bits)
    code = np.asarray(linear.project(params, x)) > 0
    share = np.mean(code[0] != code[1])
    # Standard error sqrt(p (1 - p) / 40,000) <= 0.0025; without the centring the angle between
    # the points as seen from the origin is at most 75 degrees, far from most of these.
    assert abs(share - degrees / 180) <= 4 * 0.0025


def test_more_bits_than_columns():
    xt = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    params = lsh.fit(jax.random.key(0), xt, 17)
    assert params.weights.shape == (3, 17)
    assert linear.project(params, xt).shape == (50, 17)
    assert np.linalg.matrix_rank(params.weights) == 3


def test_directions_are_standard_normal_and_follow_the_key():
    xt = np.ones((5, 100), np.float32)
    one, again, other = (lsh.fit(jax.random.key(k), xt, 400).weights for k in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    # 40,000 draws: standard error of the mean 0.005, of the standard deviation 0.0035.
    assert abs(one.mean()) < 0.02
    assert abs(one.std() - 1) < 0.014
    # Independent draws: the correlation of two keys has standard error 0.005.
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02


def test_mean_of_all_rows_and_no_other_use_of_the_data():
    rng = np.random.default_rng(2)
    xt = rng.normal(3, 1, size=(9000, 4)).astype(np.float32)
    params = lsh.fit(jax.random.key(0), xt, 5)
    shuffled = lsh.fit(jax.random.key(0), rng.permutation(xt), 5)
    np.testing.assert_allclose(params.mean, xt.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(params.mean, shuffled.mean, rtol=1e-6)
    np.testing.assert_array_equal(params.weights, shuffled.weights)
