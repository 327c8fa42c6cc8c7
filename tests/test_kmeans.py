"""Centres of k-means: what they are, and the sample they are made of."""

import jax
import numpy as np

from sigah_jax.baselines.kmeans import centres_of


def test_centres_are_the_means_of_their_rows():
    # Three far clouds, three centres: k-means ends at their means whatever its start, up to two
    # starts in one cloud.
    rng = np.random.default_rng(1)
    centres = np.array([[0, 0], [100, 0], [0, 100]])
    x = (np.repeat(centres, 200, axis=0) + rng.normal(size=(600, 2))).astype(np.float32)
    means = x.reshape(3, 200, 2).mean(axis=1)
    found = [centres_of(jax.random.key(k), x, 3, 600, 10) for k in range(8)]
    hits = [
        np.abs(c[np.lexsort(c.T)][:, None] - means).sum(axis=2).min(axis=0).max() for c in found
    ]
    assert min(hits) < 0.01


def test_only_a_sample_of_many_rows_counts():
    # 1,000 rows at 0 and one at 1000: a sample of 50 misses the one for most keys, all rows never
    x = np.zeros((1001, 4), np.float32)
    x[500] = 1000
    sampled = [centres_of(jax.random.key(k), x, 1, 50, 2).max() for k in range(5)]
    assert sorted(sampled)[2] == 0
    # one centre of all rows is their mean, 1000 / 1001
    whole = centres_of(jax.random.key(0), x, 1, 2000, 2)
    np.testing.assert_allclose(whole, np.full((1, 4), 1000 / 1001), rtol=1e-4)


def test_the_key_decides_and_more_centres_than_the_sample_widen_it():
    x = np.random.default_rng(0).standard_normal((300, 3)).astype(np.float32)
    one, same, other = (centres_of(jax.random.key(k), x, 60, 10, 3) for k in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert one.shape == (60, 3) and not np.array_equal(one, other)
