"""Centres of k-means: what they are, and the sample they are made of."""

import jax
import numpy as np
import pytest

from sigah_jax.baselines.kmeans import centres_of


@pytest.mark.parametrize("key", range(8))
def test_a_centre_is_the_mean_of_the_rows_nearest_to_it(key):
    # Where k-means ends depends on where it starts: three far clouds may share two centres.
    # Wherever that is, one more iteration moves no centre, whatever the key. A row midway between
    # two, which rounding may give to either, weighs less than one part in a hundred.
    rng = np.random.default_rng(1)
    clouds = np.array([[0, 0], [20, 0], [0, 20]])
    x = (np.repeat(clouds, 200, axis=0) + rng.normal(size=(600, 2))).astype(np.float32)
    centres = centres_of(jax.random.key(key), x, 3, 600, 100)
    nearest = np.argmin(((x[:, None] - centres) ** 2).sum(axis=2), axis=1)
    means = [x[nearest == i].mean(axis=0) for i in range(3)]
    np.testing.assert_allclose(centres, means, atol=0.05)


@pytest.mark.parametrize("key", range(5))
def test_only_a_sample_of_many_rows_counts(key):
    # 1,000 rows at 0 and one at 1000. One centre of a sample of 50 is their mean: 0 without the
    # one, 1000 / 50 with it. Of all rows it is 1000 / 1001.
    x = np.zeros((1001, 4), np.float32)
    x[500] = 1000
    sampled = centres_of(jax.random.key(key), x, 1, 50, 2).max()
    assert sampled == 0 or sampled == pytest.approx(20, rel=1e-5)
    whole = centres_of(jax.random.key(key), x, 1, 2000, 2)
    np.testing.assert_allclose(whole, np.full((1, 4), 1000 / 1001), rtol=1e-4)


def test_the_key_decides_and_more_centres_than_the_sample_widen_it():
    x = np.random.default_rng(0).standard_normal((300, 3)).astype(np.float32)
    one, same, other = (centres_of(jax.random.key(k), x, 60, 10, 3) for k in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert one.shape == (60, 3) and not np.array_equal(one, other)
