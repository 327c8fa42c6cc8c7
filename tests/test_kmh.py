"""K-means hashing: a square by hand, an objective that its steps never raise, scipy's minimiser."""

import jax
import numpy as np
import pytest
from scipy.optimize import minimize
from sets import flat_rows, neighbour_share

from sigah_jax.baselines import kmh, linear, lsh
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput


def skewed_rows(n: int, s: int) -> np.ndarray:
    """Centred exponential rows of falling variance, [n, s] f32: no rotation makes them a cube."""
    x = np.random.default_rng(1).exponential(size=(n, s)) * 1.3 ** -np.arange(s)
    return (x - x.mean(axis=0)).astype(np.float32)


def objective(c, z, nearest, bits, scale, affinity):
    """The paper's objective in float64, by loops."""
    k = len(c)
    shares = np.bincount(nearest, minlength=k) / len(z)
    quantisation = np.mean(np.sum((z - c[nearest]) ** 2, axis=1))
    error = 0.0
    for i in range(k):
        for j in range(k):
            target = scale * np.sqrt(bin(i ^ j).count("1"))
            error += shares[i] * shares[j] * (np.linalg.norm(c[i] - c[j]) - target) ** 2
    return quantisation + affinity * error


def test_the_corners_of_a_square_are_their_own_codewords():
    # (±2, ±2): the first codewords ±2 are the rows themselves, at distances 4 = r √1 and
    # 4 √2 = r √2 with r = 4, so both terms are zero and nothing moves. Index 2 = 10 is (+2, -2).
    z = np.array([[2, 2], [2, -2], [-2, 2], [-2, -2]], np.float32)
    c, energies = kmh.affinity_preserving_kmeans(z, 2, 3, 10.0)
    np.testing.assert_allclose(c, [[-2, -2], [-2, 2], [2, -2], [2, 2]], atol=1e-5)
    np.testing.assert_allclose(energies, 0, atol=1e-5)


def test_bits_of_numbers():
    np.testing.assert_array_equal(
        kmh.bits_of(np.array([0, 1, 6]), 3), [[-1, -1, -1], [-1, -1, 1], [1, 1, -1]]
    )


def test_without_affinity_it_is_k_means():
    # λ = 0: a step puts each codeword on the mean of its rows, as Lloyd does.
    z = skewed_rows(400, 3)
    c, _ = kmh.affinity_preserving_kmeans(z, 2, 40, 0.0)
    lloyd = np.array(kmh.bits_of(np.arange(4), 2)) * np.abs(z[:, :2]).mean()
    lloyd = np.concatenate([lloyd, np.zeros((4, 1))], axis=1)
    for _ in range(40):
        nearest = np.linalg.norm(z[:, None] - lloyd, axis=2).argmin(axis=1)
        lloyd = np.array([z[nearest == i].mean(axis=0) for i in range(4)])
    np.testing.assert_allclose(c, lloyd, atol=1e-3)


@pytest.mark.parametrize("affinity", [0.3, 10.0])
def test_no_step_raises_the_objective(affinity):
    z = skewed_rows(1000, 6)
    _, energies = kmh.affinity_preserving_kmeans(z, 4, 30, affinity)
    energies = np.asarray(energies)
    # Float32 rounding of sums near 10 stays below 1e-5; the whole fall is more than 5 %.
    assert np.diff(energies, axis=1).max() < 1e-5
    assert energies[-1, 1] < 0.95 * energies[0, 0]


def test_objective_is_that_of_the_paper_and_its_minimum_that_of_scipy():
    # One assignment, to the first codewords; from there the steps go nearly as low as scipy's
    # quasi-Newton search of the same objective, written down by loops.
    z, bits, affinity = skewed_rows(300, 3), 2, 2.0
    corner = np.abs(z[:, :bits]).mean()
    first = np.zeros((4, 3))
    first[:, :bits] = np.asarray(kmh.bits_of(np.arange(4), bits)) * corner
    nearest = np.linalg.norm(z[:, None] - first, axis=2).argmin(axis=1)
    arguments = (z, nearest, bits, 2 * corner, affinity)
    c, energies = kmh.affinity_preserving_kmeans(z, bits, 1, affinity)
    np.testing.assert_allclose(energies[0, 0], objective(first, *arguments), rtol=1e-5)
    np.testing.assert_allclose(energies[0, 1], objective(np.asarray(c), *arguments), rtol=1e-5)
    best = minimize(lambda v: objective(v.reshape(4, 3), *arguments), first.ravel() + 1e-3)
    assert best.fun < 0.97 * energies[0, 0]
    np.testing.assert_allclose(energies[0, 1], best.fun, rtol=0.01)


def test_groups_balance_the_products_by_hand():
    # Logarithms of 16 8 4 2 1 1, counted from one below the smallest: 3.77 3.08 2.39 1.69 1 1.
    # Group 0 takes the first, group 1 the second and, at 3.08 < 3.77, the third (5.47). The
    # fourth goes to group 0 (5.46), and so does the fifth, which fills it.
    groups = kmh.balanced_groups(np.array([16, 8, 4, 2, 1, 1], np.float32), 2)
    np.testing.assert_array_equal(groups, [[0, 3, 4], [1, 2, 5]])


@pytest.mark.parametrize(("d", "m"), [(5, 2), (13, 5), (40, 8), (7, 7)])
def test_groups_are_of_equal_size_but_for_one(d, m):
    # 13 components in 5 groups: 3, 3, 3, 2, 2, filled up with the number 13.
    groups = kmh.balanced_groups(0.5 ** np.arange(d, dtype=np.float32), m)
    sizes = np.sum(groups < d, axis=1)
    assert sorted(sizes)[0] == d // m and sizes.max() == groups.shape[1] == -(-d // m)
    np.testing.assert_array_equal(np.sort(groups[groups < d]), np.arange(d))
    assert (np.diff(groups, axis=1) >= 0).all()


def test_project_is_the_index_of_the_nearest_codeword():
    # 40 columns in 3 subspaces of 2 bits, so 14, 13 and 13 columns.
    x = flat_rows(500)
    params = kmh.fit(jax.random.key(0), x, 6, 2, 500, 5, 10.0)
    assert params.codewords.shape == (3, 4, 14)
    z = ((x - params.mean) @ params.rotation).reshape(500, 3, 14)
    u = np.asarray(kmh.project(params, x))
    for m in range(3):
        nearest = np.linalg.norm(z[:, m, None] - params.codewords[m], axis=2).argmin(axis=1)
        expected = np.stack([nearest >> 1, nearest & 1], axis=1) * 2 - 1
        # A row half way between two codewords may fall to either by rounding.
        assert np.mean((u[:, 2 * m : 2 * m + 2] != expected).any(axis=1)) < 0.01
    assert set(np.unique(u)) == {-1, 1}


def test_rotation_is_orthonormal_and_fills_up_with_zeros():
    params = kmh.fit(jax.random.key(0), flat_rows(200), 6, 2, 200, 1, 10.0)
    products = params.rotation.T @ params.rotation
    diagonal = np.diag(products)
    np.testing.assert_allclose(products, np.diag(diagonal.round()), atol=1e-5)
    assert diagonal.round().sum() == 40


def test_scale_and_shift_move_no_bit():
    x = np.round(flat_rows(500) * 64).astype(np.float32)
    u = [
        np.asarray(kmh.project(kmh.fit(jax.random.key(0), y, 4, 2, 500, 5, 10.0), y))
        for y in (x, 4 * x, x + 128)
    ]
    assert np.mean(u[0] != u[1]) < 0.01
    assert np.mean(u[0] != u[2]) < 0.01


def test_all_rows_need_no_key_and_a_key_draws_the_rest():
    x = flat_rows(300)
    whole = [kmh.fit(jax.random.key(k), x, 4, 2, 300, 5, 10.0).codewords for k in (0, 1)]
    np.testing.assert_array_equal(*whole)
    one, again, other = (
        kmh.fit(jax.random.key(k), x, 4, 2, 100, 5, 10.0).codewords for k in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.01


def test_rows_do_not_depend_on_their_block():
    x = flat_rows(101)
    params = kmh.fit(jax.random.key(0), x, 8, 4, 101, 3, 10.0)
    whole = parallel.map_rows(kmh.project, 128)(params, x)
    np.testing.assert_array_equal(whole, parallel.map_rows(kmh.project, 3)(params, x))


def test_better_than_lsh():
    # 30 clusters in 16 of 40 dimensions, 16 bits. The share of the 20 nearest rows among the
    # first 20 by Hamming distance, ties by row: LSH .31, ours .41. (On one Gaussian of rapidly
    # falling variance LSH wins: subspaces of little variance have as many bits as the others.)
    plane = np.linalg.qr(np.random.default_rng(7).normal(size=(40, 16)))[0]
    centres = 2 * np.random.default_rng(8).normal(size=(30, 16))
    rng = np.random.default_rng(1)
    z = centres[rng.integers(30, size=2050)] + rng.normal(size=(2050, 16))
    x, q = np.split((z @ plane.T + 3).astype(np.float32), [2000])
    ours = neighbour_share(kmh.project, kmh.fit(jax.random.key(0), x, 16, 4, 2000, 20, 10.0), q, x)
    assert ours > neighbour_share(linear.project, lsh.fit(jax.random.key(0), x, 16), q, x) + 0.05


def test_bits_that_do_not_fit_are_refused():
    x = flat_rows(60)
    with pytest.raises(BadInput, match="subspaces of 4 bits; got 18 bits, use a multiple"):
        kmh.fit(jax.random.key(0), x, 18, 4, 60, 1, 10.0)
    with pytest.raises(BadInput, match="with subspaces of 1 to 8 bits"):
        kmh.fit(jax.random.key(0), x, 18, 9, 60, 1, 10.0)
    with pytest.raises(BadInput, match=r"KMH: .* 40 columns; got 64 bits, use at most 40"):
        kmh.fit(jax.random.key(0), x, 64, 4, 60, 1, 10.0)
