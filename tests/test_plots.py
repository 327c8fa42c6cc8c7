"""Plots: the right size, the data in the picture, gaps tolerated, no half-written file."""

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from sigah_jax.report import plots

ROWS = [
    {"step": 10, "train/loss_gen": 2.0, "train/loss_dis": 0.5, "train/error_real": 0.4},
    {"step": 20, "train/loss_gen": 1.5, "train/kappa": 0.1, "train/nonzero_share": 0.3},
    {"step": 20, "eval/map": 0.5, "eval/recall@100": 0.7},
    {"step": 30, "train/loss_gen": 1.2, "train/loss_ordinal": 0.9, "train/kappa": 0.2},
]
CURVES = {
    "sigah": ([1.0, 0.8, 0.1], [0.1, 0.5, 1.0]),
    "lsh": ([0.9, 0.5, 0.1], [0.2, 0.4, 1.0]),
}


def pixels(path) -> np.ndarray:
    """The picture as grey values in 0..1, [height, width]; fails on a file that is no PNG."""
    return imread(path)[:, :, :3].mean(axis=2)


def digits(n: int) -> np.ndarray:
    return np.random.default_rng(0).random((n, 28, 28)).astype(np.float32)


def test_training_curves_have_their_size_and_show_their_data(tmp_path):
    path = tmp_path / "plots" / "training.png"
    plots.training_curves(ROWS, path)
    first = pixels(path)
    assert first.shape == (900, 1650)  # 11 x 6 inches at 150 dpi
    plots.training_curves(ROWS, path)
    np.testing.assert_array_equal(pixels(path), first)
    plots.training_curves([*ROWS, {"step": 30, "train/loss_gen": 0.3}], path)
    assert np.any(pixels(path) != first)


@pytest.fixture(scope="module")
def blank(tmp_path_factory) -> np.ndarray:
    path = tmp_path_factory.mktemp("blank") / "training.png"
    plots.training_curves([{"step": 1}], path)
    return pixels(path)


@pytest.mark.parametrize(
    "key",
    [
        *plots.GENERATOR_LOSSES,
        *plots.ERRORS,
        *plots.VALIDATION,
        "train/kappa",
        "train/nonzero_share",
    ],
)
def test_every_key_is_drawn(tmp_path, blank, key):
    plots.training_curves([{"step": 1, key: 0.6}], tmp_path / "training.png")
    assert np.any(pixels(tmp_path / "training.png") != blank)


def test_absent_and_non_finite_values_are_left_out(tmp_path):
    gaps = [{"step": 15, "train/loss_gen": float("nan"), "train/kappa": None}]
    gaps += [{"step": 16, "train/loss_gen": float("inf"), "time/examples_per_sec": 9.0}]
    plots.training_curves(ROWS, tmp_path / "without.png")
    plots.training_curves([*ROWS[:1], *gaps, *ROWS[1:]], tmp_path / "with.png")
    np.testing.assert_array_equal(pixels(tmp_path / "with.png"), pixels(tmp_path / "without.png"))


@pytest.mark.parametrize("rows", [[], [{"step": 0}], [{"step": 0, "train/loss_gen": 0.0}]])
def test_a_run_that_logged_nothing_yet(tmp_path, rows):
    plots.training_curves(rows, tmp_path / "empty.png")
    assert pixels(tmp_path / "empty.png").shape == (900, 1650)


def test_negative_losses_are_not_lost_on_a_logarithmic_axis(tmp_path):
    # A discriminator's or a weighted loss may be below zero; its curve must still be drawn.
    for name, low in (("a.png", -0.5), ("b.png", -0.1)):
        rows = [{"step": s, "train/loss_gen": y} for s, y in ((1, 1.0), (2, low), (3, -1.0))]
        plots.training_curves(rows, tmp_path / name)
    assert np.any(pixels(tmp_path / "a.png") != pixels(tmp_path / "b.png"))


def test_precision_recall_has_its_size_and_shows_its_data(tmp_path):
    plots.precision_recall(CURVES, "MNIST, 64 bits", tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").shape == (660, 810)  # 5.4 x 4.4 inches at 150 dpi
    lower = {**CURVES, "lsh": ([0.9, 0.4, 0.1], [0.2, 0.4, 1.0])}
    plots.precision_recall(lower, "MNIST, 64 bits", tmp_path / "b.png")
    assert np.any(pixels(tmp_path / "a.png") != pixels(tmp_path / "b.png"))


def test_a_radius_that_retrieves_nothing_is_left_out(tmp_path):
    precision, recall = CURVES["lsh"]
    empty = {**CURVES, "lsh": ([float("nan"), *precision], [0.0, *recall])}
    plots.precision_recall(CURVES, "t", tmp_path / "without.png")
    plots.precision_recall(empty, "t", tmp_path / "with.png")
    np.testing.assert_array_equal(pixels(tmp_path / "with.png"), pixels(tmp_path / "without.png"))


@pytest.mark.parametrize(
    ("n", "shape"),
    [
        # Images and steps in pixels: 112 wide, a triple 3·112 + 2·14 = 364, the next triple
        # 420 further, the next row 126 further; margins of 14 and a heading of 28.
        (1, (28 + 112 + 28, 364 + 28)),
        (3, (28 + 112 + 28, 2 * 420 + 364 + 28)),
        (20, (28 + 4 * 126 + 112 + 28, 3 * 420 + 364 + 28)),
    ],
)
def test_feature_sheet_size(tmp_path, n, shape):
    plots.feature_sheet(digits(n), np.ones((n, 32), bool), digits(n), tmp_path / "s.png")
    assert pixels(tmp_path / "s.png").shape == shape


@pytest.mark.parametrize(
    ("bits", "across", "side", "left", "top"),
    [
        # The code's square begins at x = 14 + 112 + 14 = 140, y = 14 + 28 = 42.
        (64, 8, 14, 140, 42),
        (128, 16, 7, 140, 42 + 28),  # 16 x 8 cells of 7 are 56 high, centred in 112
        (16, 8, 14, 140, 42 + 42),  # 8 x 2 cells of 14 are 28 high
        (20, 8, 14, 140, 42 + 35),  # three rows, 42 high, the last of four cells
    ],
)
def test_a_cell_is_black_where_the_bit_is_one(tmp_path, bits, across, side, left, top):
    code = np.random.default_rng(bits).random(bits) < 0.5
    plots.feature_sheet(digits(1), code[None], digits(1), tmp_path / "s.png")
    row, column = np.arange(bits) // across, np.arange(bits) % across
    centre = pixels(tmp_path / "s.png")[
        top + row * side + side // 2, left + column * side + side // 2
    ]
    np.testing.assert_array_equal(centre < 0.5, code)
    np.testing.assert_allclose(centre[~code], 1)


def test_images_are_drawn_in_the_greys_of_the_originals(tmp_path):
    # Pixels 0 to 1 run from white to black, in both; the synthetic 5 is cut to 1 and -3 to 0.
    originals, synthetic = np.zeros((2, 1, 28, 28))
    originals[0, :14] = 1
    synthetic[0] = np.repeat([5, 1, -3, 0], 7)[:, None]
    plots.feature_sheet(originals, np.zeros((1, 8), bool), synthetic, tmp_path / "s.png")
    picture = pixels(tmp_path / "s.png")
    for left in (14, 14 + 2 * 126):
        np.testing.assert_allclose(picture[43 : 42 + 55, left + 1 : left + 111], 0, atol=0.01)
        np.testing.assert_allclose(picture[42 + 57 : 153, left + 1 : left + 111], 1, atol=0.01)


@pytest.mark.parametrize(
    ("originals", "bits", "synthetic"),
    [((2, 4, 4), 2, (2, 4, 5)), ((2, 4, 4), 1, (2, 4, 4)), ((0, 4, 4), 0, (0, 4, 4))],
)
def test_sheets_that_do_not_match_are_refused(tmp_path, originals, bits, synthetic):
    with pytest.raises(ValueError, match="one code and one synthetic image each"):
        plots.feature_sheet(
            np.zeros(originals), np.zeros((bits, 8), bool), np.zeros(synthetic), tmp_path / "s.png"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_failed_drawing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "pr.png"
    plots.precision_recall(CURVES, "good", path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="frac"):
        plots.precision_recall(CURVES, r"$\frac{$", path)  # unbalanced: matplotlib refuses it
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_renaming_leaves_nothing_behind(tmp_path):
    path = tmp_path / "pr.png"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        plots.precision_recall(CURVES, "t", path)
    assert list(tmp_path.iterdir()) == [path]


def test_matplotlib_settings_are_left_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    plots.precision_recall(CURVES, "t", tmp_path / "pr.png")
    assert dict(matplotlib.rcParams) == before
