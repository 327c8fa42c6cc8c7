import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sigah_jax.model import binarize, losses
from sigah_jax.retrieval.euclidean import squared_distances


def test_sign_of_zero_is_minus_one_and_codes_are_exact():
    u = jnp.array([[0.0, 1e-30, -3.0, 0.3]])
    np.testing.assert_array_equal(binarize.sign(u), [[-1, 1, -1, 1]])
    np.testing.assert_array_equal(binarize.straight_through(u, 3.0), [[-1, 1, -1, 1]])


@pytest.mark.parametrize("width", [1.0, 3.0])
def test_straight_through_gradient_is_that_of_tanh(width):
    u = jnp.array([0.0, 0.5, -2.0])
    grad = jax.grad(lambda u: binarize.straight_through(u[None], width).sum())(u)
    np.testing.assert_allclose(grad, 1 - np.tanh(u / width) ** 2, rtol=1e-6)


def test_reconstruction_and_quantisation_by_hand():
    # (1 - 0)² + (2 - 4)² = 5
    assert losses.reconstruction(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 4.0]]))[0] == 5
    # ((3 - 1)² + (0.5 - 1)²)/2 = 2.125
    assert losses.quantisation(jnp.array([[-3.0, 0.5]]))[0] == pytest.approx(2.125)


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match="shapes must be equal"):
        losses.reconstruction(jnp.zeros((2, 3)), jnp.zeros((3,)))


def test_discriminator_by_hand():
    fake, real = jnp.array([1.0, 5.0]), jnp.array([3.0, 4.0])
    # 3 - 0.5·1, 4 - 0.5·min(5, 4.5)
    np.testing.assert_array_equal(losses.discriminator(real, fake, 0.5, 4.5), [2.5, 1.75])


def test_the_discriminator_raises_no_error_beyond_the_margin():
    fake = jnp.array([1.0, 5.0])
    push = jax.grad(lambda f: losses.discriminator(f, f, 0.5, 4.5).sum())(fake)
    np.testing.assert_array_equal(push, [1 - 0.5, 1])


@pytest.mark.parametrize(
    "kappa, real, fake, expected",
    [(0.1, 2.0, 1.0, 0.1 + 0.1 * (0.5 * 2 - 1)), (0.0, 1.0, 9.0, 0.0), (0.3, 9.0, 0.0, 0.3)],
)
def test_kappa_moves_to_equilibrium_and_is_clipped(kappa, real, fake, expected):
    got = losses.next_kappa(jnp.float32(kappa), real, fake, 0.5, 0.1, 0.3)
    assert float(got) == pytest.approx(expected)


def test_distances_against_numpy():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 7)), rng.standard_normal((5, 7))
    expected = ((x[:, None] - y[None]) ** 2).sum(-1)
    np.testing.assert_allclose(squared_distances(x, y), expected, rtol=1e-4)
    b, c = np.sign(x), np.sign(y)
    np.testing.assert_array_equal(losses.hamming(b, c), (b[:, None] != c[None]).sum(-1))


def test_batch_positives_are_the_columns_at_their_ranks():
    distance = jnp.array([[0.0, 5.0, 1.0, 3.0], [2.0, 0.0, 9.0, 1.0]])
    own = jnp.array([0, 1])
    # reach 3: rank ⌊4^draw⌋; draws 0, 0.5, 0.999 -> 1, 2, 3
    draws = jnp.array([[0.0, 0.5, 0.999]] * 2)
    columns, ranks = losses.batch_positives(distance, own, draws, 0.75)
    np.testing.assert_array_equal(ranks, [[1, 2, 3]] * 2)
    np.testing.assert_array_equal(columns, [[2, 3, 1], [3, 0, 2]])
    # all columns are near enough, and yet none is its own positive
    columns, ranks = losses.batch_positives(distance, own, jnp.full((2, 1), 0.999), 1.0)
    np.testing.assert_array_equal(ranks, [[3]] * 2)
    np.testing.assert_array_equal(columns, [[1], [2]])
    # a query that no column is: columns at distance 0 are picked too; reach 3 of 4
    columns, _ = losses.batch_positives(distance, None, draws, 0.75)
    np.testing.assert_array_equal(columns, [[0, 2, 3], [1, 3, 0]])


def test_ordinal_against_the_definition():
    rng = np.random.default_rng(0)
    d, h = rng.random((3, 9)), rng.integers(0, 8, (3, 9)).astype(float)
    positives = np.array([[0, 1], [2, 5], [8, 4]])
    ranks = np.array([[1.0, 4.0], [2.0, 9.0], [3.0, 3.0]])
    weights = np.array([3.0, 0.5])
    expected = np.zeros(3)
    for i in range(3):
        for j, rho, w in zip(positives[i], ranks[i], weights, strict=True):
            f = sum(
                1 / (1 + np.exp(-(h[i, j] - h[i, k]) / 0.7)) for k in range(9) if d[i, k] > d[i, j]
            )
            expected[i] += w * np.log(1 + 10 * f / rho) / 3.5
    got = losses.ordinal(d, h, positives, ranks, 10.0, 0.7, weights)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_column_that_stands_for_two_points_counts_as_two_columns():
    rng = np.random.default_rng(0)
    d, h = (rng.random((3, 5), np.float32) for _ in range(2))
    positives, ranks, weights = np.zeros((3, 1), int), np.ones((3, 1), np.float32), np.ones(1)
    counts = np.array([[1, 2, 1, 1, 0]] * 3, np.float32)
    got = losses.ordinal(d, h, positives, ranks, 10.0, 0.1, weights, counts)
    columns = [0, 1, 1, 2, 3]
    want = losses.ordinal(d[:, columns], h[:, columns], positives, ranks, 10.0, 0.1, weights)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_neighbours_that_are_drawn_stand_for_all_without_a_bias():
    k, n = 64, 200_000
    ranks = np.exp(np.random.default_rng(0).random((n, 3)) * np.log(k + 1)).astype(int)
    counts = np.asarray(losses.neighbour_counts(jnp.asarray(ranks, jnp.float32), k))
    for least in (1, 5, 40):  # the two others of an anchor, as far as they are beyond a rank
        beyond = np.where(ranks[:, :2] > least, counts[:, :2], 0).sum(1).mean()
        np.testing.assert_allclose(beyond, k - least, rtol=0.03)


def test_ordinal_is_the_same_however_many_anchors_are_compared_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    d, h = (rng.random((70, 40), np.float32) for _ in range(2))
    positives, ranks = rng.integers(0, 40, (70, 3)), np.ones((70, 3), np.float32)
    arguments = d, h, positives, ranks, 10.0, 0.1, np.ones(3, np.float32)
    want = losses.ordinal(*arguments)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for values in (40 * 3 * 50, 1 << 26):  # 50 of the 70 anchors, then all
        monkeypatch.setattr(losses, "VALUES_AT_ONCE", values)
        np.testing.assert_allclose(losses.ordinal(*arguments), want, rtol=1e-6)


def test_ordinal_prefers_the_true_order():
    d = jnp.arange(6.0)[None]
    positives, ranks = jnp.array([[1, 3]]), jnp.array([[1.0, 3.0]])
    right = losses.ordinal(d, 4 * d, positives, ranks, 1.0, 0.7, jnp.ones(2))
    wrong = losses.ordinal(d, -4 * d, positives, ranks, 1.0, 0.7, jnp.ones(2))
    assert right[0] < 0.02 < 1 < wrong[0]
