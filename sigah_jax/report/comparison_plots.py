"""Plots that compare methods: a metric against bits, recall@R, precision against recall.

One panel a data set, one line a method, the mean over seeds. SiGAH is the thick line; the others
differ by colour, dash and marker, so that grey print and colour-blind eyes tell them apart.

Not responsible for reading cells: `collect`.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sigah_jax.report.cells import RECALL_AT, Cell
from sigah_jax.report.comparison import values_of
from sigah_jax.report.plots import COLOURS, DASHES, MARKERS, STYLE, save
from sigah_jax.report.tables import display_name

PANEL = (4.4, 3.8)  # inches
COLUMNS = 3  # panels side by side
LEGEND = 1.7  # inches beside the panels


def look(number: int, method: str) -> dict:
    """Colour, dash, marker and width of the line of method number `number`."""
    own = method == "sigah"
    again = number // len(COLOURS)  # a second round of colours has other dashes and open markers
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[(number + 3 * again) % len(DASHES)],
        "marker": MARKERS[(number + 2 * again) % len(MARKERS)],
        "markerfacecolor": "white" if again else None,
        "markersize": 5 if own else 4,
        "linewidth": 2.6 if own else 1.2,
        "zorder": 3 if own else 2,
    }


def draw(
    cells: Sequence[Cell],
    methods: Sequence[str],
    bits: Sequence[int],
    curve_bits: int,
    directory: Path,
) -> None:
    """All plots of all data sets: three metrics over code length, two curves at one length."""
    datasets = sorted({c.dataset for c in cells})
    for metric in ("map", "map@1000", "recall@100"):
        path = directory / f"{metric.replace('@', '_')}_bits.png"
        against_bits(cells, metric, datasets, methods, bits, path)
    for function in (recall_curves, precision_recall):
        function(cells, curve_bits, datasets, methods, directory / f"{function.__name__}.png")


def against_bits(
    cells: Sequence[Cell],
    metric: str,
    datasets: Sequence[str],
    methods: Sequence[str],
    bits: Sequence[int],
    path: Path,
) -> None:
    """Draws one metric over code length, with the standard deviation over seeds."""

    def draw(ax: Axes, dataset: str) -> None:
        for number, method in enumerate(methods):
            points = [(k, values_of(cells, dataset, method, k, metric)) for k in bits]
            points = [(k, v) for k, v in points if not isinstance(v, str)]
            if points:
                x, values = zip(*points, strict=True)
                spread = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values]
                means = [statistics.mean(v) for v in values]
                ax.errorbar(x, means, spread, label=display_name(method), **look(number, method))
        ax.set(xscale="log", xlabel="bits", ylabel=metric, title=dataset)
        ax.set_xticks(bits, [str(k) for k in bits])
        ax.minorticks_off()

    _panels(datasets, draw, path)


def recall_curves(
    cells: Sequence[Cell], bits: int, datasets: Sequence[str], methods: Sequence[str], path: Path
) -> None:
    """Draws recall@R of the ten nearest over R."""

    def draw(ax: Axes, dataset: str) -> None:
        for number, method in enumerate(methods):
            values = [values_of(cells, dataset, method, bits, f"recall@{r}") for r in RECALL_AT]
            if not isinstance(values[0], str):
                means = [statistics.mean(v) for v in values]
                ax.plot(RECALL_AT, means, label=display_name(method), **look(number, method))
        ax.set(xscale="log", ylim=(0, 1), xlabel="R", ylabel="recall@R of the 10 nearest")
        ax.set_title(f"{dataset}, {bits} bits")

    _panels(datasets, draw, path)


def precision_recall(
    cells: Sequence[Cell], bits: int, datasets: Sequence[str], methods: Sequence[str], path: Path
) -> None:
    """Draws precision over recall at the Hamming radii; the curve of the lowest seed there is."""

    def draw(ax: Axes, dataset: str) -> None:
        for number, method in enumerate(methods):
            found = [
                c
                for c in cells
                if (c.dataset, c.method, c.bits) == (dataset, method, bits) and c.metrics
            ]
            if found:
                y, x = (np.array(v, float) for v in min(found, key=lambda c: c.seed).pr_curve)
                shown = np.isfinite(x) & np.isfinite(y)
                style = look(number, method) | {"markevery": (0.03 * (number % 5), 0.2)}
                ax.plot(x[shown], y[shown], label=display_name(method), **style)
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="recall", ylabel="precision")
        ax.set_title(f"{dataset}, {bits} bits, relevant: top 2 %")

    _panels(datasets, draw, path)


def _panels(datasets: Sequence[str], draw, path: Path) -> None:
    with rc_context(STYLE):
        columns = min(len(datasets), COLUMNS)
        rows = -(-len(datasets) // columns)
        figure = Figure(figsize=(PANEL[0] * columns + LEGEND, PANEL[1] * rows))
        places = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        axes = places[: len(datasets)]
        for ax, dataset in zip(axes, datasets, strict=True):
            draw(ax, dataset)
        for ax in places[len(datasets) :]:
            ax.remove()
        lines = {}
        for ax in axes:
            handles, labels = ax.get_legend_handles_labels()
            lines |= dict(zip(labels, handles, strict=True))
        figure.legend(lines.values(), lines.keys(), loc="outside right center", handlelength=3.4)
        save(figure, path)
