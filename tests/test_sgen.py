"""Stochastic generative hashing: an exact gradient by enumeration, invariances, quality."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sets import low_dimensional, recall

from sigah_jax.baselines import linear, lsh, sgen


@pytest.fixture
def tiny_model() -> sgen.Model:
    """Three bits, two columns, nothing symmetric."""
    return sgen.Model(
        encoder=jnp.array([[0.5, -1.0, 0.3], [0.2, 0.7, -0.4]]),
        decoder=jnp.array([[1.0, 0.4], [-0.6, 0.9], [0.3, -1.2]]),
        offset=jnp.array([0.1, -0.2]),
        prior=jnp.array([0.2, -0.5, 1.0]),
        log_rho=jnp.array(-0.3),
    )


def expected_free_energy(model: sgen.Model, x: np.ndarray) -> float:
    """Σ_h q(h | x) (log q(h | x) - log p(h) - log p(x | h)) in float64, less d/2 log 2π."""
    w, u, c, t, log_rho = (np.asarray(a, np.float64) for a in model)
    q, p = 1 / (1 + np.exp(-x @ w)), 1 / (1 + np.exp(-t))
    total = 0.0
    for code in itertools.product([0, 1], repeat=len(t)):
        h = np.array(code)
        log_q = np.sum(np.where(h == 1, np.log(q), np.log(1 - q)))
        log_p = np.sum(np.where(h == 1, np.log(p), np.log(1 - p)))
        error = np.sum((x - h @ u - c) ** 2) / (2 * np.exp(2 * log_rho)) + len(x) * log_rho
        total += np.exp(log_q) * (log_q - log_p + error)
    return total


def mean_over_codes(model: sgen.Model, x: np.ndarray) -> jax.Array:
    """Σ_h q(h | x) free_energy at h, with constant q: its gradient is the mean estimate."""
    bits = len(model.prior)
    codes = np.array(list(itertools.product([0.0, 1.0], repeat=bits)), np.float32)
    q = jax.lax.stop_gradient(jax.nn.sigmoid(x @ model.encoder))
    shares = jnp.prod(jnp.where(codes == 1, q, 1 - q), axis=1)
    # noise 0 gives h_k = 1 and noise 1 gives h_k = 0, whatever q is
    batch = jnp.tile(jnp.asarray(x, jnp.float32), (len(codes), 1))
    return jnp.sum(shares * sgen.free_energy(model, batch, 1 - codes))


def test_one_bit_one_column_by_hand():
    # z = 2·ln 3 / 2 = ln 3, so q = 3/4. Noise 0.7 < q gives h = 1: r = 2 - 1.5 - 0.25 = 0.25;
    # noise 0.8 gives h = 0: r = 1.75. With ρ = 1 and p(h = 1) = 1/2:
    # KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.130812.
    model = sgen.Model(
        encoder=jnp.array([[np.log(3) / 2]]),
        decoder=jnp.array([[1.5]]),
        offset=jnp.array([0.25]),
        prior=jnp.zeros(1),
        log_rho=jnp.zeros(()),
    )
    value = sgen.free_energy(model, jnp.array([[2.0], [2.0]]), jnp.array([[0.7], [0.8]]))
    np.testing.assert_allclose(value, [0.25**2 / 2 + 0.130812, 1.75**2 / 2 + 0.130812], rtol=1e-5)


def test_mean_gradient_is_that_of_the_expected_description_length(tiny_model):
    # Finite differences of the sum over all eight codes, in float64. The plain derivative at the
    # code in place of the difference is off by 0.02 to 0.11 in the encoder here.
    x = np.array([0.8, -1.1])
    estimate = jax.grad(mean_over_codes)(tiny_model, x)
    np.testing.assert_allclose(
        mean_over_codes(tiny_model, x), expected_free_energy(tiny_model, x), rtol=1e-5
    )
    for name, array in tiny_model._asdict().items():
        array = np.asarray(array, np.float64)
        slopes = np.empty_like(array)
        for i in np.ndindex(array.shape):
            step = np.zeros_like(array)
            step[i] = 1e-5
            up, down = (
                expected_free_energy(tiny_model._replace(**{name: array + s}), x)
                for s in (step, -step)
            )
            slopes[i] = (up - down) / 2e-5
        np.testing.assert_allclose(getattr(estimate, name), slopes, atol=2e-5, err_msg=name)


def test_training_explains_the_data():
    # Rows with mean square 1 a column: r = x explains nothing. 24 bits explain six directions
    # and some of the curvature.
    x = low_dimensional(2000, 32)
    x = (x - x.mean(axis=0)) / x.std()
    model, losses = sgen.train(jax.random.key(0), x, 24, 300)
    h = (x @ np.asarray(model.encoder) > 0).astype(np.float32)
    error = np.mean((x - h @ np.asarray(model.decoder) - np.asarray(model.offset)) ** 2)
    assert losses.shape == (300,)
    assert error < 0.35
    # ρ² estimates the error of drawn codes, a little more than that of the likeliest ones
    assert error < np.exp(2 * model.log_rho) < 2 * error
    # the first loss has ρ = 1; the saving is about ½ ln(1 / ρ²) nats a column, less the KL
    assert losses[-50:].mean() < losses[0] - 0.3


def test_one_bit_tells_two_clusters_apart():
    # Two clusters at (5, 1, -3) ± (4, 0, 0) with deviation 1; the first bit worth having.
    rng = np.random.default_rng(1)
    side = np.repeat([1, -1], 300)
    xt = rng.normal(size=(600, 3)) + [5, 1, -3] + 4 * side[:, None] * [1, 0, 0]
    for seed in range(3):
        params = sgen.fit(jax.random.key(seed), xt.astype(np.float32), 1, 200)
        bit = np.asarray(linear.project(params, xt.astype(np.float32)))[:, 0] > 0
        assert max(np.mean(bit == (side > 0)), np.mean(bit == (side < 0))) > 0.99


def test_beats_random_hyperplanes():
    x = low_dimensional(2000, 32)
    keys = [jax.random.key(k) for k in range(3)]
    ours = recall(np.asarray(linear.project(sgen.fit(keys[0], x, 24, 300), x)) > 0, x, 200)
    random = [recall(np.asarray(linear.project(lsh.fit(k, x, 24), x)) > 0, x, 200) for k in keys]
    assert ours > max(random) + 0.05


def test_key_and_scale():
    # Four times the rows are the same rows after scaling, to the bit: a power of two is exact.
    x = low_dimensional(500, 12)
    one, again, scaled = (sgen.fit(jax.random.key(0), v, 8, 20) for v in (x, x, 4 * x))
    other = sgen.fit(jax.random.key(1), x, 8, 20)
    np.testing.assert_array_equal(one.weights, again.weights)
    np.testing.assert_array_equal(one.weights, 4 * scaled.weights)
    assert np.abs(one.weights - other.weights).max() > 0.01


def test_more_bits_than_columns():
    x = low_dimensional(400, 5)
    params = sgen.fit(jax.random.key(0), x, 12, 50)
    assert params.weights.shape == (5, 12)
    assert len({column.tobytes() for column in np.asarray(linear.project(params, x)).T > 0}) == 12


def test_equal_rows_give_finite_parameters():
    params = sgen.fit(jax.random.key(0), np.full((30, 4), 2.5, np.float32), 6, 10)
    assert np.isfinite(params.weights).all()
