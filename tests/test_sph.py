"""Spherical hashing: circles by hand, the paper's two conditions, the spherical distance."""

import jax
import numpy as np
import pytest
from sets import flat_rows, neighbour_share

from sigah_jax.baselines import linear, lsh, sph
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput
from sigah_jax.retrieval import codes, histograms, metrics


def test_project_by_hand():
    # Circles of radius 2 around (3, 0) and of radius 1 around (0, 1), seen from the centre (1, 0).
    # The point (1, 1): 4 - (4 + 1) = -1, outside; 1 - (1 + 0) = 0, on the rim, which is no 1.
    # The point (2, 0): 4 - 1 = 3, inside; 1 - (4 + 1) = -4, outside.
    params = sph.Spheres(
        np.array([1, 0], np.float32),
        np.array([[2, 0], [-1, 1]], np.float32),
        np.array([4, 1], np.float32),
    )
    u = sph.project(params, np.array([[1, 1], [2, 0]], np.float32))
    np.testing.assert_allclose(u, [[-1, 0], [3, -4]], atol=1e-6)


def test_one_step_moves_the_pivots_by_the_paper_force():
    # Reference by loops over pairs, from the same first pivots.
    x = flat_rows(200) - 3
    bits, m = 5, 200
    first, radii, errors = sph.balance(jax.random.key(1), x, bits, 0)
    assert len(errors) == 1
    moved, _, _ = sph.balance(jax.random.key(1), x, bits, 1)
    inside = np.linalg.norm(x[:, None] - first, axis=2) ** 2 < radii
    force = np.zeros_like(first)
    for i in range(bits):
        for j in range(bits):
            if i != j:
                overlap = np.sum(inside[:, i] & inside[:, j])
                force[i] += 0.5 * (overlap - m / 4) / (m / 4) * (first[i] - first[j])
    np.testing.assert_allclose(moved, first + force / bits, atol=1e-5)
    assert np.abs(force).max() > 0.01


def test_spheres_are_balanced_and_pairwise_independent():
    # 16 independent bits need about as many dimensions.
    x = np.random.default_rng(0).normal(2, 1, size=(3000, 24)).astype(np.float32)
    bits = 16
    params = sph.fit(jax.random.key(0), x, bits, 3000, 200)
    code = np.asarray(sph.project(params, x)) > 0
    # Half of 3,000 rows to one or two that rounding moves; first pivots hold half too.
    np.testing.assert_allclose(code.sum(axis=0), 1500, atol=2)
    overlaps = (code.T.astype(int) @ code)[np.triu_indices(bits, 1)]
    assert np.abs(overlaps - 750).mean() <= 0.10 * 750 + 2
    assert overlaps.std() <= 0.15 * 750 + 2
    _, _, errors = sph.balance(jax.random.key(0), x - x.mean(axis=0), bits, 200)
    # The random first pivots are close to each other: far more than a quarter in common.
    assert errors[0, 0] > 0.3
    assert (errors[-1] <= (0.10, 0.15)).all()
    assert not (errors[:-1] <= (0.10, 0.15)).all(axis=1).any()


def test_spherical_distance_by_hand():
    # a = 1101, b = 1011: they differ in 2 bits and have 2 ones in common: 2 / 2 = 1.
    # a and 1101 0000 1: 1 / 3. Without a common one: infinite, but 0 of a code to itself.
    rows = ["110100000", "101100000", "110100001", "001000000", "000000000"]
    c = np.asarray(codes.pack(np.array([[bit == "1" for bit in row] for row in rows])))
    inf = np.inf
    expected = [
        [0, 1, 1 / 3, inf, inf],
        [1, 0, 3 / 2, 2 / 1, inf],
        [1 / 3, 3 / 2, 0, inf, inf],
        [inf, 2, inf, 0, inf],
        [inf, inf, inf, inf, 0],
    ]
    np.testing.assert_array_equal(spherical_distances(c, c, 9), expected)


def spherical_distances(cq, cb, bits):
    groups, count = sph.spherical_groups(bits)
    values, _ = sph.spherical_values(bits)
    assert count == len(values) and (np.diff(values[:-1]) > 0).all() and values[-1] == np.inf
    return values[groups(cq, cb)]


def test_spherical_distance_agrees_with_counting():
    rng = np.random.default_rng(3)
    a, b = rng.random((20, 77)) < 0.5, rng.random((30, 77)) < 0.5
    expected = [[np.sum(p ^ q) / np.sum(p & q) for q in b] for p in a]
    got = spherical_distances(np.asarray(codes.pack(a)), np.asarray(codes.pack(b)), 77)
    np.testing.assert_array_equal(got, expected)


def test_metrics_by_the_spherical_distance_are_those_of_the_sorted_ranking():
    rng = np.random.default_rng(4)
    bits, sizes = 40, (1, 10, 100, 20)
    cq, cb = (np.asarray(codes.pack(rng.random((n, bits)) < 0.5)) for n in (5, 1000))
    near = np.stack([rng.permutation(1000)[:100] for _ in cq]).astype(np.int32)
    h = histograms.group_histograms(*sph.spherical_groups(bits), cq, cb, near, sizes, 300)
    assert (h.total.sum(1) == 1000).all()
    got = metrics.average_precision(h.total, h.relevant[3])
    for d, ids, value in zip(spherical_distances(cq, cb, bits), near, got, strict=True):
        relevant = np.isin(np.arange(1000), ids[:20])
        orders = [np.lexsort((rng.random(1000), d)) for _ in range(300)]  # ties at random
        ranks = np.array([np.flatnonzero(relevant[order]) + 1 for order in orders])
        assert abs((np.arange(1, 21) / ranks).mean() - value) < 0.01


def test_scale_and_shift_move_no_bit():
    # Distances to pivots scale with the data; powers of two and whole shifts round alike.
    x = np.round(flat_rows(500) * 64).astype(np.float32)
    codes_of = []
    for y in (x, 4 * x, x + 128):
        params = sph.fit(jax.random.key(2), y, 8, 400, 20)
        codes_of.append(np.asarray(sph.project(params, y)) > 0)
    np.testing.assert_array_equal(codes_of[0], codes_of[1])
    assert np.mean(codes_of[0] != codes_of[2]) < 0.01


def test_keys_draw_other_spheres_and_repeat():
    x = flat_rows(300)
    one, again, other = (sph.fit(jax.random.key(k), x, 6, 200, 5).pivots for k in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.1


def test_rows_do_not_depend_on_their_block():
    x = flat_rows(101)
    params = sph.fit(jax.random.key(0), x, 40, 100, 10)  # one bit for each column
    whole = parallel.map_rows(sph.project, 128)(params, x)
    blocks = parallel.map_rows(sph.project, 3)(params, x)
    np.testing.assert_allclose(whole, blocks, atol=1e-4)


def test_more_bits_than_columns_and_better_than_lsh():
    # 64 bits for 40 columns. The share of the 20 nearest rows among the first 20 by Hamming
    # distance, ties by row: LSH .43, spheres .58.
    x, q = flat_rows(2000), flat_rows(50, seed=1)
    ours = neighbour_share(sph.project, sph.fit(jax.random.key(0), x, 64, 2000, 100), q, x)
    assert ours > neighbour_share(linear.project, lsh.fit(jax.random.key(0), x, 64), q, x) + 0.05


def test_one_bit_is_refused():
    with pytest.raises(BadInput, match="against each other; got 1, use 2 or more"):
        sph.fit(jax.random.key(0), flat_rows(20), 1, 20, 10)
