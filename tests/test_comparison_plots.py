"""Plots of comparisons: every method is drawn, missing cells leave gaps."""

import numpy as np
import pytest
from matplotlib.image import imread

from sigah_jax.report import comparison_plots
from sigah_jax.report.cells import RECALL_AT, Cell

METHODS = ["sigah", "itq", "lsh"]


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
    if name == "against_bits":
        comparison_plots.against_bits(found, "map", METHODS, [16, 64], path)
    else:
        getattr(comparison_plots, name)(found, 64, METHODS, path)
    return imread(path)


@pytest.mark.parametrize("name", ["against_bits", "recall_curves", "precision_recall"])
def test_the_picture_shows_the_values(tmp_path, name):
    path = tmp_path / "plots" / "a.png"
    first = draw(name, cells(), path)
    np.testing.assert_array_equal(draw(name, cells(), path), first)
    assert np.any(draw(name, cells(shift=0.1), path) != first)


@pytest.mark.parametrize("name", ["against_bits", "recall_curves", "precision_recall"])
def test_a_method_that_was_not_run_is_left_out(tmp_path, name):
    some = [c for c in cells() if c.method != "itq"]
    none = [c._replace(metrics=None) if c.method == "itq" else c for c in cells()]
    a, b = draw(name, some, tmp_path / "a.png"), draw(name, none, tmp_path / "b.png")
    np.testing.assert_array_equal(a, b)
