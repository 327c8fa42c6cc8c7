"""Principal directions against closed forms and numpy's SVD; the PCA + random rotation baseline."""

import jax
import numpy as np
import pytest

from sigah_jax.baselines import pca
from sigah_jax.errors import BadInput


def correlated_rows(n: int, d: int) -> np.ndarray:
    """Rows with a mean far from zero and variances that fall by a factor of 1.5 a direction."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(d, d)))
    scores = rng.normal(size=(n, d)) * 1.5 ** (-np.arange(d) / 2)
    return (scores @ basis.T + 5 * rng.normal(size=d)).astype(np.float32)


def test_four_points_on_two_axes():
    # Mean (10, 20). Offsets (±3, 0) and (0, ±1): the covariance is diagonal, with
    # (9 + 9 + 0 + 0) / 4 = 4.5 along the first axis and (1 + 1) / 4 = 0.5 along the second.
    xt = np.array([[13, 20], [7, 20], [10, 21], [10, 19]], np.float32)
    mean, directions, variances = pca.principal_directions(xt, 2)
    np.testing.assert_array_equal(mean, [10, 20])
    np.testing.assert_allclose(directions, np.eye(2), atol=1e-7)
    np.testing.assert_allclose(variances, [4.5, 0.5], rtol=1e-6)


def test_diagonal_covariance_gives_the_axes_by_falling_variance():
    # Each axis holds ±a twice in 2 x 3 rows, all else zero: variance 2 a² / 6.
    a = np.array([1.0, 3.0, 2.0])
    xt = np.concatenate([np.diag(a), -np.diag(a)])
    _, directions, variances = pca.principal_directions(xt, 3)
    np.testing.assert_allclose(directions, np.eye(3)[:, [1, 2, 0]], atol=1e-7)
    np.testing.assert_allclose(variances, [3.0, 4 / 3, 1 / 3], rtol=1e-6)


def test_agrees_with_numpy_svd_up_to_sign():
    xt = correlated_rows(500, 20)
    mean, directions, variances = pca.principal_directions(xt, 8)
    centred = xt.astype(np.float64) - xt.mean(axis=0, dtype=np.float64)
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(mean, xt.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(variances, s[:8] ** 2 / 500, rtol=1e-5)
    np.testing.assert_allclose(np.abs(np.sum(directions * vt[:8].T, axis=0)), 1, atol=1e-6)


@pytest.mark.parametrize("block_rows", [1, 7, 100, 499, 500, 10_000])
def test_block_size_changes_rounding_only(block_rows):
    xt = correlated_rows(500, 12)
    mean, directions, variances = pca.principal_directions(xt, 12, block_rows)
    whole = pca.principal_directions(xt, 12, 500)
    np.testing.assert_allclose(mean, whole[0], rtol=1e-6)
    np.testing.assert_allclose(directions, whole[1], atol=1e-5)
    np.testing.assert_allclose(variances, whole[2], rtol=1e-5)


def test_sign_does_not_depend_on_the_sign_of_the_data():
    # The covariance of -x is that of x; the largest entry of each direction is positive.
    xt = correlated_rows(300, 10)
    _, directions, _ = pca.principal_directions(xt, 10)
    _, mirrored, _ = pca.principal_directions(-xt, 10)
    np.testing.assert_allclose(directions, mirrored, atol=1e-5)
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(10)]
    assert (largest > 0).all()


def test_bytes_and_constant_columns():
    # Pixels come as bytes and some never change: no overflow, no negative variance.
    xt = np.random.default_rng(1).integers(0, 256, (400, 6)).astype(np.uint8)
    xt[:, [0, 4]] = 255
    mean, directions, variances = pca.principal_directions(xt, 6)
    np.testing.assert_allclose(mean, xt.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(directions.T @ directions, np.eye(6), atol=1e-6)
    np.testing.assert_allclose(variances[:4].sum(), xt.var(axis=0).sum(), rtol=1e-5)
    np.testing.assert_allclose(variances[4:], 0, atol=1e-3)
    assert (variances >= 0).all()


@pytest.mark.parametrize("p", [0, 5])
def test_more_directions_than_columns_are_refused(p):
    with pytest.raises(BadInput, match=f"got {p}, the data has 4 columns, use 1 to 4"):
        pca.principal_directions(np.ones((10, 4), np.float32), p)


def test_products_that_overflow_float32_are_refused():
    # each squared norm, 1e38, fits float32; the sum of ten does not
    xt = np.tile([[1e19, 0], [-1e19, 0]], (5, 1)).astype(np.float32)
    with pytest.raises(BadInput, match="values so large that float32 overflows"):
        pca.principal_directions(xt, 1)


def test_random_rotation_keeps_the_subspace_and_its_distances():
    xt = correlated_rows(500, 20)
    mean, directions, variances = pca.principal_directions(xt, 6)
    params = pca.fit(jax.random.key(3), xt, 6)
    np.testing.assert_allclose(params.weights.T @ params.weights, np.eye(6), atol=1e-5)
    # W Wᵀ is the projector on the span of the directions, whatever the rotation.
    np.testing.assert_allclose(
        params.weights @ params.weights.T, directions @ directions.T, atol=1e-5
    )
    u = np.asarray(pca.project(params, xt))
    assert u.shape == (500, 6)
    np.testing.assert_allclose(
        np.linalg.norm(u, axis=1), np.linalg.norm((xt - mean) @ directions, axis=1), rtol=1e-4
    )
    # The variances are 1, 0.67 ... 0.13 before the rotation and closer to each other after it.
    assert u.var(axis=0).std() < 0.8 * variances.std()


def test_keys_draw_different_rotations_and_repeat():
    xt = correlated_rows(200, 8)
    one, again, other = (pca.fit(jax.random.key(k), xt, 4).weights for k in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.1


def test_project_by_hand():
    # x - mean = (2, -1): 2·1 + (-1)·0 = 2, 2·3 + (-1)·7 = -1, so the code is 1, 0.
    params = pca.LinearHash(np.array([1, 1], np.float32), np.array([[1, 3], [0, 7]], np.float32))
    np.testing.assert_array_equal(pca.project(params, np.array([[3, 0]], np.float32)), [[2, -1]])
