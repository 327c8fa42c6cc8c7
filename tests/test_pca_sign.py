"""Signs of principal components: axes by hand, numpy's SVD, and prefixes of longer codes."""

import jax
import numpy as np
import pytest
from sets import mean_average_precision

from sigah_jax.baselines import linear, lsh, pca_sign
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput

KEY = jax.random.key(0)


def rows(n: int, d: int, rank: int) -> np.ndarray:
    """Rows near a subspace of this rank, of spreads that fall by 3 % a direction."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(d, d)))
    scores = rng.normal(size=(n, d)) * np.where(np.arange(d) < rank, 0.97 ** np.arange(d), 0.05)
    return (scores @ basis.T + 3 * rng.normal(size=d)).astype(np.float32)


def test_axes_by_hand():
    # Variances 4.5 along the second axis and 0.5 along the first, mean (20, 10): bit 0 is
    # second > 10, bit 1 is first > 20.
    xt = np.array([[20, 13], [20, 7], [21, 10], [19, 10]], np.float32)
    params = pca_sign.fit(KEY, xt, 2)
    x = np.array([[22, 9], [19, 10.5], [25, 30]], np.float32)
    u = linear.project(params, x)
    np.testing.assert_allclose(u, [[-1, 2], [0.5, -1], [20, 5]], atol=1e-5)


def test_agrees_with_numpy_svd_up_to_sign():
    xt = rows(600, 24, 12)
    u = np.asarray(linear.project(pca_sign.fit(KEY, xt, 10), xt))
    centred = xt.astype(np.float64) - xt.mean(axis=0, dtype=np.float64)
    left, s, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :10] * s[:10]
    expected *= np.sign(np.sum(expected * u, axis=0))
    np.testing.assert_allclose(u, expected, atol=1e-3)
    # Uncorrelated bits' projections, of falling variance: no rotation has mixed them.
    covariance = np.cov(u.T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-4)
    assert (np.diff(np.diag(covariance)) < 0).all()


def test_a_short_code_is_the_start_of_a_long_one():
    xt = rows(500, 16, 8)
    short, long = (pca_sign.fit(KEY, xt, bits).weights for bits in (5, 16))
    np.testing.assert_array_equal(short, long[:, :5])


def test_translation_and_scale_change_no_bit():
    xt = rows(500, 16, 16)
    bits = np.asarray(linear.project(pca_sign.fit(KEY, xt, 8), xt)) > 0
    moved = 4 * xt + 10
    again = np.asarray(linear.project(pca_sign.fit(KEY, moved, 8), moved)) > 0
    # Rounding may flip a bit of a projection near zero; another code differs in half of them.
    assert np.mean(bits != again) < 0.002


def test_nothing_is_drawn():
    xt = rows(200, 8, 8)
    one, other = (pca_sign.fit(jax.random.key(k), xt, 4).weights for k in (0, 1))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("block_rows", [1, 3, 64])
def test_rows_do_not_depend_on_their_block(block_rows):
    xt = rows(70, 8, 8)
    params = pca_sign.fit(KEY, xt, 4)
    u = parallel.map_rows(linear.project, block_rows)(params, xt)
    np.testing.assert_allclose(u, (xt - params.mean) @ params.weights, atol=1e-5)


def test_more_bits_than_columns_are_refused():
    with pytest.raises(BadInput, match=r"PCA signs: .* 8 columns; got 16 bits, use at most 8"):
        pca_sign.fit(KEY, np.ones((30, 8), np.float32), 16)


def test_beats_lsh_near_a_subspace_of_as_many_dimensions_as_bits():
    # Each bit is of one of the 12 directions that hold the variance; a random hyperplane is of
    # a mixture of them, and two such bits repeat part of one another.
    x = rows(3200, 48, 12)
    xq, xb = x[:200], x[200:]
    ours = mean_average_precision(linear.project, pca_sign.fit(KEY, xb, 12), xq, xb, 20)
    random = [
        mean_average_precision(linear.project, lsh.fit(jax.random.key(k), xb, 12), xq, xb, 20)
        for k in range(3)
    ]
    assert ours > 1.2 * max(random)
