"""The modules and what they start from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sigah_jax import config
from sigah_jax.model import networks

P, BITS = 12, 20
KEY = jax.random.key(0)


def make(preset="best", **model):
    c = config.get_config(f"preset={preset},bits={BITS}")
    c.model.update({"hash_widths": (16,), "dis_widths": (8,), "atoms": 48} | model)
    return networks.make_networks(c.model, P)


def start(nets):
    """First parameters, the variances and the rotation that they start from, and features."""
    variances = jnp.arange(P, 0.0, -1) / 78
    rotation = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(BITS, P)))[0].T)
    z = np.random.default_rng(1).normal(size=(4000, P)) * np.sqrt(variances)
    gen = networks.init_gen(KEY, nets.gen, variances, rotation.astype(jnp.float32))
    return gen, variances, np.asarray(rotation), z.astype(np.float32)


@pytest.mark.parametrize("decoder, atoms", [("ista", 48), ("mlp", 48), ("linear", BITS)])
def test_shapes(decoder, atoms):
    nets = make(decoder=decoder)
    gen, *_, z = start(nets)
    u, u_query = networks.encode(nets.gen, gen, z, stride=4)
    assert u.shape == (4000, BITS) and u_query.shape == (1000, BITS)
    z_hat, s = networks.decode(nets.gen, gen, jnp.sign(u))
    assert z_hat.shape == (4000, P) and s.shape == (4000, atoms)
    dis = networks.init_dis(KEY, nets.dis)
    assert networks.error(nets.dis, dis, z).shape == (4000,)


def test_projections_start_as_the_rotation_of_the_features_scaled_to_one():
    nets = make()
    gen, _, rotation, z = start(nets)
    gen["hash"]["out"]["kernel"] *= 0  # the ReLU network starts at random, and small
    u, u_query = networks.encode(nets.gen, gen, z)
    wanted = z @ rotation
    np.testing.assert_allclose(u, wanted * (u[0, 0] / wanted[0, 0]), atol=1e-4)
    assert 0.8 < np.abs(u).mean() < 1.2
    np.testing.assert_array_equal(u, u_query)  # the head of queries starts at zero


def test_a_linear_decoder_starts_near_the_best_linear_reconstruction():
    nets = make(decoder="linear")
    gen, *_, z = start(nets)
    b = np.sign(networks.encode(nets.gen, gen, z)[0])
    error = np.mean(np.sum((z - networks.decode(nets.gen, gen, b)[0]) ** 2, 1))
    best = np.linalg.lstsq(b, z, rcond=None)[0]
    # of this rotation the best of all matrices is a little better than c Wᵀ
    assert error < 1.2 * np.mean(np.sum((z - b @ best) ** 2, 1)) < np.mean(np.sum(z**2, 1)) / 2


def test_a_decoder_of_its_own_starts_at_zero_and_is_sparse():
    nets = make()
    gen, *_, z = start(nets)
    gen["decoder"] = networks.init_decoder(KEY, nets.gen)
    z_hat, s = networks.decode(nets.gen, gen, np.sign(z @ np.ones((P, BITS)) + 0.1))
    assert not np.asarray(z_hat).any() and 0.1 < np.mean(np.asarray(s) != 0) < 0.9


def test_the_paper_has_one_hash_function_and_no_linear_path():
    gen = start(make("paper", hash_widths=(16,), input_dims=P))[0]
    assert set(gen["hash"]) == {"hidden0", "out"}
    assert set(start(make())[0]["hash"]) == {"hidden0", "out", "linear", "query_out"}


def test_the_error_of_the_discriminator_is_that_of_its_auto_encoder():
    nets = make()
    dis, z = networks.init_dis(KEY, nets.dis), start(nets)[-1]
    wanted = ((np.asarray(nets.dis.apply({"params": dis}, z)) - z) ** 2).sum(1)
    np.testing.assert_allclose(networks.error(nets.dis, dis, z), wanted, rtol=1e-5)
