"""Spreading vectors: both terms against numpy and by hand, negatives, training, quality."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sets import low_dimensional, recall

from sigah_jax.baselines import linear, lsh, spreading
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput
from sigah_jax.retrieval import euclidean


def unit_rows(n: int, k: int) -> np.ndarray:
    y = np.random.default_rng(3).normal(size=(n, k))
    return (y / np.linalg.norm(y, axis=1, keepdims=True)).astype(np.float32)


def koleo_reference(y: np.ndarray) -> float:
    """Every pair in float64, the diagonal left out."""
    d = np.linalg.norm(y[:, None] - y[None], axis=2)
    np.fill_diagonal(d, np.inf)
    return -np.mean(np.log(len(y) * d.min(axis=1)))


@pytest.fixture(scope="module")
def trained() -> tuple[np.ndarray, spreading.SpreadingNet]:
    """4,000 rows and a small network, 24 bits, fitted to them."""
    x = low_dimensional(4000, 32)
    return x, spreading.fit(jax.random.key(0), x, 24, 30, 64, 0.02)


def test_koleo_by_hand():
    # Square on the circle: each of 4 points has its nearest at √2: -log(4 √2). Two opposite
    # points: -log(2·2).
    square = jnp.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    np.testing.assert_allclose(spreading.koleo(square), -np.log(4 * np.sqrt(2)), rtol=1e-6)
    np.testing.assert_allclose(spreading.koleo(square[::2]), -np.log(4), rtol=1e-6)


def test_koleo_and_its_gradient_agree_with_numpy():
    y = unit_rows(40, 5)
    np.testing.assert_allclose(spreading.koleo(jnp.asarray(y)), koleo_reference(y), rtol=1e-5)
    gradient = np.asarray(jax.grad(spreading.koleo)(jnp.asarray(y)))
    slopes = np.empty(y.shape)
    for i in np.ndindex(y.shape):
        step = np.zeros(y.shape)
        step[i] = 1e-6
        slopes[i] = (koleo_reference(y + step) - koleo_reference(y - step)) / 2e-6
    np.testing.assert_allclose(gradient, slopes, atol=1e-4)


def test_equal_outputs_have_a_finite_gradient():
    y = jnp.asarray(np.repeat(unit_rows(3, 4), 2, axis=0))
    assert np.isfinite(jax.grad(spreading.koleo)(y)).all()
    both = jax.grad(lambda a: jnp.sum(spreading.rank_loss(a, a, a[::-1])))(y)
    assert np.isfinite(both).all()


def test_rank_loss_by_hand():
    # ‖a - p‖ = 5, ‖a - n‖ = 13 or 3: max(0, 5 - 13) = 0 and max(0, 5 - 3) = 2.
    a = jnp.zeros((2, 2))
    p = jnp.array([[3.0, 4.0], [3.0, 4.0]])
    n = jnp.array([[5.0, 12.0], [0.0, 3.0]])
    np.testing.assert_allclose(spreading.rank_loss(a, p, n), [0, 2], atol=1e-6)


def test_negatives_have_rank_fifty():
    # 0, 1, 2 ... on a line, every row in the pool. Row 0 has rank r at row r; row 100 has
    # 99, 101, 98 ..., so ranks 49 and 50 at 75 and 125, equally far, the lower id first.
    y = np.arange(400, dtype=np.float32)[:, None]
    negatives = spreading._negatives(jax.random.key(0), y, parallel.engine("auto"))
    assert negatives[[0, 100, 399]].tolist() == [50, 125, 349]


def test_negatives_from_a_pool_have_about_that_rank():
    # 16,384 rows, a quarter in the pool: rank 50 becomes 50 / 4, rounded to even 12, plus one.
    # The true rank of the 12th or 13th of a quarter is about 48 to 52, with deviation
    # √(12.5 · ¾) · 4 = 12 a row, and rows close by share it: the mean of all is within 2.
    y = np.random.default_rng(0).permutation(16_384).astype(np.float32)[:, None]
    negatives = spreading._negatives(jax.random.key(0), y, parallel.engine("auto"))
    inner = (y[:, 0] > 100) & (y[:, 0] < 16_284)
    ranks = 2 * np.abs(y[negatives, 0] - y[:, 0])[inner]
    assert 46 < ranks.mean() < 54


def test_training_lowers_both_terms():
    x = low_dimensional(1500, 32)
    z = jnp.asarray((x - x.mean(axis=0)) / x.std(axis=0).mean())
    graph = euclidean.neighbour_graph(x, 10, parallel.engine("auto"))
    keys = jax.random.split(jax.random.key(0))
    _, terms = spreading.train(*keys, z, graph, (64, 64, 24), 15, 0.05)
    assert terms.shape == (15, 2)
    assert terms[-1, 0] < 0.5 * terms[0, 0]
    # 0.05 times -log of the distance to the nearest: 0.1 less is outputs a tenth farther apart
    assert terms[-1, 1] < terms[0, 1] - 0.05 * 0.1


def test_more_weight_on_koleo_spreads_the_codes():
    x = low_dimensional(1500, 32)
    spread = []
    for weight in (0.001, 0.5):
        params = spreading.fit(jax.random.key(0), x, 24, 15, 64, weight)
        spread.append(len(np.unique(np.asarray(spreading.project(params, x)) > 0, axis=0)))
    assert spread[1] > 1.2 * spread[0]


def test_beats_random_hyperplanes(trained):
    x, params = trained
    ours = recall(np.asarray(spreading.project(params, x)) > 0, x, 200)
    random = [
        recall(np.asarray(linear.project(lsh.fit(jax.random.key(k), x, 24), x)) > 0, x, 200)
        for k in range(3)
    ]
    # about 0.51 against 0.42 to 0.45: the network sees 930 batches of 128 rows and no more
    assert ours > max(random) + 0.03


def test_rows_do_not_depend_on_their_block_and_have_unit_length(trained):
    # 101 rows in blocks of 16 a device: full blocks and a last one that is filled with zeros.
    x, params = trained
    whole = np.asarray(spreading.project(params, x[:101]))
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, rtol=1e-5)
    in_blocks = parallel.map_rows(spreading.project, 16)(params, x[:101])
    np.testing.assert_allclose(in_blocks, whole, atol=1e-5)
    np.testing.assert_allclose(spreading.project(params, x[7:8]), whole[7:8], atol=1e-5)


def test_keys_repeat_and_more_bits_than_columns():
    x = low_dimensional(200, 5)
    one, again, other = (spreading.fit(jax.random.key(k), x, 12, 5, 16, 0.2) for k in (0, 0, 1))
    u = np.asarray(spreading.project(one, x))
    assert u.shape == (200, 12)
    assert len({bit.tobytes() for bit in u.T > 0}) == 12
    np.testing.assert_array_equal(u, spreading.project(again, x))
    assert np.mean((u > 0) != (np.asarray(spreading.project(other, x)) > 0)) > 0.1


def test_weight_by_hand():
    # (32/16)² = 4 and (32/8)² = 16; from 32 bits on .005 itself
    np.testing.assert_allclose([spreading.weight_of(bits) for bits in (16, 8)], [0.02, 0.08])
    assert {spreading.weight_of(bits) for bits in (32, 48, 64, 128)} == {0.005}


def test_too_few_rows_are_refused():
    with pytest.raises(BadInput, match="needs more rows than that; got 50"):
        spreading.fit(jax.random.key(0), low_dimensional(50, 5), 8, 2, 16, 0.05)
