"""Plots that compare methods: a metric against bits, recall@R, precision against recall.

One panel a data set, one line a method, the mean over seeds. SiGAH is the thick line; the others
differ by colour, dash and marker, so that grey print and colour-blind eyes tell them apart.

Not responsible for reading cells: `cells`.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from sigah_jax.report import plots
from sigah_jax.report.cells import RECALL_AT, Cell
from sigah_jax.report.comparison import spread, values_of
from sigah_jax.report.tables import display_name


def draw(
    cells: Sequence[Cell],
    methods: Sequence[str],
    bits: Sequence[int],
    curve_bits: int,
    directory: Path,
) -> None:
    """All plots of all data sets: three metrics over code length, two curves at one length."""
    for metric in ("map", "map@1000", "recall@100"):
        path = directory / f"{metric.replace('@', '_')}_bits.png"
        against_bits(cells, metric, methods, bits, path)
    for function in (recall_curves, precision_recall):
        function(cells, curve_bits, methods, directory / f"{function.__name__}.png")


def against_bits(
    cells: Sequence[Cell], metric: str, methods: Sequence[str], bits: Sequence[int], path: Path
) -> None:
    """Draws one metric over code length, with the standard deviation over seeds."""

    def draw(ax: Axes, dataset: str) -> None:
        for number, method in enumerate(methods):
            points = [(k, values_of(cells, dataset, method, k, metric)) for k in bits]
            points = [(k, statistics.mean(v), spread(v)) for k, v in points if isinstance(v, list)]
            if points:
                style = plots.look(number, method)
                ax.errorbar(*zip(*points, strict=True), label=display_name(method), **style)
        ax.set(xscale="log", xlabel="bits", ylabel=metric, title=dataset)
        ax.set_xticks(bits, [str(k) for k in bits])
        ax.minorticks_off()

    plots.panels(_datasets(cells), draw, path)


def recall_curves(cells: Sequence[Cell], bits: int, methods: Sequence[str], path: Path) -> None:
    """Draws recall@R of the ten nearest over R."""

    def draw(ax: Axes, dataset: str) -> None:
        for number, method in enumerate(methods):
            values = [values_of(cells, dataset, method, bits, f"recall@{r}") for r in RECALL_AT]
            if isinstance(values[0], list):
                means, style = list(map(statistics.mean, values)), plots.look(number, method)
                ax.plot(RECALL_AT, means, label=display_name(method), **style)
        ax.set(xscale="log", ylim=(0, 1), xlabel="R", ylabel="recall@R of the 10 nearest")
        ax.set_title(f"{dataset}, {bits} bits")

    plots.panels(_datasets(cells), draw, path)


def precision_recall(cells: Sequence[Cell], bits: int, methods: Sequence[str], path: Path) -> None:
    """Draws precision over recall at the Hamming radii; the curve of the lowest seed there is."""

    def draw(ax: Axes, dataset: str) -> None:
        found = [c for c in cells if c.dataset == dataset and c.bits == bits and c.metrics]
        for number, method in enumerate(methods):
            seeds = [c for c in found if c.method == method and c.pr_curve]
            if seeds:
                curve = min(seeds, key=lambda c: c.seed).pr_curve
                plots.precision_recall_line(ax, number, method, curve)
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="recall", ylabel="precision")
        ax.set_title(f"{dataset}, {bits} bits, relevant: top 2 %")

    plots.panels(_datasets(cells), draw, path)


def _datasets(cells: Sequence[Cell]) -> list[str]:
    return sorted({c.dataset for c in cells})
