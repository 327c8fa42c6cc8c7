"""ITQ: principal components turned by the rotation, and where training starts."""

import jax
import numpy as np
import pytest
import sets

from sigah_jax import config
from sigah_jax.baselines import itq, linear
from sigah_jax.errors import BitsRefused
from sigah_jax.model import networks, pca
from sigah_jax.model.keys import Purpose, key_for
from sigah_jax.model.rotation import rotate
from sigah_jax.model.standardise import standardise
from sigah_jax.training import prepare

BITS = 32


@pytest.fixture(scope="module")
def mnist() -> np.ndarray:
    return sets.mnist_images()


def test_fit_is_pca_then_rotation(mnist):
    mean, directions, _ = pca.principal_directions(mnist, BITS)
    components = (mnist - mean) @ directions
    key = jax.random.key(1)
    params = itq.fit(key, mnist, BITS, 10)
    rotation, losses = rotate(key, components, BITS, 10)
    u = np.asarray(linear.project(params, mnist))
    assert u.shape == (20_000, BITS)
    np.testing.assert_allclose(sets.quantisation_loss(u), losses[-1], rtol=1e-3)
    # Rounding flips a bit of a projection near zero, and each flip turns the rotation a
    # little; under another key half of the bits differ.
    assert np.mean((u > 0) != np.asarray(components @ rotation > 0)) < 0.01
    np.testing.assert_allclose(params.weights.T @ params.weights, np.eye(BITS), atol=1e-5)


def test_training_starts_at_the_codes_of_itq(mnist):
    c = config.get_config(f"bits={BITS}")
    c.model.itq_iterations = 10
    standardiser, variances, rotation = prepare.first_arrays(c, mnist, 256)
    nets = networks.make_generator(c.model, 256)
    gen = networks.init_gen(jax.random.key(3), nets, variances, rotation)
    u = standardise(standardiser, mnist) @ gen["hash"]["linear"]["kernel"]
    codes = linear.project(itq.fit(key_for(c.seed, Purpose.ROTATION), mnist, BITS, 10), mnist) > 0
    assert np.mean((u > 0) != codes) < 0.01  # as above
    np.testing.assert_allclose(np.mean(np.abs(u)), 1, atol=0.1)


def test_more_bits_than_columns_are_refused():
    xt = np.ones((30, 8), np.float32)
    with pytest.raises(BitsRefused, match=r"ITQ: .* 8 columns; got 16 bits, use at most 8"):
        itq.fit(jax.random.key(0), xt, 16, 50)
