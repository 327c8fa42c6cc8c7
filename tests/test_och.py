"""Ordinal constraint hashing: relations and loss by hand, a loss that never rises, the manifold."""

import jax
import numpy as np
import pytest
from sets import flat_rows

from sigah_jax.baselines import linear, lsh, och
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput
from sigah_jax.model import pca


def landmarks(p: int = 6, count: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y = np.random.default_rng(2).normal(size=(count, p)).astype(np.float32) * 2
    return y, *och.relations(y, 5)


def test_relations_on_a_line_by_hand():
    # Landmarks at 0, 1, 3, 7. From 3 the others are at 3, 2, 4: the nearest is 1, and farther
    # than it are 0 and 7, while 3 itself and 1 are not. From 1: nearest 0 at 1, farther 3 and 7.
    near, farther = och.relations(np.array([[0], [1], [3], [7]], np.float32), 2)
    np.testing.assert_array_equal(near, [[1, 2], [0, 2], [1, 0], [2, 1]])
    np.testing.assert_array_equal(farther[2, 0], [True, False, False, True])
    np.testing.assert_array_equal(farther[2, 1], [False, False, False, True])
    np.testing.assert_array_equal(farther[1, 0], [False, False, True, True])


def test_ties_are_no_relations_and_go_to_the_lower_id():
    # From 0 both others are at 1: the nearest is number 1, and number 2 is not farther.
    near, farther = och.relations(np.array([[0], [1], [-1]], np.float32), 1)
    np.testing.assert_array_equal(near[0], [1])
    assert not farther[0].any()


def test_loss_by_hand():
    # One bit, landmarks at -9, 9 and 10 on a line, W = 1: h = -1, 1, 1 to float32. One nearest:
    # from -9 it is 9, and 10 is farther: h·h are -1 and -1, sigmoid(0) = 1/2;
    # from 9 it is 10, and -9 is farther: sigmoid(-1 - 1); from 10 the same.
    y = np.array([[-9], [9], [10]], np.float32)
    loss = och.ordinal_loss(np.ones((1, 1), np.float32), y, *och.relations(y, 1))
    np.testing.assert_allclose(loss, (0.5 + 2 / (1 + np.exp(2))) / 3, rtol=1e-6)


def test_loss_agrees_with_loops_over_triplets():
    y, near, farther = landmarks()
    w = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32) / 3
    h = np.tanh(y.astype(np.float64) @ w)
    distance = np.linalg.norm(y[:, None].astype(np.float64) - y, axis=2)
    costs = []
    for i in range(40):
        others = [j for j in np.argsort(distance[i], kind="stable") if j != i]
        for j in others[:5]:
            for k in others:
                if distance[i, k] > distance[i, j]:
                    costs.append(1 / (1 + np.exp(h[i] @ h[j] - h[i] @ h[k])))
    np.testing.assert_allclose(och.ordinal_loss(w, y, near, farther), np.mean(costs), rtol=1e-5)


@pytest.mark.parametrize("bits", [4, 6, 15])
def test_loss_never_increases_and_w_stays_on_the_manifold(bits):
    y, near, farther = landmarks()
    w, losses = och.learn(jax.random.key(0), y, near, farther, bits, 25)
    losses = np.asarray(losses)
    assert losses.shape == (26,)
    assert np.diff(losses).max() <= 1e-7
    assert losses[-1] < 0.95 * losses[0]
    np.testing.assert_allclose(losses[-1], och.ordinal_loss(w, y, near, farther), rtol=1e-5)
    # Orthonormal columns with 4 or 6 bits of 6 components, orthonormal rows with 15.
    products = w.T @ w if bits <= 6 else w @ w.T
    np.testing.assert_allclose(products, np.eye(min(bits, 6)), atol=1e-5)


def test_the_last_w_is_nearly_stationary():
    # Along any turn of the components the loss at the last W changes little, compared to the
    # first one: its gradient on the manifold has become small.
    y, near, farther = landmarks()

    def turning(w):
        g = jax.grad(och.ordinal_loss)(w, y, near, farther)
        return np.linalg.norm(g - w @ g.T @ w)

    first, _ = och.learn(jax.random.key(0), y, near, farther, 4, 0)
    last, _ = och.learn(jax.random.key(0), y, near, farther, 4, 200)
    assert turning(last) < 0.1 * turning(first)


def test_fit_lies_in_the_principal_components():
    x = flat_rows(500)
    params = och.fit(jax.random.key(0), x, 8, 50, 5, 4, 3)
    _, directions, _ = pca.principal_directions(x, 4)
    inside = directions @ directions.T @ params.weights
    np.testing.assert_allclose(inside, params.weights, atol=1e-5)
    np.testing.assert_allclose(np.linalg.svd(params.weights)[1][:4], 1, atol=1e-4)


def test_scale_and_shift_move_few_bits():
    # tanh sees scaled components, and distances keep their order: only rounding differs.
    x = np.round(flat_rows(500) * 64).astype(np.float32)
    first, *others = (
        np.asarray(linear.project(och.fit(jax.random.key(0), y, 8, 30, 4, 5, 10), y)) > 0
        for y in (x, 4 * x, x + 128)
    )
    for other in others:
        assert np.mean(first != other) < 0.05


def test_keys_draw_other_projections_and_repeat():
    x = flat_rows(300)
    one, again, other = (och.fit(jax.random.key(k), x, 5, 30, 4, 5, 3).weights for k in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.1


def test_rows_do_not_depend_on_their_block():
    x = flat_rows(101)
    params = och.fit(jax.random.key(0), x, 6, 20, 3, 6, 3)
    whole = parallel.map_rows(linear.project, 128)(params, x)
    np.testing.assert_allclose(whole, parallel.map_rows(linear.project, 3)(params, x), atol=1e-5)


def test_more_bits_than_columns():
    x = flat_rows(300)
    params = och.fit(jax.random.key(0), x, 48, 30, 4, 6, 3)
    assert linear.project(params, x).shape == (300, 48)
    np.testing.assert_allclose(np.linalg.svd(params.weights)[1][:6], 1, atol=1e-4)


def test_better_than_lsh_and_than_its_own_first_projection():
    # 32 columns, each of 0.8 times the spread of the one before, mixed by a rotation; 16 bits of
    # 12 components. Means of three keys of the share of the 20 nearest rows among the first 20 by
    # Hamming distance, ties by row: LSH .19, a random projection of components .24, ours .28.
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.normal(size=(32, 32)))[0]
    z = rng.normal(size=(2050, 32)) * 0.8 ** np.arange(32)
    x, q = np.split((z @ turn + 3).astype(np.float32), [2000])
    nearest = np.argsort(np.linalg.norm(q[:, None] - x, axis=2), axis=1)[:, :20]

    def precision(fit):
        shares = []
        for seed in range(3):
            params = fit(jax.random.key(seed))
            cq, cb = (np.asarray(linear.project(params, rows)) > 0 for rows in (q, x))
            found = np.argsort((cq[:, None] != cb).sum(axis=2), axis=1, kind="stable")[:, :20]
            shares += [len(np.intersect1d(f, n)) / 20 for f, n in zip(found, nearest, strict=True)]
        return np.mean(shares)

    ours = precision(lambda key: och.fit(key, x, 16, 200, 5, 12, 40))
    assert ours > precision(lambda key: lsh.fit(key, x, 16)) + 0.05
    assert ours > precision(lambda key: och.fit(key, x, 16, 200, 5, 12, 0)) + 0.02


def test_takes_all_components_where_there_are_fewer():
    x = flat_rows(60)  # of 40 columns
    all_of_them, more = (och.fit(jax.random.key(0), x, 8, 20, 4, p, 3) for p in (40, 41))
    np.testing.assert_array_equal(all_of_them.weights, more.weights)


def test_numbers_that_do_not_fit_are_refused():
    x = flat_rows(60)
    with pytest.raises(BadInput, match="got 4 nearest of 61 landmarks of 60 rows"):
        och.fit(jax.random.key(0), x, 8, 61, 4, 5, 3)
    with pytest.raises(BadInput, match="got 19 nearest of 20 landmarks"):
        och.fit(jax.random.key(0), x, 8, 20, 19, 5, 3)
