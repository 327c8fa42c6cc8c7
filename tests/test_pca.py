"""Principal directions against closed forms and numpy's SVD."""

import numpy as np
import pytest
import sets

from sigah_jax.errors import BadInput
from sigah_jax.model import pca


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
    xt = sets.correlated_rows(500, 20)
    mean, directions, variances = pca.principal_directions(xt, 8)
    centred = xt.astype(np.float64) - xt.mean(axis=0, dtype=np.float64)
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(mean, xt.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(variances, s[:8] ** 2 / 500, rtol=1e-5)
    np.testing.assert_allclose(np.abs(np.sum(directions * vt[:8].T, axis=0)), 1, atol=1e-6)


@pytest.mark.parametrize("block_rows", [1, 7, 100, 499])
def test_block_size_changes_rounding_only(monkeypatch, block_rows):
    xt = sets.correlated_rows(500, 12)
    whole = pca.principal_directions(xt, 12)
    monkeypatch.setattr(pca, "BLOCK_ROWS", block_rows)
    mean, directions, variances = pca.principal_directions(xt, 12)
    np.testing.assert_allclose(mean, whole[0], rtol=1e-6)
    np.testing.assert_allclose(directions, whole[1], atol=1e-5)
    np.testing.assert_allclose(variances, whole[2], rtol=1e-5)


def test_sign_does_not_depend_on_the_sign_of_the_data():
    # The covariance of -x is that of x; the largest entry of each direction is positive.
    xt = sets.correlated_rows(300, 10)
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
    with pytest.raises(ValueError, match=f"1 to 4 principal directions .* got {p}"):
        pca.principal_directions(np.ones((10, 4), np.float32), p)


def test_products_that_overflow_float32_are_refused():
    # each squared norm, 1e38, fits float32; the sum of ten does not
    xt = np.tile([[1e19, 0], [-1e19, 0]], (5, 1)).astype(np.float32)
    with pytest.raises(BadInput, match="values so large that float32 overflows"):
        pca.principal_directions(xt, 1)
