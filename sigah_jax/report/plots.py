"""Plots of a run as PNG files: training curves, precision against recall, decoded codes.

Not responsible for choosing images, for computing what is plotted, nor for the style: `drawing`.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, PercentFormatter

from sigah_jax.report.drawing import COLOURS, DPI, STYLE, precision_recall_line, save

GENERATOR_LOSSES = {
    "train/loss_gen": "total",
    "train/loss_ordinal": "ordinal",
    "train/loss_ordinal_synthetic": "ordinal, ẑ",
    "train/loss_reconstruction": "reconstruction",
    "train/loss_adversary": "adversary",
    "train/loss_quantisation": "quantisation",
}
ERRORS = {
    "train/error_real": "real, e(z)",
    "train/error_synthetic": "synthetic, e(ẑ)",
    "train/loss_dis": "discriminator's loss",
}
VALIDATION = {
    key: key.removeprefix("eval/")
    for key in ("eval/map", "eval/map@1000", "eval/precision@100", "eval/recall@100")
}


def training_curves(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draws the course of a training run in five panels.

    Args:
        rows: the lines of metrics.jsonl in order; each has "step" and some of the keys
            above, "train/kappa" and "train/nonzero_share". A value that is absent or not
            finite is left out; a panel without any says "not logged".
        path: the PNG to write; its directory is made.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 6))
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
        axes = figure.subplot_mosaic("AAB;CDE")
        _curves(axes["A"], "Generator loss", rows, GENERATOR_LOSSES)
        _curves(axes["B"], "Auto-encoder errors", rows, ERRORS)
        _curves(axes["C"], "Equilibrium weight κ", rows, {"train/kappa": ""})
        _curves(axes["D"], "Non-zeros in the sparse code s", rows, {"train/nonzero_share": ""})
        _curves(axes["E"], "Validation metrics", rows, VALIDATION)
        if _smallest(axes["A"]) > 0:
            axes["A"].set_yscale("log")
            axes["A"].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes["A"].yaxis.set_major_formatter("{x:g}")
            axes["A"].yaxis.set_minor_formatter(NullFormatter())
        for name in "BCD":
            if axes[name].lines and _smallest(axes[name]) >= 0:
                axes[name].set_ylim(bottom=0)
        if axes["E"].lines:
            axes["E"].set_ylim(0, 1)
        axes["D"].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        save(figure, path)


def precision_recall(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str, path: str | Path
) -> None:
    """Draws precision against recall: a curve for each method, a point for each Hamming radius.

    Args:
        curves: by method, precision and recall at the radii 0..K. A radius where either is
            not finite (no point is retrieved) is left out.
        title: says data set and bits.
        path: the PNG to write; its directory is made.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(5.4, 4.4))
        ax = figure.subplots()
        for number, (method, curve) in enumerate(curves.items()):
            precision_recall_line(ax, number, method, curve)
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="recall", ylabel="precision", title=title)
        if curves:
            ax.legend(handlelength=3.2)
        save(figure, path)


def feature_sheet(
    originals: np.ndarray, bits: np.ndarray, synthetic: np.ndarray, path: str | Path
) -> None:
    """Draws images, their codes, and the synthetic features made from the codes, side by side.

    Args:
        originals: [n, h, w], pixels x.
        bits: [n, K] bool; a 1 is a black cell. Cells run along rows, 8 a row, or 16 above
            64 bits.
        synthetic: [n, h, w], x̂ decoded from the bits alone. Its greys are those of the
            originals: what is below their smallest or above their largest value is clipped.
        path: the PNG to write; its directory is made.
    """
    n = len(originals)
    if n == 0 or originals.shape != synthetic.shape or len(bits) != n:
        raise ValueError(
            "feature sheet: needs images, and one code and one synthetic image each; got originals "
            f"{originals.shape}, bits {bits.shape}, synthetic {synthetic.shape}"
        )
    columns = min(n, 4)
    rows = -(-n // columns)
    # Lengths in image widths, of 112 pixels: whole pixels for 28 columns and for 8 or 16 cells.
    gap, margin, head, step_x, step_y = 1 / 8, 1 / 8, 1 / 4, 3.75, 9 / 8
    width, height = (columns - 1) * step_x + 3 + 2 * gap, (rows - 1) * step_y + 1
    size = np.array([width + 2 * margin, height + 2 * margin + head]) * 112 / DPI
    greys = {"cmap": "gray_r", "vmin": originals.min(), "vmax": originals.max()}
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="none")
        ax = figure.add_axes((0, 0, 1, 1))
        ax.set_axis_off()
        cells, inks = [], []
        for i in range(n):
            left, top = (i % columns) * step_x, (i // columns) * step_y
            for image, x in ((originals[i], left), (synthetic[i], left + 2 * (1 + gap))):
                extent = (x, x + 1, top + 1, top)
                ax.imshow(image, extent=extent, interpolation="nearest", **greys)
            cells.append(_grid(len(bits[i]), left + 1 + gap, top))
            inks.append(np.where(bits[i], 0.1, 1.0))
            if i < columns:
                for j, label in enumerate(("x", "code", "x̂")):
                    x = left + j * (1 + gap) + 0.5
                    ax.text(x, -0.1, label, ha="center", va="bottom", color="0.25")
        faces = [str(ink) for ink in np.concatenate(inks)]
        outline = {"edgecolors": "0.65", "linewidths": 0.4, "snap": True}
        ax.add_collection(PolyCollection(np.concatenate(cells), facecolors=faces, **outline))
        ax.set(xlim=(-margin, width + margin), ylim=(height + margin, -head - margin))
        save(figure, path)


def _curves(ax: Axes, title: str, rows: Sequence[Mapping[str, Any]], labels: dict) -> None:
    """Draws each key of `labels` over the steps at which it was logged."""
    for colour, (key, label) in zip(COLOURS, labels.items(), strict=False):
        points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
        points = [(step, y) for step, y in points if math.isfinite(y)]
        if points:
            few = len(points) <= 25
            look = {"marker": "o", "ms": 3.5, "clip_on": False} if few else {"linewidth": 1.1}
            ax.plot(*zip(*points, strict=True), color=colour, label=label, **look)
    ax.set_title(title)
    if not ax.lines:
        ax.text(0.5, 0.5, "not logged", transform=ax.transAxes, ha="center", color="0.6")
        ax.set(xticks=[], yticks=[])
        return
    ax.set(xlabel="step", xlim=(0, max(1, *(row["step"] for row in rows))))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    if len(labels) > 4:
        # On the line of the title: so many curves leave no corner of the panel free.
        tight = {"borderpad": 0, "borderaxespad": 0.4, "handlelength": 1, "columnspacing": 1}
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(labels), **tight)
    elif len(labels) > 1:
        ax.legend()


def _smallest(ax: Axes) -> float:
    return min((y for line in ax.lines for y in line.get_ydata()), default=0.0)


def _grid(bits: int, left: float, top: float) -> np.ndarray:
    """Corners [bits, 4, 2] of square cells, as a grid centred in the unit square at left, top."""
    across = 8 if bits <= 64 else 16
    side = 1 / max(across, -(-bits // across))
    column, row = np.arange(bits) % across, np.arange(bits) // across
    x = left + (1 - across * side) / 2 + column * side
    y = top + (1 - -(-bits // across) * side) / 2 + row * side
    x, y = x[:, None] + side * np.array([0, 1, 1, 0]), y[:, None] + side * np.array([0, 0, 1, 1])
    return np.stack([x, y], axis=-1)
