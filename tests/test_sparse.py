import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from sigah_jax.model import sparse


def objective(s, b, a, lam):
    """½‖b - A s‖² + Σ_m λ_m |s_m| of each example, which ISTA lowers."""
    return 0.5 * jnp.sum((b - s @ a.T) ** 2, -1) + jnp.sum(lam * jnp.abs(s), -1)


def gaussian(k, m, seed=0):
    a = np.random.default_rng(seed).standard_normal((k, m)).astype(np.float32)
    return a / np.linalg.norm(a, axis=0)


@pytest.mark.parametrize("t", [0.0, 0.3, 2.0])
def test_soft_threshold_is_the_argmin_it_names(t):
    for x in (-1.7, -0.2, 0.0, 0.9):
        found = optimize.minimize_scalar(
            lambda z, x=x: 0.5 * (z - x) ** 2 + t * abs(z), bounds=(-3, 3), method="bounded"
        )
        assert float(sparse.soft_threshold(jnp.float32(x), t)) == pytest.approx(found.x, abs=1e-4)


@pytest.mark.parametrize("k, m", [(1, 4), (16, 64), (64, 256), (128, 128)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_lipschitz_bound_is_above_and_close(k, m, scale):
    a = gaussian(k, m) * np.float32(scale)
    exact = np.linalg.norm(a.astype(np.float64), 2) ** 2
    assert exact * (1 - 1e-5) <= float(sparse.lipschitz_bound(a)) <= exact * 1.17


def test_lipschitz_bound_of_a_flat_spectrum():
    # all K eigenvalues are 1: the bound is K^(1/32), here 128^(1/32) = 1.1637
    assert float(sparse.lipschitz_bound(jnp.eye(128))) == pytest.approx(1.1637, rel=1e-3)


def test_objective_never_increases():
    a, b = gaussian(32, 128), np.sign(gaussian(5, 32, 1)).astype(np.float32)
    lam = jnp.linspace(0.0, 0.5, 128)
    values = [np.asarray(objective(sparse.ista(b, a, lam, t), b, a, lam)) for t in range(1, 30)]
    assert (np.diff(values, axis=0) <= 1e-5).all()
    assert (values[-1] < 0.9 * values[0]).all()


def test_orthonormal_columns_without_penalty_give_the_closed_form():
    q = np.linalg.qr(gaussian(16, 16))[0].astype(np.float32)
    b = gaussian(3, 16, 2)
    np.testing.assert_allclose(sparse.ista(b, q, 0.0, 60), b @ q, atol=1e-5)


def test_kkt_conditions_hold_at_convergence():
    a, b, lam = gaussian(16, 48), gaussian(4, 16, 3), 0.1
    z = np.asarray(sparse.ista(b, a, lam, 4000))
    gradient = (z @ a.T - b) @ a
    # off the support |gradient| <= λ, on it gradient = -λ sign(z)
    assert (np.abs(gradient) <= lam + 1e-4).all()
    on = z != 0
    assert 0 < on.sum() < z.size
    np.testing.assert_allclose(gradient[on], -lam * np.sign(z[on]), atol=1e-4)


def test_recovers_a_sparse_vector_from_its_measurements():
    a = gaussian(64, 256)
    z = np.zeros((1, 256), np.float32)
    z[0, [3, 77, 200]] = [1.0, -2.0, 1.5]
    found = np.asarray(jax.jit(lambda b: sparse.ista(b, a, 0.02, 4000))(z @ a.T))
    # λ shrinks each entry by about λ
    np.testing.assert_allclose(found, z, atol=0.05)
