"""How all plots are drawn: style, the look of a method's line, panels, names beside lines, files.

Drawn on `Figure` objects without pyplot, so that nothing global is opened or left open.
Every file appears whole or not at all: it is written under a temporary name beside its
place and then renamed.

Not responsible for what is drawn: `plots` (of a run), `comparison_plots`.
"""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sigah_jax.files import whole
from sigah_jax.report.tables import short_name

DPI = 150
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": "0.25",
    "axes.edgecolor": "0.6",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.7,
    "xtick.color": "0.35",
    "ytick.color": "0.35",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
}
# Okabe and Ito's palette without its yellow, which is lost on white paper. Dashes and
# markers say the same once more, for grey print.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9"]
DASHES = ["-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1)), "-"]
MARKERS = "osD^vPX"
LABEL_WIDTH = 34  # letters of a line of a name
PANEL = (5.2, 3.8)  # inches, with the names of lines beside it
NAME_HEIGHT = 0.055  # of a line's name beside a panel, in heights of the panel


def precision_recall_line(
    ax: Axes, number: int, method: str, curve: tuple[Sequence[float], Sequence[float]]
) -> None:
    """Draws the curve of one method, the `number`-th in the picture."""
    y, x = (np.array(values, float) for values in curve)
    shown = np.isfinite(x) & np.isfinite(y)
    # Markers are spaced along the curve and not by radius: the first radii lie on each other.
    style = look(number, method) | {"markevery": (0.03 * (number % 5), 0.2)}
    ax.plot(x[shown], y[shown], label=label(method), **style)


def label(method: str) -> str:
    """The name of a line, on several lines if it is long, as with the fields that a run changed."""
    return textwrap.fill(short_name(method), LABEL_WIDTH)


def look(number: int, method: str) -> dict:
    """Colour, dash, marker and width of the line of method number `number`; SiGAH's is thick."""
    own = method.lower().startswith("sigah")
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


def panels(names: Sequence[str], draw: Callable[[Axes, str], None], path: Path) -> None:
    """Draws a panel for each name, by `draw(ax, name)`, two beside one another."""
    with rc_context(STYLE):
        columns = min(len(names), 2)
        rows = -(-len(names) // columns)
        figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows))
        places = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        for ax, name in zip(places, names, strict=False):
            draw(ax, name)
        for ax in places[len(names) :]:
            ax.remove()
        save(figure, path)


def name_ends(ax: Axes) -> None:
    """Writes the label of each line beside the panel, as near to its end as the others allow.

    A thin line leads from the end to the name. Limits and scales must be final.
    """
    handles, labels = ax.get_legend_handles_labels()
    lines = [handle[0] if isinstance(handle, tuple) else handle for handle in handles]
    ends = [(line.get_xdata()[-1], line.get_ydata()[-1]) for line in lines]
    ax.autoscale_view()
    heights = ax.transAxes.inverted().transform(ax.transData.transform(ends))[:, 1]
    heights = spread_out(heights, NAME_HEIGHT)
    for line, label, end, height in zip(lines, labels, ends, heights, strict=True):
        leader = {"arrowstyle": "-", "color": "0.7", "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3}
        leader["relpos"] = (0, 0.5)  # from the left of the name
        ax.annotate(
            label,
            end,
            (1.04, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=line.get_color(),
            weight="bold" if line.get_linewidth() > 2 else "normal",
            arrowprops=leader,
            annotation_clip=False,
        )


def spread_out(heights: Sequence[float], gap: float) -> np.ndarray:
    """Heights in their order, moved apart to the gap at least, none above 1 if all fit."""
    order = np.argsort(heights, kind="stable")
    placed = np.array(heights, float)[order]
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    placed[-1:] = np.minimum(placed[-1:], 1)
    for i in range(len(placed) - 2, -1, -1):
        placed[i] = min(placed[i], placed[i + 1] - gap)
    out = np.empty_like(placed)
    out[order] = placed
    return out


def save(figure: Figure, path: str | Path) -> None:
    """Writes a PNG that appears whole or not at all; makes its directory."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    with whole.writing(path) as f:
        figure.savefig(f, format="png", dpi=DPI)
