"""What binary codes of one set of vectors lose and save: a table, a plot and a sentence.

Shapes: n base rows, k neighbours.

Not responsible for measuring: `measure`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes

from sigah_jax.report import comparison, plots, tables
from sigah_jax.report.tables import display_name

# way of searching -> its name in the table
WAYS = {
    "hamming": "Hamming",
    "both": "both codes",
    "projection": "projections",
    "synthetic": "synthetic features",
    "reranked": "re-ranked",
}
TIMED = ("hamming", "synthetic", "reranked")


class Found(NamedTuple):
    """One way of searching, all queries together."""

    recall: float  # share of the k found that are as near as the k-th true neighbour
    milliseconds: float  # a query, wall time, its encoding included


class Row(NamedTuple):
    """One method at one code length; "exact" is the vectors themselves."""

    method: str
    bits: int
    code_bytes: int  # a vector, in memory
    fit_secs: float | None  # None: not measured, a training went on
    rows_per_sec: float  # encoded
    found: Mapping[str, Found]  # by way


def plain(row: Row) -> dict:
    """A row as JSON has it."""
    found = {way: value._asdict() for way, value in row.found.items()}
    return row._asdict() | {"found": found}


def table(rows: Sequence[Row], k: int, candidates: int) -> str:
    """Markdown: recall@k by each way, milliseconds a query, memory, speed of fit and encoding."""
    header = ["", "bits", "bytes a vector", *(f"recall@{k}, {name}" for name in WAYS.values())]
    header += [f"ms a query, {WAYS[way]}" for way in TIMED] + ["fit, s", "rows/s"]
    recalls = []  # a column a way
    for way in WAYS:
        texts = [f"{row.found[way].recall:.3f}" if way in row.found else "" for row in rows]
        of_codes = ["" if row.method == "exact" else t for row, t in zip(rows, texts, strict=True)]
        best = [int(rank == 1) for rank in tables.ranks(of_codes)]
        recalls.append(list(zip(texts, best, strict=True)))
    body = []
    for row, *found in zip(rows, *recalls, strict=True):
        exact = row.method == "exact"
        name, bits = ("vectors", "") if exact else (display_name(row.method), row.bits)
        times = [row.found.get(way) for way in TIMED]
        rest = [f"{value.milliseconds:.2f}" if value else "" for value in times]
        rest += ["" if exact or row.fit_secs is None else f"{row.fit_secs:.1f}"]
        rest += ["" if exact else f"{row.rows_per_sec:,.0f}"]
        first = [(name, 0), (str(bits), 0), (f"{row.code_bytes:,}", 0)]
        body.append([*first, *found, *((text, 0) for text in rest)])
    note = (
        f"Re-ranked: the {candidates:,} nearest by codes, ordered by the vectors, which must be at "
        "hand. Synthetic features rank SiGAH's codes then, as they do alone, and Hamming distance "
        "those of a baseline."
    )
    return f"{comparison.markdown(header, body)}\n\n{note}"


def advice(rows: Sequence[Row], k: int, target: float) -> str:
    """One sentence: the smallest code that reaches the target, or the best there is."""
    vectors = next(row for row in rows if row.method == "exact")
    codes = [row for row in rows if row.method != "exact"]
    enough = [row for row in codes if row.found["reranked"].recall >= target]
    if not enough:
        row = max(codes, key=lambda row: row.found["reranked"].recall)
        return (
            f"No code here reaches recall@{k} {target:g} after re-ranking: the best is "
            f"{_name(row)} ({row.found['reranked'].recall:.3f}); try more bits or a larger "
            "--oversample."
        )
    row = min(enough, key=lambda row: (row.code_bytes, -row.found["reranked"].recall))
    return (
        f"Take {_name(row)}: {row.code_bytes:,} bytes a vector in place of "
        f"{vectors.code_bytes:,}, the smallest code here whose re-ranked recall@{k} is at least "
        f"{target:g} ({row.found['reranked'].recall:.3f}; {row.found['hamming'].recall:.3f} "
        "without re-ranking)."
    )


def plot(rows: Sequence[Row], k: int, path: Path) -> None:
    """Recall@k over bytes a vector: a panel a way of searching, a line a method."""
    codes = [row for row in rows if row.method != "exact"]
    methods = list(dict.fromkeys(row.method for row in codes))
    sizes = sorted({row.code_bytes for row in codes})

    def draw(ax: Axes, way: str) -> None:
        for number, method in enumerate(methods):
            found = [row for row in codes if row.method == method and way in row.found]
            points = sorted((row.code_bytes, row.found[way].recall) for row in found)
            if points:
                style = plots.look(number, method)
                ax.plot(*zip(*points, strict=True), label=display_name(method), **style)
        ax.set(xscale="log", xlabel="bytes a vector", title=WAYS[way], ylim=(0, 1.02))
        ax.set_xticks(sizes, [str(size) for size in sizes])
        ax.minorticks_off()
        ax.set_ylabel(f"recall@{k}")

    plots.panels(list(WAYS), draw, path, columns=2)


def _name(row: Row) -> str:
    return f"{display_name(row.method)} with {row.bits} bits"
