"""Scalable graph hashing: the feature transformation written out, scipy's eigenvectors, bits."""

import jax
import numpy as np
import pytest
import scipy.linalg
from sets import flat_rows, neighbour_share

from sigah_jax.baselines import linear, lsh, sgh
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput


def problem(n: int = 300, m: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Random features F [n, m] of mean zero and the matrix Fᵀ S F of a random similarity S."""
    rng = np.random.default_rng(4)
    features = rng.normal(size=(n, m)).astype(np.float32) * 1.5 ** -np.arange(m, dtype=np.float32)
    features -= features.mean(axis=0)
    factors = rng.normal(size=(n, 5))
    return features, features.T @ (factors @ factors.T) @ features


def test_kernel_by_hand():
    # From (1, 0): squared distances 1 + 4 = 5 to the base (2, 2) and 0 to the base (1, 0), both
    # less the mean (1, 0) here; δ = 2.5, so exp(-5 / 5) and exp(0), less 0.25 each. The first
    # weights take the sum, the second the difference.
    params = sgh.KernelHash(
        np.array([1, 0], np.float32),
        np.array([[1, 2], [0, 0]], np.float32),
        np.float32(2.5),
        np.array([0.25, 0.25], np.float32),
        np.array([[1, 1], [1, -1]], np.float32),
    )
    u = sgh.project(params, np.array([[1, 0]], np.float32))
    np.testing.assert_allclose(u, [[np.exp(-1) + 0.5, np.exp(-1) - 1]], rtol=1e-5)


def test_similarity_is_the_chord_of_the_exponential_for_all_pairs():
    # Sum over pairs of rows, with exp(z) replaced by the straight line through its values at ±1.
    x = flat_rows(150)
    mean = x.mean(axis=0)
    z = (x - mean).astype(np.float64)
    rho = 2 * np.max(np.sum(z**2, axis=1))
    features, _ = problem(150, 7)
    inner = 2 * z @ z.T / rho
    assert np.abs(inner).max() <= 1 + 1e-9
    up, down = np.exp(1), np.exp(-1)
    chord = (up + down) / 2 + (up - down) / 2 * inner
    lengths = np.exp(-np.sum(z**2, axis=1) / rho)
    similarity = 2 * lengths[:, None] * lengths * chord - 1
    expected = features.T.astype(np.float64) @ similarity @ features
    got = sgh.transformed_similarity(features, x, mean, rho)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    # The chord meets the exponential at its ends, so the longest row has similarity 1 to itself.
    longest = np.sum(z**2, axis=1).argmax()
    np.testing.assert_allclose(similarity[longest, longest], 1, atol=1e-6)


def test_bits_are_scipys_generalised_eigenvectors_of_what_is_left_over():
    features, similarity = problem()
    bits = 6
    weights = sgh.learn_bits(jax.random.key(0), features, similarity, bits, 0)
    k = features.astype(np.float64)
    ridge = sgh.RIDGE * np.trace(k.T @ k) / 12 * np.eye(12)
    residual = bits * similarity
    for w in weights.T:
        _, v = scipy.linalg.eigh(residual, k.T @ k + ridge)
        cosine = v[:, -1] @ w / np.linalg.norm(v[:, -1])
        np.testing.assert_allclose(abs(cosine), 1, atol=1e-5)
        assert w[np.abs(w).argmax()] > 0
        term = k.T @ np.where(k @ w > 0, 1, -1)
        residual = residual - np.outer(term, term)


def test_a_bit_learned_again_is_the_eigenvector_without_its_own_term():
    # One round over 2 bits in the order of the key: after it, the last one learned is the
    # solution for the residual of the other.
    features, similarity = problem()
    key = jax.random.key(3)
    weights = sgh.learn_bits(key, features, similarity, 2, 1)
    last = int(jax.random.permutation(jax.random.split(key, 1)[0], 2)[-1])
    k = features.astype(np.float64)
    term = k.T @ np.where(k @ weights[:, 1 - last] > 0, 1, -1)
    gram = k.T @ k
    ridge = sgh.RIDGE * np.trace(gram) / 12 * np.eye(12)
    _, v = scipy.linalg.eigh(2 * similarity - np.outer(term, term), gram + ridge)
    cosine = v[:, -1] @ weights[:, last] / np.linalg.norm(v[:, -1])
    np.testing.assert_allclose(abs(cosine), 1, atol=1e-5)


def test_bits_add_up_to_the_similarity():
    # ‖K S - Σ b bᵀ‖² over all pairs, against that of random hyperplanes: ours 68, LSH 78. Each bit
    # is a relaxed solution, so nothing says that it never rises.
    x = flat_rows(400)
    z = (x - x.mean(axis=0)).astype(np.float64)
    rho = 2 * np.max(np.sum(z**2, axis=1))
    squared = np.sum((z[:, None] - z) ** 2, axis=2)
    similarity = 2 * np.exp(-squared / rho) - 1

    def loss(project, params):
        b = np.where(np.asarray(project(params, x)) > 0, 1.0, -1.0)
        return np.mean((16 * similarity - b @ b.T) ** 2)

    ours = loss(sgh.project, sgh.fit(jax.random.key(0), x, 16, 60, 1))
    assert ours < 0.92 * loss(linear.project, lsh.fit(jax.random.key(0), x, 16))


def test_scale_shift_and_rotation_move_few_bits():
    # Both scales follow the data, so only rounding differs; half of the bits differ by chance.
    x = flat_rows(500)
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(40, 40)))[0].astype(np.float32)
    first, *others = (
        np.asarray(sgh.project(sgh.fit(jax.random.key(0), y, 8, 40, 1), y)) > 0
        for y in (x, 4 * x, x + 2, x @ turn)
    )
    for other in others:
        assert np.mean(first != other) < 0.05


def test_keys_draw_other_bases_and_repeat():
    x = flat_rows(300)
    one, again, other = (sgh.fit(jax.random.key(k), x, 5, 30, 1) for k in (0, 0, 1))
    np.testing.assert_array_equal(one.weights, again.weights)
    np.testing.assert_array_equal(one.bases, again.bases)
    assert np.abs(one.bases - other.bases).max() > 0.1


def test_rows_do_not_depend_on_their_block():
    x = flat_rows(101)
    params = sgh.fit(jax.random.key(0), x, 6, 20, 1)
    whole = parallel.map_rows(sgh.project, 128)(params, x)
    np.testing.assert_allclose(whole, parallel.map_rows(sgh.project, 3)(params, x), atol=1e-5)


def test_more_bits_than_columns_and_better_than_lsh():
    # 48 bits for 40 columns. The share of the 20 nearest rows among the first 20 by Hamming
    # distance, ties by row: LSH .42, ours .51.
    x, q = flat_rows(2000), flat_rows(50, seed=1)
    ours = neighbour_share(sgh.project, sgh.fit(jax.random.key(0), x, 48, 200, 1), q, x)
    assert ours > neighbour_share(linear.project, lsh.fit(jax.random.key(0), x, 48), q, x) + 0.05


def test_bases_that_do_not_fit_and_equal_rows_are_refused():
    with pytest.raises(BadInput, match="from the 20 training rows; got 21, use 2 to 20"):
        sgh.fit(jax.random.key(0), flat_rows(20), 4, 21, 1)
    with pytest.raises(BadInput, match="rows that differ; got 20 equal ones"):
        sgh.fit(jax.random.key(0), np.ones((20, 3), np.float32), 4, 5, 1)
