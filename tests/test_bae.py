"""Deep binary auto-encoder: the first decoder, the straight-through gradient, quality."""

import jax
import jax.numpy as jnp
import numpy as np
from sets import low_dimensional, recall

from sigah_jax.baselines import bae, linear, lsh
from sigah_jax.devices import parallel
from sigah_jax.model import pca
from sigah_jax.model.standardise import standardise


def test_gradient_by_hand():
    # One feature, one bit, no hidden layer: u = 0.5 z + 0, z = 1, so b = +1 and
    # loss = (1 - 0.3·1 - 0.2)² = 0.25. With residual 0.5:
    # ∂/∂decoder = -2·0.5·b = -1, ∂/∂offset = -1, ∂/∂b = -2·0.5·0.3 = -0.3, and through tanh
    # ∂/∂(linear kernel) = -0.3 (1 - tanh² 0.5) z = -0.235934, the same for the bias.
    # Every row of the data is this row, so the batch does not matter.
    model = {
        "hash": {
            "linear": {"kernel": jnp.array([[0.5]])},
            "out": {"kernel": jnp.array([[0.0]]), "bias": jnp.array([0.0])},
        },
        "decoder": jnp.array([[0.3]]),
        "offset": jnp.array([0.2]),
    }
    loss, gradient = jax.value_and_grad(bae._loss)(model, jnp.ones((5, 1)), jax.random.key(0))
    np.testing.assert_allclose(loss, 0.25, rtol=1e-6)
    np.testing.assert_allclose(gradient["decoder"], [[-1]], rtol=1e-5)
    np.testing.assert_allclose(gradient["offset"], [-1], rtol=1e-5)
    np.testing.assert_allclose(gradient["hash"]["linear"]["kernel"], [[-0.235934]], rtol=1e-5)
    np.testing.assert_allclose(gradient["hash"]["out"]["bias"], [-0.235934], rtol=1e-5)


def test_first_loss_on_gaussian_rows_is_the_closed_form():
    # Equal variance 1/4 along 4 directions, 4 bits by a rotation, the ReLU network's share
    # small: b gives each component back up to its sign, E (v - c sign v)² = s² (1 - 2/π) for
    # c = E|v|, so the loss of E‖z‖² = 1 is 1 - 2/π = 0.363. Means of 256 draws of a sum of four.
    z = jax.random.normal(jax.random.key(2), (20_000, 4)) / 2
    _, losses = bae.train(jax.random.key(0), z, jnp.full(4, 0.25), 4, 1, ())
    assert abs(losses[0] - (1 - 2 / np.pi)) < 0.06


def test_training_halves_the_error():
    # 24 bits on a sheet of 6 dimensions: the least that the first, linear encoder leaves out
    # is what its random rotation wastes.
    x = low_dimensional(2000, 32)
    mean, directions, variances = pca.principal_directions(x, 32)
    z = jnp.asarray((x - mean) @ directions / np.sqrt(variances.sum()))
    variances = jnp.asarray(variances / variances.sum())
    model, losses = bae.train(jax.random.key(0), z, variances, 24, 300, (64,))
    assert losses.shape == (300,)
    b = np.where(np.asarray(bae._hash(model["hash"], z)) > 0, 1, -1)
    error = np.mean(np.sum((z - b @ model["decoder"] - model["offset"]) ** 2, axis=1))
    np.testing.assert_allclose(error, losses[-50:].mean(), rtol=0.1)
    assert error < 0.6 * losses[0]


def test_beats_random_hyperplanes():
    x = low_dimensional(2000, 32)
    params = bae.fit(jax.random.key(0), x, 24, 300, (64,))
    ours = recall(np.asarray(bae.project(params, x)) > 0, x, 200)
    random = [
        recall(np.asarray(linear.project(lsh.fit(jax.random.key(k), x, 24), x)) > 0, x, 200)
        for k in range(3)
    ]
    assert ours > max(random) + 0.05


def test_rows_do_not_depend_on_their_block():
    # 101 rows in blocks of 16 a device: full blocks and a last one that is filled with zeros.
    x = low_dimensional(101, 10)
    params = bae.fit(jax.random.key(0), x, 8, 5, (16, 8))
    whole = np.asarray(bae.project(params, x))
    assert whole.shape == (101, 8)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(parallel.map_rows(bae.project, 16)(params, x), whole, atol=1e-5)
    np.testing.assert_allclose(bae.project(params, x[7:8]), whole[7:8], atol=1e-5)


def test_project_is_the_linear_path_plus_the_relu_network():
    x = low_dimensional(60, 6)
    params = bae.fit(jax.random.key(0), x, 4, 5, (8,))
    z = np.asarray(standardise(params.standardiser, x), np.float64)
    h, out = params.hash["hidden0"], params.hash["out"]
    hidden = np.maximum(np.sqrt(6) * z @ h["kernel"] + h["bias"], 0)
    u = z @ params.hash["linear"]["kernel"] + hidden @ out["kernel"] + out["bias"]
    np.testing.assert_allclose(bae.project(params, x), u, atol=1e-5)


def test_keys_give_different_codes_and_repeat_and_translation_does_not_matter():
    x = np.round(low_dimensional(300, 6) * 16) / 16
    one, again, moved = (bae.fit(jax.random.key(0), v, 4, 20, ()) for v in (x, x, x + 2))
    other = bae.fit(jax.random.key(1), x, 4, 20, ())
    np.testing.assert_array_equal(bae.project(one, x), bae.project(again, x))
    # the mean takes the shift up, rounding apart
    np.testing.assert_allclose(bae.project(one, x), bae.project(moved, x + 2), atol=0.01)
    assert np.mean((bae.project(one, x) > 0) != (bae.project(other, x) > 0)) > 0.1


def test_more_bits_than_columns():
    x = low_dimensional(300, 5)
    u = np.asarray(bae.project(bae.fit(jax.random.key(0), x, 12, 20, (16,)), x))
    assert u.shape == (300, 12)
    assert len({bit.tobytes() for bit in u.T > 0}) == 12


def test_equal_rows_give_finite_projections():
    x = np.full((30, 5), 2.5, np.float32)
    assert np.isfinite(bae.project(bae.fit(jax.random.key(0), x, 8, 5, ()), x)).all()
