"""Tables that compare methods over data sets and code lengths, as Markdown and LaTeX.

A cell is the mean over seeds, with the standard deviation where there are several; the best mean
of a column is bold, the second underlined, by what is printed. A cell that was not run says so.

Not responsible for reading cells (`cells`) nor for writing files.
"""

import itertools
import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from sigah_jax.report.cells import COSTS, Cell, datasets
from sigah_jax.report.tables import METRIC_NAMES, MISSING, display_name, ranks, short_name

NOT_RUN = "not run"
UNITS = {"bits": 1, "bytes": 8}  # in which the length of a code is said: bits in one

# a table before its style: the header, and for each row its cells, each a text and its rank
Grid = tuple[list[str], list[list[tuple[str, int]]]]


def values_of(
    cells: Sequence[Cell], dataset: str, method: str, bits: int, metric: str
) -> list[float] | str:
    """The values of all seeds in their order, or the word that stands for them."""
    found = [c for c in cells if (c.dataset, c.method, c.bits) == (dataset, method, bits)]
    if not found:
        return NOT_RUN
    held = [c.metrics for c in sorted(found, key=lambda c: c.seed) if c.metrics]
    values = [metrics[metric] for metrics in held if metric in metrics]
    return values or MISSING


def text_of(values: list[float] | str) -> str:
    """`.731 ± .002`; without the spread for one value; words stay words."""
    if isinstance(values, str):
        return values
    mean = number(statistics.mean(values))
    return f"{mean} ± {number(spread(values))}" if len(values) > 1 else mean


def number(x: float) -> str:
    """Three decimals, and no zero before the point: wide tables are hard to read."""
    return f"{x:.3f}".removeprefix("0")


def spread(values: list[float]) -> float:
    """The standard deviation, 0 for one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def grid(
    title: str,
    columns: Sequence[str],
    rows: Mapping[str, Sequence[list[float] | str]],
    metrics: Sequence[str],
) -> Grid:
    """A table before its style, a row for each method; columns of `COSTS` have no best.

    Args:
        metrics: those of the columns.
    """
    texts = [[text_of(v) for v in values] for values in rows.values()]
    marked = [
        [0] * len(texts) if metric in COSTS else ranks(column)
        for metric, column in zip(metrics, zip(*texts, strict=True), strict=True)
    ]
    marked = zip(*marked, strict=True)
    body = [
        [(display_name(method), 0), *zip(row, marks, strict=True)]
        for method, row, marks in zip(rows, texts, marked, strict=True)
    ]
    return [title, *columns], body


def markdown(header: list[str], body: list[list[tuple[str, int]]]) -> str:
    """A grid in GitHub's Markdown."""
    style = {0: "{}", 1: "**{}**", 2: "<u>{}</u>"}
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    lines += [[style[rank].format(text) for text, rank in row] for row in body]
    rows = [" | ".join(line).replace("\n", "<br>") for line in lines]
    # no line may break within a number and its spread, or a pair
    return "\n".join(re.sub(r" ([±/]) ", "\u00a0\\1\u00a0", f"| {row} |") for row in rows)


def fill(text: str, write: Callable[[str, str], str]) -> str:
    """A Markdown text with each of its generated parts written anew by `write(KIND, NAME)`.

    A table stands between the lines `<!-- table: NAME -->` and `<!-- end -->`, a claim within a
    sentence between `<!-- count: NAME -->` and `<!-- end -->`; they are not edited by hand.
    """
    marks = re.compile(r"(<!-- (table|count): ([^\n]+?) -->)(\n?).*?(<!-- end -->)", re.DOTALL)
    return marks.sub(lambda m: f"{m[1]}{m[4]}{write(m[2], m[3])}{m[4]}{m[5]}", text)


def latex(header: list[str], body: list[list[tuple[str, int]]], caption: str) -> str:
    """A grid as a LaTeX table; needs no package beyond the standard ones."""
    style = {0: "{}", 1: "\\textbf{{{}}}", 2: "\\underline{{{}}}"}

    def line(cells: Sequence[tuple[str, int]]) -> str:
        texts = (style[rank].format(escape(text.replace("\n", " "))) for text, rank in cells)
        return "    " + " & ".join(texts) + r" \\"

    return "\n".join(
        [
            r"\begin{table}",
            rf"  \caption{{{escape(caption)}}}",
            rf"  \begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"    \hline",
            line([(text, 0) for text in header]),
            r"    \hline",
            *(line(row) for row in body),
            r"    \hline",
            r"  \end{tabular}",
            r"\end{table}",
        ]
    )


def escape(text: str) -> str:
    """Text for LaTeX."""
    for character in "&%#_":
        text = text.replace(character, "\\" + character)
    return text.replace("±", r"$\pm$").replace("x̂", r"$\hat{x}$")


def over_length(
    cells: Sequence[Cell],
    dataset: str,
    metric: str,
    methods: Sequence[str],
    bits: Sequence[int],
    unit: str,  # of UNITS
) -> Grid:
    """One metric of one data set: a row for each method, a column for each code length."""
    rows = {m: [values_of(cells, dataset, m, k, metric) for k in bits] for m in methods}
    columns = [f"{k // UNITS[unit]} {unit}" for k in bits]
    title = f"{dataset}, {METRIC_NAMES.get(metric, metric)}"
    return grid(title, columns, rows, [metric] * len(bits))


def over_metrics(
    cells: Sequence[Cell], dataset: str, bits: int, methods: Sequence[str], metrics: Sequence[str]
) -> Grid:
    """One data set at one code length: a row for each method, a column for each metric."""
    rows = {m: [values_of(cells, dataset, m, bits, x) for x in metrics] for m in methods}
    names = [METRIC_NAMES.get(x, x) for x in metrics]
    return grid(f"{dataset}, {bits} bits", names, rows, metrics)


def against_best(
    cells: Sequence[Cell],
    method: str,
    rivals: Sequence[str],
    bits: Sequence[int],
    metrics: Sequence[str],
) -> Grid:
    """A row for each data set and code length that `method` was run at: it and its rivals.

    A cell is `method / best mean of the rivals` and below it the name of that one, bold where the
    first is not ahead by more than two standard deviations, see `clearly_ahead`. The last column is
    the share of ITQ's miss that is recovered, (map@1000 - ITQ's)/(1 - ITQ's), in per cent; ours.
    """
    body = []
    for dataset, k in itertools.product(datasets(cells), bits):
        if isinstance(values_of(cells, dataset, method, k, metrics[0]), str):
            continue
        row = [(f"{dataset} / {k}", 0)]
        for metric in metrics:
            own = values_of(cells, dataset, method, k, metric)
            best, values = best_of(cells, dataset, rivals, k, metric)
            rival = f"{number(statistics.mean(values))}\n{short_name(best)}" if best else NOT_RUN
            unclear = best and not clearly_ahead(own, values)
            row.append((f"{number(statistics.mean(own))} / {rival}", int(bool(unclear))))
        share = values_of(cells, dataset, "itq", k, "map@1000")
        if not isinstance(share, str):
            itq = statistics.mean(share)
            own = statistics.mean(values_of(cells, dataset, method, k, "map@1000"))
            share = f"{100 * (own - itq) / (1 - itq):.0f} %"
        body.append([*row, (share, 0)])
    return ["set / bits", *metrics, "of ITQ's miss"], body


def best_of(
    cells: Sequence[Cell], dataset: str, methods: Sequence[str], bits: int, metric: str
) -> tuple[str, list[float]]:
    """The method of the greatest mean, the first of equals, and its values; empty if none ran."""
    held = {m: values_of(cells, dataset, m, bits, metric) for m in methods}
    held = {m: values for m, values in held.items() if not isinstance(values, str)}
    best = max(held, key=lambda m: statistics.mean(held[m]), default="")
    return best, held.get(best, [])


def clearly_ahead(own: list[float], rival: list[float]) -> bool:
    """Whether the mean of `own` is greater by more than two standard deviations over seeds.

    The deviation is that of the difference of two runs, √(s² + s'²); one value has none.
    """
    lead = statistics.mean(own) - statistics.mean(rival)
    return lead > 2 * math.hypot(spread(own), spread(rival))


class Count(NamedTuple):
    """In how many cells a method stands where beside the best of its rivals."""

    cells: int
    ahead: int  # of a greater mean
    leads: int  # ahead by more than two standard deviations of the difference
    trails: int  # behind by more than that
    alone: int  # one run on each side, so that any difference is more than that


def count(
    cells: Sequence[Cell],
    method: str,
    rivals: Sequence[str],
    bits: Sequence[int],
    metrics: Sequence[str],
) -> Count:
    """Counts the cells, a data set, length and metric each, that both sides were run at."""
    pairs = list(_pairs(cells, method, rivals, bits, metrics))
    return Count(
        len(pairs),
        sum(statistics.mean(own) > statistics.mean(rival) for own, rival in pairs),
        sum(clearly_ahead(own, rival) for own, rival in pairs),
        sum(clearly_ahead(rival, own) for own, rival in pairs),
        sum(len(own) == len(rival) == 1 for own, rival in pairs),
    )


def counts(
    cells: Sequence[Cell],
    columns: Mapping[str, tuple[str, str]],
    rivals: Mapping[str, Sequence[str]],
    bits: Sequence[int],
) -> Grid:
    """A row for each group of rivals, a column for each method and metric, both by their names.

    A number is `leads / trails / cells` of `count`, against the best of the group.
    """
    body = []
    for name, group in rivals.items():
        row = [count(cells, method, group, bits, [metric]) for method, metric in columns.values()]
        body.append([(name, 0), *((f"{c.leads} / {c.trails} / {c.cells}", 0) for c in row)])
    return ["leads / trails / cells, beside", *columns], body


def _pairs(
    cells: Sequence[Cell],
    method: str,
    rivals: Sequence[str],
    bits: Sequence[int],
    metrics: Sequence[str],
) -> Iterator[tuple[list[float], list[float]]]:
    for dataset in datasets(cells):
        for k, metric in itertools.product(bits, metrics):
            own = values_of(cells, dataset, method, k, metric)
            _, rival = best_of(cells, dataset, rivals, k, metric)
            if rival and not isinstance(own, str):
                yield own, rival
