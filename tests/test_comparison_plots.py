"""Plots of comparisons: every method is drawn, missing cells leave gaps."""

import numpy as np
import pytest
from matplotlib.image import imread

from sigah_jax.report import comparison_plots
from sigah_jax.report.cells import RECALL_AT, Cell

METHODS = ["sigah", "itq", "lsh"]
MANY = ["sigah", "sigah_both", *(f"m{i}" for i in range(9))]


def cells(shift=0.0):
    out = []
    for i, method in enumerate(METHODS):
        for bits in (16, 64):
            for seed in (0, 1):
                value = 0.2 + 0.2 * i + bits / 400 + 0.05 * seed + shift * (method == "lsh")
                metrics = {"map": value} | {
                    f"recall@{r}": min(1.0, value * r**0.1) for r in RECALL_AT
                }
                curve = [[1.0, value, None], [value / 4, value / 2, 1.0]]
                out.append(Cell("mnist", method, bits, seed, metrics, curve, ""))
    return out


def draw(name, found, path):
    if name == "over_length":
        comparison_plots.over_length(found, "map", METHODS, [16, 64], path, "bits")
    else:
        getattr(comparison_plots, name)(found, 64, METHODS, path)
    return imread(path)


@pytest.mark.parametrize("name", ["over_length", "recall_curves", "precision_recall"])
def test_the_picture_shows_the_values(tmp_path, name):
    path = tmp_path / "plots" / "a.png"
    first = draw(name, cells(), path)
    np.testing.assert_array_equal(draw(name, cells(), path), first)
    assert np.any(draw(name, cells(shift=0.1), path) != first)


@pytest.mark.parametrize("name", ["over_length", "recall_curves", "precision_recall"])
def test_a_method_that_was_not_run_is_left_out(tmp_path, name):
    some = [c for c in cells() if c.method != "itq"]
    none = [c._replace(metrics=None) if c.method == "itq" else c for c in cells()]
    a, b = draw(name, some, tmp_path / "a.png"), draw(name, none, tmp_path / "b.png")
    np.testing.assert_array_equal(a, b)


def line(method, values, dataset="mnist"):
    """The cells of a method, a value a length."""
    found = zip((16, 64), values, strict=False)
    return [Cell(dataset, method, bits, 0, {"map": x}, [], "") for bits, x in found]


def many():
    """Methods of which m0 is the best at 64 bits, m8 at 16 bits alone, and SiGAH the worst."""
    found = [line(f"m{i}", (0.2, 0.8 - i / 50)) for i in range(8)]
    found += [line("sigah", (0.01, 0.1)), line("sigah_both", (0.02, 0.2)), line("m8", (0.3, 0.1))]
    return [c for cells in found for c in cells]


def test_of_many_methods_eight_have_a_line():
    chosen = comparison_plots.chosen(many(), "mnist", "map", MANY, [16, 64], ["sigah"])
    assert chosen == ["sigah", *(f"m{i}" for i in range(6)), "m8"]  # m8 is the best at 16 bits
    chosen = comparison_plots.chosen(many(), "mnist", "map", MANY, [16, 64])
    assert chosen == [*(f"m{i}" for i in range(7)), "m8"]
    few = comparison_plots.chosen(many(), "mnist", "map", ["m3", "sigah"], [64])
    assert few == ["m3", "sigah"]


def test_a_set_without_the_methods_that_always_have_a_line_has_no_panel(tmp_path):
    others = line("m0", (0.2, 0.4), "glosses")
    assert comparison_plots.chosen(others, "glosses", "map", MANY, [16, 64], ["sigah"]) == []
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    for found, path in ((many(), a), (many() + others, b)):
        comparison_plots.over_length(found, "map", MANY, [16, 64], path, "bits", ["sigah"])
    np.testing.assert_array_equal(imread(a), imread(b))
    comparison_plots.over_length(
        others, "map", MANY, [16, 64], tmp_path / "c.png", "bits", ["sigah"]
    )
    assert not (tmp_path / "c.png").exists()


def test_lines_over_bytes_are_those_over_bits_with_another_scale(tmp_path):
    def drawn(found, unit):
        path = tmp_path / f"{unit}.png"
        comparison_plots.over_length(found, "map", MANY[:3], [16, 64], path, unit)
        return imread(path)

    first = drawn(many(), "bytes")
    assert np.any(first != drawn([c for c in many() if c.method != "sigah_both"], "bytes"))
    assert np.any(first != drawn(many(), "bits"))
