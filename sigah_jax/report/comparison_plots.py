"""Plots that compare methods: a metric against bits or bytes, recall@R, precision against recall.

Each data set has a panel and each method a line, the mean over seeds. A panel has eight lines at
most: of more methods, those that come nearest to the best one at some length. SiGAH's lines are
thick; the others differ by colour, dash and marker, so that they can be told apart in grey print
and by colour-blind readers.

Not responsible for reading cells: `cells`.
"""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from sigah_jax.report import drawing
from sigah_jax.report.cells import Cell, datasets
from sigah_jax.report.comparison import UNITS, spread, values_of
from sigah_jax.retrieval.metrics import RECALL_AT

LINES = 8  # of a panel
LABELS = {"bits": "bits", "bytes": "bytes a vector"}


def draw(
    cells: Sequence[Cell],
    methods: Sequence[str],
    bits: Sequence[int],
    curve_bits: int,
    directory: Path,
    always: Sequence[str] = (),
) -> None:
    """All plots of all data sets: three metrics over code length, two curves at one length.

    Args:
        always: the methods that have a line wherever they were run, whatever they reach.
    """
    for metric in ("map", "map@1000", "recall@100"):
        path = directory / f"{metric.replace('@', '_')}_bits.png"
        over_length(cells, metric, methods, bits, path, "bits", always)
    for function in (recall_curves, precision_recall):
        function(cells, curve_bits, methods, directory / f"{function.__name__}.png", always)


def over_length(
    cells: Sequence[Cell],
    metric: str,
    methods: Sequence[str],
    bits: Sequence[int],
    path: Path,
    unit: str,
    always: Sequence[str] = (),
) -> None:
    """Draws one metric over code length, with the standard deviation over seeds.

    Args:
        unit: of the axis, "bits" or "bytes"; bytes suit codes by real-valued queries too.
        always: as in `draw`.
    """
    places = {k: k // UNITS[unit] for k in bits}

    def line(ax: Axes, dataset: str, method: str, number: int) -> None:
        values = {x: values_of(cells, dataset, method, k, metric) for k, x in places.items()}
        points = [
            (x, statistics.mean(v), spread(v)) for x, v in values.items() if isinstance(v, list)
        ]
        style = drawing.look(number, method)
        ax.errorbar(*zip(*points, strict=True), label=drawing.label(method), **style)

    def finish(ax: Axes, dataset: str) -> None:
        ax.set(xscale="log", xlabel=LABELS[unit], ylabel=metric, title=dataset)
        ax.set_xticks(list(places.values()), [str(x) for x in places.values()])
        ax.minorticks_off()
        drawing.name_ends(ax)

    _panels(cells, metric, methods, bits, always, line, finish, path)


def recall_curves(
    cells: Sequence[Cell],
    bits: int,
    methods: Sequence[str],
    path: Path,
    always: Sequence[str] = (),
) -> None:
    """Draws recall@R of the ten nearest over R."""

    def line(ax: Axes, dataset: str, method: str, number: int) -> None:
        values = [values_of(cells, dataset, method, bits, f"recall@{r}") for r in RECALL_AT]
        style = drawing.look(number, method)
        ax.plot(RECALL_AT, list(map(statistics.mean, values)), label=drawing.label(method), **style)

    def finish(ax: Axes, dataset: str) -> None:
        ax.set(xscale="log", ylim=(0, 1), xlabel="R", ylabel="recall@R of the 10 nearest")
        ax.set_title(f"{dataset}, {bits} bits")
        ax.legend(loc="lower right", handlelength=3.4)

    _panels(cells, "recall@100", methods, [bits], always, line, finish, path)


def precision_recall(
    cells: Sequence[Cell],
    bits: int,
    methods: Sequence[str],
    path: Path,
    always: Sequence[str] = (),
) -> None:
    """Draws precision over recall at the Hamming radii; the curve of the lowest seed there is."""
    cells = [c for c in cells if c.pr_curve]

    def line(ax: Axes, dataset: str, method: str, number: int) -> None:
        seeds = [c for c in cells if (c.dataset, c.method, c.bits) == (dataset, method, bits)]
        curve = min(seeds, key=lambda c: c.seed).pr_curve
        drawing.precision_recall_line(ax, number, method, curve)

    def finish(ax: Axes, dataset: str) -> None:
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="recall", ylabel="precision")
        ax.set_title(f"{dataset}, {bits} bits, relevant: top 2 %")
        ax.legend(loc="best", handlelength=3.4)

    _panels(cells, "map", methods, [bits], always, line, finish, path)


def chosen(
    cells: Sequence[Cell],
    dataset: str,
    metric: str,
    methods: Sequence[str],
    bits: Sequence[int],
    always: Sequence[str] = (),
) -> list[str]:
    """The methods that have a line in the panel of a data set, eight at most, in their order.

    Those of `always` come first; then those whose mean is the greatest share of the best mean of
    the others at any of the lengths. None if `always` names methods, of which none was run.
    """
    means = {m: {} for m in methods}
    for m in methods:
        for k in bits:
            values = values_of(cells, dataset, m, k, metric)
            if isinstance(values, list):
                means[m][k] = statistics.mean(values)
    own = [m for m in methods if m in always and means[m]]
    if always and not own:
        return []
    others = {m: held for m, held in means.items() if held and m not in always}
    best = {k: max(held.get(k, 0) for held in others.values()) for k in bits} if others else {}
    near = {m: max(x / (best[k] or 1) for k, x in held.items()) for m, held in others.items()}
    taken = {*own, *sorted(near, key=near.get, reverse=True)[: max(0, LINES - len(own))]}
    return [m for m in methods if m in taken]


def _panels(
    cells: Sequence[Cell],
    metric: str,
    methods: Sequence[str],
    bits: Sequence[int],
    always: Sequence[str],
    line: Callable[[Axes, str, str, int], None],
    finish: Callable[[Axes, str], None],
    path: Path,
) -> None:
    """Draws the lines that are chosen by a metric; a method looks the same in all panels."""
    shown = {d: chosen(cells, d, metric, methods, bits, always) for d in datasets(cells)}
    shown = {dataset: names for dataset, names in shown.items() if names}
    numbers = [m for m in methods if any(m in names for names in shown.values())]

    def draw(ax: Axes, dataset: str) -> None:
        for method in shown[dataset]:
            line(ax, dataset, method, numbers.index(method))
        finish(ax, dataset)

    if shown:
        drawing.panels(list(shown), draw, path)
