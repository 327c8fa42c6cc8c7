"""ITQ: Procrustes by hand, a loss that never rises, and faiss on the same MNIST components."""

import gzip
from pathlib import Path

import faiss
import jax
import numpy as np
import pytest

import sigah_jax
from sigah_jax.baselines import itq, pca
from sigah_jax.errors import BadInput

BITS = 32


@pytest.fixture(scope="module")
def mnist() -> np.ndarray:
    """20,000 MNIST images, [20000, 784] f32 in 0..1."""
    path = Path(sigah_jax.__file__).parent / "data/mnist/train-images-idx3-ubyte.gz"
    with gzip.open(path) as file:
        pixels = np.frombuffer(file.read(16 + 20_000 * 784), np.uint8, offset=16)
    return pixels.reshape(-1, 784).astype(np.float32) / 255


@pytest.fixture(scope="module")
def components(mnist) -> np.ndarray:
    """The principal components of the images, [20000, BITS] f32."""
    mean, directions, _ = pca.principal_directions(mnist, BITS)
    return (mnist - mean) @ directions


def quantisation_loss(rotated: np.ndarray) -> float:
    return np.mean(np.sum((np.where(rotated > 0, 1, -1) - rotated) ** 2, axis=1))


def test_four_points_on_the_axes_turn_to_the_diagonals():
    # (±√2, 0) and (0, ±√2) turned by 45° are (±1, ±1), the codes themselves: loss 0. Any turn
    # by an angle t away from that leaves 4 - 4 cos t: entries √2 cos(45° ± t), squared
    # distance 2 + 2 - 2·√2·(cos(45° - t) + cos(45° + t)) = 4 - 4 cos t, at most 1.17 at 45°.
    root = np.sqrt(2).astype(np.float32)
    v = np.array([[root, 0], [-root, 0], [0, root], [0, -root]], np.float32)
    for seed in range(5):
        rotation, losses = itq.rotate(jax.random.key(seed), v, 20)
        np.testing.assert_allclose(np.abs(v @ rotation), 1, atol=1e-5)
        assert losses[-1] < 1e-9


def test_without_iterations_the_rotation_is_the_random_one(components):
    rotation, losses = itq.rotate(jax.random.key(4), components, 0)
    np.testing.assert_array_equal(rotation, jax.random.orthogonal(jax.random.key(4), BITS))
    assert losses.shape == (1,)
    np.testing.assert_allclose(losses[0], quantisation_loss(components @ rotation), rtol=1e-5)


def test_one_iteration_is_the_procrustes_solution(components):
    # argmin_R ‖B - V R‖² by scipy's solver, B the code under the random rotation.
    from scipy.linalg import orthogonal_procrustes

    key = jax.random.key(5)
    first, _ = itq.rotate(key, components, 0)
    b = np.where(components @ first > 0, 1.0, -1.0)
    expected, _ = orthogonal_procrustes(components.astype(np.float64), b)
    rotation, _ = itq.rotate(key, components, 1)
    np.testing.assert_allclose(rotation, expected, atol=1e-4)


def test_loss_never_increases_and_the_rotation_stays_orthogonal(components):
    rotation, losses = itq.rotate(jax.random.key(0), components, 50)
    losses = np.asarray(losses)
    assert losses.shape == (51,)
    # Float32 sums of a loss near 10 are good to about 1e-5; the first steps fall by 1 and 0.5.
    assert np.diff(losses).max() < 1e-5
    assert losses[-1] < 0.85 * losses[0]
    np.testing.assert_allclose(losses[-1], quantisation_loss(components @ rotation), rtol=1e-5)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(BITS), atol=1e-5)


def test_loss_is_that_of_faiss(components):
    theirs = faiss.ITQMatrix(BITS)
    theirs.max_iter = 50
    theirs.train(components)
    expected = quantisation_loss(theirs.apply(components))
    ours, random = [], []
    for seed in range(3):
        _, losses = itq.rotate(jax.random.key(seed), components, 50)
        ours.append(float(losses[-1]))
        random.append(float(losses[0]))
    # Local minima from different random rotations differ by under 1 % (see below); random
    # rotations are worse by more than 15 %.
    np.testing.assert_allclose(ours, expected, rtol=0.015)
    assert min(random) > 1.15 * expected


def test_scale_of_the_components_does_not_move_the_rotation(components):
    # ‖B - s V R‖² = const - 2 s tr(Bᵀ V R): the same argmin for each s > 0. A power of two is
    # exact in floating point, so that the result is the same to the SVD's rounding.
    rotation, _ = itq.rotate(jax.random.key(0), components, 5)
    scaled, _ = itq.rotate(jax.random.key(0), 4 * components, 5)
    np.testing.assert_allclose(rotation, scaled, atol=1e-4)


def test_fit_is_pca_then_rotation(mnist, components):
    key = jax.random.key(1)
    params = itq.fit(key, mnist, BITS, 10)
    rotation, losses = itq.rotate(key, components, 10)
    u = np.asarray(itq.project(params, mnist))
    assert u.shape == (20_000, BITS)
    np.testing.assert_allclose(quantisation_loss(u), losses[-1], rtol=1e-3)
    # A bit of a projection near zero may differ by rounding: one in ten thousand at most.
    assert np.mean((u > 0) != (components @ rotation > 0)) < 1e-4
    np.testing.assert_allclose(params.weights.T @ params.weights, np.eye(BITS), atol=1e-5)


def test_more_bits_than_columns_are_refused():
    xt = np.ones((30, 8), np.float32)
    with pytest.raises(BadInput, match="ITQ .* 8 columns; got 16 bits, use at most 8"):
        itq.fit(jax.random.key(0), xt, 16, 50)
