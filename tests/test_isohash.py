"""IsoHash: equal variances as the certificate of a solution, a distance that never rises."""

import jax
import numpy as np
import pytest
from sets import mean_average_precision, rows

from sigah_jax.baselines import isohash, linear, lsh, pca_rr, pca_sign
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput
from sigah_jax.model import pca

KEY = jax.random.key(0)


@pytest.mark.parametrize("seed", range(3))
def test_two_variances_turn_by_45_degrees(seed):
    # Of variances 3 and 1 a turn by t gives 2 ± cos 2t: equal at 45° alone, where all entries
    # of R are ±√½.
    rotation, distances = isohash.lift_and_project(jax.random.key(seed), np.array([3.0, 1.0]), 100)
    np.testing.assert_allclose(np.abs(rotation), np.sqrt(0.5), atol=1e-7)
    assert distances[-1] < 1e-7


@pytest.mark.parametrize("zeros", [0, 20])
def test_distance_never_increases_and_ends_at_equal_variances(zeros):
    variances = 0.8 ** np.arange(48.0)
    variances[48 - zeros :] = 0
    rotation, distances = isohash.lift_and_project(KEY, variances, 200)
    assert len(distances) < 201
    assert np.diff(distances).max() < 1e-12
    assert distances[0] > 0.5
    assert distances[-2] >= isohash.TOLERANCE > distances[-1]
    z = rotation.T @ np.diag(variances) @ rotation
    np.testing.assert_allclose(np.diag(z), variances.mean(), rtol=1e-9)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(48), atol=1e-12)
    # Isospectral: a rotation moves the variances between the bits and makes none.
    np.testing.assert_allclose(np.linalg.eigvalsh(z)[::-1], variances, atol=1e-12)


def test_without_iterations_the_rotation_is_the_random_one():
    variances = np.array([4.0, 2.0, 1.0, 1.0])
    rotation, distances = isohash.lift_and_project(KEY, variances, 0)
    # Orthonormal columns are those of the draw up to their sign.
    drawn = np.asarray(jax.random.orthogonal(KEY, 4))
    np.testing.assert_allclose(np.abs(np.sum(rotation * drawn, axis=0)), 1, atol=1e-5)
    diagonal = np.diag(rotation.T @ np.diag(variances) @ rotation)
    np.testing.assert_allclose(distances, [np.linalg.norm(diagonal - 2) / 2], rtol=1e-10)


def test_every_iteration_is_two_nearest_points():
    # One alternation by brute force: among the isospectral matrices of two variances, a turn by
    # t each, none is nearer to the lifted matrix than the one of the next rotation.
    variances = np.diag([5.0, 1.0])
    first, _ = isohash.lift_and_project(jax.random.key(6), np.diag(variances), 0)
    second, _ = isohash.lift_and_project(jax.random.key(6), np.diag(variances), 1)
    lifted = first.T @ variances @ first
    np.fill_diagonal(lifted, 3)
    turns = [
        np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
        for t in np.linspace(0, np.pi, 20_001)
    ]
    best = min(np.linalg.norm(lifted - r.T @ variances @ r) for r in turns)
    ours = np.linalg.norm(lifted - second.T @ variances @ second)
    np.testing.assert_allclose(ours, best, rtol=1e-6)
    assert ours < np.linalg.norm(lifted - first.T @ variances @ first)


def test_scale_of_the_variances_does_not_move_the_rotation():
    variances = 0.7 ** np.arange(12.0)
    one, distances = isohash.lift_and_project(KEY, variances, 3)
    scaled, same = isohash.lift_and_project(KEY, 4 * variances, 3)
    np.testing.assert_allclose(one, scaled, atol=1e-10)
    np.testing.assert_allclose(distances, same, rtol=1e-10)


def test_iterations_are_a_limit():
    _, distances = isohash.lift_and_project(KEY, 0.5 ** np.arange(16.0), 3)
    assert distances.shape == (4,)
    assert distances[-1] > isohash.TOLERANCE


@pytest.mark.parametrize("variance", [0.0, 2.0])
def test_equal_variances_are_isotropic_whatever_the_rotation(variance):
    _, distances = isohash.lift_and_project(KEY, np.full(6, variance), 2)
    assert distances.shape == (1,)
    assert distances[0] < 1e-12


def test_fit_rotates_the_components_to_equal_variances():
    xt = rows(2000, 30, 16)
    mean, directions, variances = pca.principal_directions(xt, 16)
    params = isohash.fit(KEY, xt, 16, 200)
    u = np.asarray(linear.project(params, xt))
    np.testing.assert_allclose(u.var(axis=0), variances.mean(), rtol=1e-3)
    # Unrotated they differ by a factor of 300, and a random rotation leaves a part of that.
    random = np.asarray(linear.project(pca_rr.fit(KEY, xt, 16), xt))
    assert random.var(axis=0).std() > 0.1 * variances.mean()
    np.testing.assert_allclose(
        params.weights @ params.weights.T, directions @ directions.T, atol=1e-5
    )
    np.testing.assert_array_equal(params.mean, mean)
    assert params.weights.dtype == np.float32


def test_keys_draw_different_rotations_and_repeat():
    xt = rows(200, 8, 8)
    one, again, other = (isohash.fit(jax.random.key(k), xt, 6, 50).weights for k in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.1


@pytest.mark.parametrize("block_rows", [1, 3, 64])
def test_rows_do_not_depend_on_their_block(block_rows):
    xt = rows(70, 8, 8)
    params = isohash.fit(KEY, xt, 4, 50)
    u = parallel.map_rows(linear.project, block_rows)(params, xt)
    np.testing.assert_allclose(u, (xt - params.mean) @ params.weights, atol=1e-5)


def test_more_bits_than_columns_are_refused():
    with pytest.raises(BadInput, match=r"IsoHash: .* 8 columns; got 16 bits, use at most 8"):
        isohash.fit(KEY, np.ones((30, 8), np.float32), 16, 50)


def test_beats_lsh_and_unrotated_components_where_variances_fall():
    # The last of 16 bits has 0.82^30 = 0.003 of the first one's variance: unrotated, it is
    # noise of equal weight.
    x = rows(3200, 64, 16)
    xq, xb = x[:200], x[200:]

    def precision(params) -> float:
        return mean_average_precision(linear.project, params, xq, xb, 20)

    ours = [precision(isohash.fit(jax.random.key(k), xb, 16, 200)) for k in range(3)]
    random = [precision(lsh.fit(jax.random.key(k), xb, 16)) for k in range(3)]
    unrotated = precision(pca_sign.fit(KEY, xb, 16))
    assert min(ours) > 1.1 * max(random)
    assert min(ours) > 1.1 * unrotated
