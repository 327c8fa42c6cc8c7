"""PCA + random rotation: the subspace stays, the variances come closer to each other."""

import jax
import numpy as np
import pytest
import sets

from sigah_jax.baselines import linear, pca_rr
from sigah_jax.errors import BitsRefused
from sigah_jax.model import pca


def test_random_rotation_keeps_the_subspace_and_its_distances():
    xt = sets.correlated_rows(500, 20)
    mean, directions, variances = pca.principal_directions(xt, 6)
    params = pca_rr.fit(jax.random.key(3), xt, 6)
    np.testing.assert_allclose(params.weights.T @ params.weights, np.eye(6), atol=1e-5)
    # W Wᵀ is the projector on the span of the directions, whatever the rotation.
    np.testing.assert_allclose(
        params.weights @ params.weights.T, directions @ directions.T, atol=1e-5
    )
    u = np.asarray(linear.project(params, xt))
    assert u.shape == (500, 6)
    np.testing.assert_allclose(
        np.linalg.norm(u, axis=1), np.linalg.norm((xt - mean) @ directions, axis=1), rtol=1e-4
    )
    # The variances are 1, 0.67 ... 0.13 before the rotation and closer to each other after it.
    assert u.var(axis=0).std() < 0.8 * variances.std()


def test_keys_draw_different_rotations_and_repeat():
    xt = sets.correlated_rows(200, 8)
    one, again, other = (pca_rr.fit(jax.random.key(k), xt, 4).weights for k in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.1


def test_more_bits_than_columns_are_refused():
    with pytest.raises(BitsRefused, match=r"PCA-RR: .* 8 columns; got 16 bits, use at most 8"):
        pca_rr.fit(jax.random.key(0), np.ones((30, 8), np.float32), 16)
