"""Anchor graph hashing against the dense graph, a circle in closed form, and a brute-force cut."""

import jax
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sets import mean_average_precision

from sigah_jax.baselines import agh, linear, lsh
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput
from sigah_jax.model import pca

KEY = jax.random.key(0)


def line_graph(nearest: int, width: float) -> agh.AnchorGraph:
    """Anchors at 0, 3 and 10 of a line, without eigenvectors."""
    anchors = np.array([[0], [3], [10]], np.float32)
    none = np.zeros((3, 0), np.float32)
    widths = np.full(nearest, width, np.float32)
    return agh.AnchorGraph(np.zeros(1, np.float32), anchors, widths, none, none[0], none[0])


def circle(points: int) -> np.ndarray:
    """Points of the unit circle, the first one at half a step, [points, 2] f32."""
    angle = 2 * np.pi * (np.arange(points) + 0.5) / points
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def circle_graph() -> agh.AnchorGraph:
    """24 anchors evenly on the unit circle, four of them near a row."""
    none = np.zeros((24, 0), np.float32)
    angle = 2 * np.pi * np.arange(24) / 24
    anchors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    widths = np.full(4, 0.1, np.float32)
    return agh.AnchorGraph(np.zeros(2, np.float32), anchors, widths, none, none[0], none[0])


def clouds(n: int, seed: int = 0) -> np.ndarray:
    """Rows of ten overlapping clouds in 12 dimensions, [n, 12] f32."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 2, (10, 12))
    return (centres[rng.integers(0, 10, n)] + rng.normal(size=(n, 12))).astype(np.float32)


def dense(graph: agh.AnchorGraph, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Z and A = Z Λ⁻¹ Zᵀ by one row after another in float64."""
    z = np.zeros((len(x), len(graph.anchors)))
    for i, row in enumerate(x.astype(np.float64) - graph.centre):
        d = ((row - graph.anchors) ** 2).sum(axis=1)
        near = np.argsort(d, kind="stable")[: len(graph.widths)]
        kernel = np.exp(-d[near] / graph.widths)
        z[i, near] = kernel / kernel.sum()
    mass = z.sum(axis=0)
    return z, (z / np.where(mass > 0, mass, 1)) @ z.T


def test_anchor_weights_by_hand():
    # From 1, the anchors are at squared distances 1, 4 and 81; from 6 at 36, 9 and 16. With
    # t = 3 and two of them: e^(-1/3) against e^(-4/3), ratio e; e^-3 against e^(-16/3).
    z = agh.anchor_weights(line_graph(2, 3.0), np.array([[1], [6]], np.float32))
    e = np.e
    share = 1 / (1 + np.exp(-7 / 3))
    np.testing.assert_allclose(z, [[e / (1 + e), 1 / (1 + e), 0], [0, share, 1 - share]], rtol=1e-5)


def test_training_rows_that_are_the_anchors_leave_a_kernel_without_width():
    # 20 rows, 20 anchors, every row on its own: t = 0, and the nearest anchor takes all.
    x = 100 * clouds(20)
    graph = agh.AnchorGraph(
        x.mean(axis=0), x - x.mean(axis=0), np.ones(1, np.float32), *[np.zeros((20, 0))] * 3
    )
    assert 0 < agh.kernel_width(graph, x) < 1
    two = graph._replace(widths=np.full(2, np.finfo(np.float32).tiny))
    z = np.asarray(agh.anchor_weights(two, x + 1))
    np.testing.assert_array_equal(z, np.eye(20))


def test_ties_go_to_the_lower_anchor_and_far_rows_keep_their_ratios():
    # 1.5 is as far from 0 as from 3. At 1,003 the kernels exp(-10⁶ / 3) are zero in float32, and
    # the nearest anchor, 10, still takes all.
    z = agh.anchor_weights(line_graph(1, 3.0), np.array([[1.5], [1003]], np.float32))
    np.testing.assert_array_equal(z, [[1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize("nearest", [3, 40])
def test_eigenvectors_are_those_of_the_dense_graph(nearest):
    x = clouds(400)
    params = agh.fit(KEY, x, 8, 40, nearest, 1)
    z, a = dense(params, x)
    np.testing.assert_allclose(agh.anchor_weights(params, x), z, atol=1e-5)
    y = np.asarray(agh.project(params, x), np.float64)
    values = np.sum(y * (a @ y), axis=0) / np.sum(y * y, axis=0)
    np.testing.assert_allclose(a @ y, values * y, atol=2e-3)
    every = np.linalg.eigvalsh(a)[::-1]
    np.testing.assert_allclose(values, every[every < agh.TRIVIAL][:8], atol=1e-4)
    # Uncorrelated and balanced.
    np.testing.assert_allclose(y.T @ y / 400, np.eye(8), atol=1e-3)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-3)


def test_the_width_is_the_mean_distance_to_the_last_of_the_nearest():
    x = clouds(300)
    params = agh.fit(KEY, x, 4, 20, 3, 1)
    anchors = params.anchors.astype(np.float64) + params.centre
    d = np.sort(np.linalg.norm(x[:, None] - anchors, axis=2), axis=1)
    np.testing.assert_allclose(params.widths, np.full(3, d[:, 2].mean() ** 2), rtol=1e-4)


def test_circle_in_closed_form():
    # A is circulant, so its eigenvectors are the Fourier modes, in pairs: first cos and sin of
    # the angle, then of twice the angle.
    x = circle(240)
    graph = circle_graph()
    mass, shared = agh._total(agh._anchor_sums, graph, x)
    np.testing.assert_allclose(mass, 10, rtol=1e-5)
    y = np.asarray(agh.anchor_weights(graph, x)) @ agh.eigenvectors(mass, shared, 240, 4)
    angle = 2 * np.pi * (np.arange(240) + 0.5) / 240
    for pair, k in ((y[:, :2], 1), (y[:, 2:], 2)):
        modes = np.stack([np.cos(k * angle), np.sin(k * angle)], axis=1) / np.sqrt(120)
        # All of the length √240 of each is within the plane of the two modes, up to the other
        # frequencies (24 j ± k) that 24 anchors cannot tell from k.
        np.testing.assert_allclose(np.linalg.norm(modes.T @ pair, axis=0), np.sqrt(240), rtol=0.01)


def test_slow_eigenvectors_of_a_long_line_are_kept():
    # The first eigenvalue of 100 anchors in line is near 1 - 10⁻⁴. As of a vibrating string,
    # eigenvector k changes sign k times.
    none = np.zeros((100, 0), np.float32)
    anchors = np.arange(100, dtype=np.float32)[:, None]
    width = np.ones(2, np.float32)
    graph = agh.AnchorGraph(np.zeros(1, np.float32), anchors, width, none, none[0], none[0])
    x = np.linspace(0, 99, 991, dtype=np.float32)[:, None]
    mass, shared = agh._total(agh._anchor_sums, graph, x)
    y = np.asarray(agh.anchor_weights(graph, x)) @ agh.eigenvectors(mass, shared, 991, 5)
    np.testing.assert_array_equal(np.sum(np.diff(y > 0, axis=0), axis=0), [1, 2, 3, 4, 5])


def test_second_cuts_of_a_circle_in_closed_form():
    # Of y = √2 cos the two sides are alike, so b⁻ = -b⁺, and balance asks for b⁺ = mean |y| =
    # 2 √2 / π = 0.900. W samples the cosine at the anchors, and Z smooths it a little.
    x = circle(240)
    graph = circle_graph()
    mass, _ = agh._total(agh._anchor_sums, graph, x)
    wave = np.sqrt(2) * graph.anchors[:, :1].astype(np.float64)
    y = np.asarray(agh.anchor_weights(graph, x)) @ wave
    above, below = agh.second_thresholds(graph, x, mass, wave)
    np.testing.assert_allclose(above, -below, atol=1e-4)
    np.testing.assert_allclose(above, np.abs(y).mean(), rtol=1e-4)
    np.testing.assert_allclose(above, 2 * np.sqrt(2) / np.pi, rtol=0.05)


def test_second_cuts_minimise_the_change_over_the_graph():
    # By brute force on the dense graph: b⁻ from b⁺ by the balance 1ᵀ f = 0, then b⁺ by scipy.
    x = clouds(400)
    params = agh.fit(KEY, x, 8, 40, 5, 2)
    _, a = dense(params, x)
    laplacian = np.eye(len(a)) - a
    y = np.asarray(agh.project(params, x), np.float64)[:, :4]
    for k in range(4):
        positive = y[:, k] > 0

        def cut(above: float, y: np.ndarray = y[:, k], positive: np.ndarray = positive):
            below = (y[~positive].sum() - (y[positive] - above).sum()) / np.sum(~positive)
            f = np.where(positive, y - above, below - y)
            return f @ laplacian @ f, below

        best = minimize_scalar(lambda above: cut(above)[0])
        np.testing.assert_allclose(params.above[k], best.x, atol=2e-3)
        np.testing.assert_allclose(params.below[k], cut(best.x)[1], atol=2e-3)


@pytest.mark.parametrize("bits", [1, 8, 9])
def test_two_layers_are_one_layer_and_its_second_cuts(bits):
    x = clouds(300)
    two = agh.fit(KEY, x, bits, 30, 4, 2)
    one = agh.fit(KEY, x, -(-bits // 2), 30, 4, 1)
    y, u = np.asarray(agh.project(one, x)), np.asarray(agh.project(two, x))
    assert u.shape == (300, bits)
    half = y.shape[1]
    np.testing.assert_array_equal(u[:, :half], y)
    first = y[:, : bits - half]
    # Set beyond either second cut: a large |y|.
    outer = np.where(first > 0, first > two.above, first < two.below)
    np.testing.assert_array_equal(u[:, half:] > 0, outer)


def test_unconnected_parts_give_no_bit_of_their_own():
    # Two clouds that share no anchor: the vectors that are constant on each are trivial, and
    # every other one is balanced within each.
    x = np.concatenate([clouds(200), clouds(200, 1) + 100])
    params = agh.fit(KEY, x, 6, 40, 4, 1)
    y = np.asarray(agh.project(params, x))
    # (A trivial one would have means of about 1 and -1.)
    np.testing.assert_allclose(y.reshape(2, 200, 6).mean(axis=1), 0, atol=0.01)


def test_too_few_eigenvectors_are_refused():
    # With one near anchor each, every anchor is a part of its own and all eigenvalues are 1.
    with pytest.raises(BadInput, match=r"8 eigenvectors .* which has 0 .* use fewer bits"):
        agh.fit(KEY, clouds(300), 8, 30, 1, 1)


@pytest.mark.parametrize(
    "bits, anchors, nearest, layers, words",
    [
        (16, 16, 3, 1, "16 eigenvectors .* got 16 anchors, use more than 16"),
        (32, 16, 3, 2, "16 eigenvectors .* got 16 anchors, use more than 16"),
        (8, 16, 17, 1, "got 17 nearest of 16 anchors of 30 rows"),
        (8, 31, 3, 1, "got 3 nearest of 31 anchors of 30 rows"),
        (8, 16, 0, 1, "got 0 nearest"),
        (8, 16, 3, 3, "one or two layers; got 3"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(bits, anchors, nearest, layers, words):
    with pytest.raises(BadInput, match=words):
        agh.fit(KEY, clouds(30), bits, anchors, nearest, layers)


def test_more_bits_than_columns():
    x = clouds(500)
    params = agh.fit(KEY, x, 40, 60, 10, 1)
    bits = np.asarray(agh.project(params, x)) > 0
    assert len(np.unique(bits, axis=1).T) == 40


def test_keys_draw_different_anchors_and_repeat():
    x = clouds(300)
    one, again, other = (agh.fit(jax.random.key(k), x, 8, 30, 4, 2) for k in (0, 0, 1))
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(one.anchors - other.anchors).max() > 0.1


@pytest.mark.parametrize("rows", [7, 100, 299])
def test_training_blocks_change_rounding_only(rows, monkeypatch, tmp_path):
    x = clouds(300)
    np.save(tmp_path / "x.npy", x)
    whole = agh.fit(KEY, x, 8, 30, 4, 2)
    monkeypatch.setattr(pca, "BLOCK_ROWS", rows)
    blocks = agh.fit(KEY, np.load(tmp_path / "x.npy", mmap_mode="r"), 8, 30, 4, 2)
    np.testing.assert_array_equal(whole.anchors, blocks.anchors)
    for name in ("widths", "weights", "above", "below"):
        np.testing.assert_allclose(
            getattr(whole, name), getattr(blocks, name), rtol=1e-2, atol=1e-3
        )


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("block_rows", [3, 64])
def test_rows_do_not_depend_on_their_block(layers, block_rows):
    x = clouds(70)
    params = agh.fit(KEY, x, 6, 20, 4, layers)
    u = parallel.map_rows(agh.project, block_rows)(params, x)
    np.testing.assert_allclose(u, agh.project(params, x), atol=1e-4)


def test_translation_and_scale_change_no_bit():
    x = clouds(500)
    graph = agh.fit(KEY, x, 8, 30, 4, 2)
    # The same anchors moved along, for k-means would round to others.
    moved = graph._replace(
        centre=4 * graph.centre + 100, anchors=4 * graph.anchors, widths=16 * graph.widths
    )
    one, other = (np.asarray(agh.project(*v)) > 0 for v in ((graph, x), (moved, 4 * x + 100)))
    assert np.mean(one != other) < 0.005


def test_beats_lsh_on_a_swiss_roll():
    # A rolled-up sheet: the graph sees the sheet, hyperplanes its windings.
    rng = np.random.default_rng(0)
    t = 1.5 * np.pi * (1 + 2 * rng.uniform(size=2200))
    x = np.stack([t * np.cos(t), rng.uniform(0, 21, 2200), t * np.sin(t)], axis=1)
    xq, xb = x[:200].astype(np.float32), x[200:].astype(np.float32)
    random = [
        mean_average_precision(linear.project, lsh.fit(jax.random.key(k), xb, 12), xq, xb, 50)
        for k in range(2)
    ]
    for layers in (1, 2):
        params = agh.fit(KEY, xb, 12, 60, 4, layers)
        assert mean_average_precision(agh.project, params, xq, xb, 50) > 1.25 * max(random)
