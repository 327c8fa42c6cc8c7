"""Spectral hashing: eigenvectors of a path, a box by hand, a product form in float64."""

import jax
import numpy as np
import pytest
from sets import mean_average_precision

from sigah_jax.baselines import linear, lsh, sh
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput

KEY = jax.random.key(0)


def turned_box(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A full grid of the box 1 x 0.6, 41 x 31 points, turned and moved in 5 dimensions.

    Returns:
        rows [1271, 5] f32 and the places s and t [1271] of each along the sides, 0 to 1.
    """
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(5, 2)))
    s, t = (v.ravel() for v in np.meshgrid(np.linspace(0, 1, 41), np.linspace(0, 1, 31)))
    return (np.stack([s, 0.6 * t], axis=1) @ basis.T + rng.normal(size=5)).astype(np.float32), s, t


def same_up_to_complement(a: np.ndarray, b: np.ndarray, share: float) -> bool:
    """Whether each column of bits a is that of b or its complement, in at least this share."""
    equal = np.mean(a == b, axis=0)
    return bool((np.maximum(equal, 1 - equal) >= share).all())


def test_points_on_a_line_give_the_eigenvectors_of_their_path():
    # The random walk D⁻¹ A on a path of 101 points has eigenvalues cos(k π / 100): eigenvectors
    # by numpy of the symmetric D^-½ A D^-½, times D^-½, at their first entry's scale.
    n, bits = 101, 6
    adjacency = np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1)
    root = 1 / np.sqrt(adjacency.sum(axis=0))
    values, vectors = np.linalg.eigh(root[:, None] * adjacency * root)
    np.testing.assert_allclose(values[::-1][1:7], np.cos(np.pi * np.arange(1, 7) / 100))
    walk = (root[:, None] * vectors)[:, ::-1][:, 1 : bits + 1]
    x = (2.5 * np.arange(n)[:, None] - 40).astype(np.float32)
    u = np.asarray(sh.project(sh.fit(KEY, x, bits), x))
    np.testing.assert_allclose(u, walk / walk[0], atol=1e-4)


@pytest.mark.parametrize(
    "lengths, sides, multiples",
    [
        # 1, 2, 3, 4 and 1/0.6 = 1.67, 3.33 times π, merged.
        ([1.0, 0.6], [0, 1, 0, 0, 1, 0], [1, 1 / 0.6, 2, 3, 2 / 0.6, 4]),
        # Equal frequencies, twice on each side: the first side first.
        ([1.0, 1.0], [0, 1, 0, 1], [1, 1, 2, 2]),
        # 1/2, 1, 3/2 of the side of length 2 and 1 of the other: a tie at 1.
        ([2.0, 1.0], [0, 0, 1, 0], [0.5, 1, 1, 1.5]),
        # The side of least variance may be the longest; a side without length has no mode.
        ([1.0, 0.0, 4.0], [2, 2, 2, 0, 2], [0.25, 0.5, 0.75, 1, 1]),
    ],
)
def test_slowest_modes_by_hand(lengths, sides, multiples):
    side, frequency = sh.slowest_modes(np.array(lengths), len(sides))
    np.testing.assert_array_equal(side, sides)
    np.testing.assert_allclose(frequency, np.pi * np.array(multiples))


def test_slowest_modes_are_the_first_of_all_sorted():
    lengths = np.random.default_rng(0).uniform(0.1, 3, 7)
    _, frequency = sh.slowest_modes(lengths, 40)
    every = np.sort(np.concatenate([np.pi * np.arange(1, 1000) / length for length in lengths]))
    np.testing.assert_allclose(frequency, every[:40])


@pytest.mark.parametrize("seed", range(3))
def test_uniform_box_in_closed_form(seed):
    x, s, t = turned_box(seed)
    u = np.asarray(sh.project(sh.fit(KEY, x, 6), x))
    expected = np.cos(np.pi * np.stack([s, t, 2 * s, 3 * s, 2 * t, 4 * s], axis=1))
    # A direction may point either way: cos(k π (1 - s)) = ± cos(k π s).
    expected *= np.sign(np.sum(expected * u, axis=0))
    np.testing.assert_allclose(u, expected, atol=1e-3)
    # Balanced and uncorrelated, as the eigenfunctions of a uniform density are: on a grid to
    # one part in its points a side.
    assert np.abs(np.mean(u, axis=0)).max() < 0.05
    assert np.abs(u.T @ u / len(u) - np.eye(6) / 2).max() < 0.05


@pytest.mark.parametrize("bits", [7, 24])
def test_agrees_with_a_product_of_sines_in_float64(bits):
    # Weiss et al. define modes as vectors of whole numbers, one a direction, and the value as the
    # product over directions of sin(ω v + π / 2), a factor of 1 where the mode is 0.
    rng = np.random.default_rng(3)
    x = (rng.gamma(2, size=(800, 9)) * 0.8 ** np.arange(9)).astype(np.float32)
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    _, _, vt = np.linalg.svd(centred, full_matrices=False)
    v = centred @ vt[:bits].T
    v -= v.min(axis=0)
    omega = np.pi / v.max(axis=0)
    modes = np.array(
        [m for i in range(v.shape[1]) for m in np.eye(v.shape[1])[i] * np.arange(1, 99)[:, None]]
    )
    modes = modes[np.argsort(((modes * omega) ** 2).sum(axis=1))][:bits]
    expected = np.stack([np.prod(np.sin(v * omega * m + np.pi / 2), axis=1) for m in modes], axis=1)
    u = np.asarray(sh.project(sh.fit(KEY, x, bits), x))
    expected *= np.sign(np.sum(expected * u, axis=0))
    np.testing.assert_allclose(u, expected, atol=1e-3)


def test_rows_outside_of_the_box_go_on_with_the_wave():
    # On a line from 0 to 1, cos(π · 1.5) = 0 and then positive again to cos(2 π) = 1.
    params = sh.fit(KEY, np.linspace(0, 1, 11, dtype=np.float32)[:, None], 1)
    u = sh.project(params, np.array([[1.25], [1.75], [2.0], [-1.0]], np.float32))
    np.testing.assert_allclose(u[:, 0], [-np.sqrt(0.5), np.sqrt(0.5), 1, -1], atol=1e-5)


def test_more_bits_than_columns_differ_from_one_another():
    x = np.random.default_rng(4).uniform(size=(500, 3)).astype(np.float32)
    bits = np.asarray(sh.project(sh.fit(KEY, x, 33), x)) > 0
    assert bits.shape == (500, 33)
    assert len(np.unique(bits, axis=1).T) == 33


def test_rotation_translation_and_scale_change_no_bit():
    rng = np.random.default_rng(5)
    x = (rng.normal(size=(600, 6)) * 0.7 ** np.arange(6)).astype(np.float32)
    turn, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    moved = (4 * x @ turn + 7).astype(np.float32)
    one, other = (np.asarray(sh.project(sh.fit(KEY, v, 16), v)) > 0 for v in (x, moved))
    assert same_up_to_complement(one, other, 0.995)


def test_nothing_is_drawn():
    x = np.random.default_rng(6).normal(size=(100, 4)).astype(np.float32)
    for one, other in zip(*(sh.fit(jax.random.key(k), x, 8) for k in (0, 1)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("block_rows", [1, 3, 64])
def test_rows_do_not_depend_on_their_block(block_rows):
    x = np.random.default_rng(7).normal(size=(70, 4)).astype(np.float32)
    params = sh.fit(KEY, x, 8)
    u = parallel.map_rows(sh.project, block_rows)(params, x)
    expected = np.cos((x - params.mean).astype(np.float64) @ params.weights - params.phase)
    np.testing.assert_allclose(u, expected, atol=1e-5)


def test_equal_rows_are_refused():
    with pytest.raises(BadInput, match="spectral hashing needs rows that differ"):
        sh.fit(KEY, np.full((20, 3), 7, np.float32), 4)


def test_beats_lsh_on_few_directions():
    # Four directions within 32: 12 bits cut the long ones twice or more.
    rng = np.random.default_rng(8)
    basis, _ = np.linalg.qr(rng.normal(size=(32, 4)))
    x = rng.uniform(-1, 1, (2200, 4)) * [1, 0.8, 0.6, 0.5] @ basis.T
    x = (x + 0.01 * rng.normal(size=x.shape)).astype(np.float32)
    xq, xb = x[:200], x[200:]
    ours = mean_average_precision(sh.project, sh.fit(KEY, xb, 12), xq, xb, 20)
    for seed in range(3):
        params = lsh.fit(jax.random.key(seed), xb, 12)
        random = mean_average_precision(linear.project, params, xq, xb, 20)
        assert ours > 1.2 * random
