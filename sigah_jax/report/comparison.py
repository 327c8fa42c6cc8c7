"""Tables that compare methods over data sets and code lengths, as Markdown and LaTeX.

A cell is the mean over seeds, with the standard deviation where there are several; the best mean
of a column is bold, the second underlined, by what is printed. A cell that nobody ran says so.

Not responsible for reading cells (`cells`) nor for writing files.
"""

import itertools
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence

from sigah_jax.report.cells import COSTS, Cell
from sigah_jax.report.tables import METRIC_NAMES, MISSING, display_name, ranks

NOT_RUN = "not run"

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
    """`0.731 ± 0.002`; without the spread for one value; words stay words."""
    if isinstance(values, str):
        return values
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ± {spread(values):.3f}" if len(values) > 1 else mean


def spread(values: list[float]) -> float:
    """The standard deviation, 0 for one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def grid(
    title: str,
    columns: Sequence[str],
    rows: Mapping[str, Sequence[list[float] | str]],
    metrics: Sequence[str] = (),
) -> Grid:
    """A table before its style, a row a method; no best of a column of `COSTS`.

    Args:
        metrics: of the columns, if not all are of shares.
    """
    texts = [[text_of(v) for v in values] for values in rows.values()]
    metrics = metrics or columns
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
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fill(text: str, table: Callable[[str], str]) -> str:
    """A Markdown text with each of its generated tables written anew by `table(NAME)`.

    A table stands between `<!-- table: NAME -->` and `<!-- end -->`; nobody edits it by hand.
    """
    marks = re.compile(r"(<!-- table: ([^\n]+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return marks.sub(lambda m: f"{m[1]}{table(m[2])}\n{m[3]}", text)


def latex(header: list[str], body: list[list[tuple[str, int]]], caption: str) -> str:
    """A grid as a LaTeX table; needs no package beyond the standard ones."""
    style = {0: "{}", 1: "\\textbf{{{}}}", 2: "\\underline{{{}}}"}

    def line(cells: Sequence[tuple[str, int]]) -> str:
        texts = (style[rank].format(escape(text)) for text, rank in cells)
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


def over_bits(
    cells: Sequence[Cell], dataset: str, metric: str, methods: Sequence[str], bits: Sequence[int]
) -> Grid:
    """One metric of one data set: a row a method, a column a code length."""
    rows = {m: [values_of(cells, dataset, m, k, metric) for k in bits] for m in methods}
    return grid(f"{dataset}, {metric}", [f"{k} bits" for k in bits], rows)


def over_bytes(
    cells: Sequence[Cell], dataset: str, metric: str, methods: Sequence[str], bits: Sequence[int]
) -> Grid:
    """The same with columns that say bytes."""
    rows = {m: [values_of(cells, dataset, m, k, metric) for k in bits] for m in methods}
    title = f"{dataset}, {METRIC_NAMES.get(metric, metric)}"
    return grid(title, [f"{k // 8} bytes" for k in bits], rows, [metric] * len(bits))


def over_metrics(
    cells: Sequence[Cell], dataset: str, bits: int, methods: Sequence[str], metrics: Sequence[str]
) -> Grid:
    """One data set at one code length: a row a method, a column a metric."""
    rows = {m: [values_of(cells, dataset, m, bits, x) for x in metrics] for m in methods}
    names = [METRIC_NAMES.get(x, x) for x in metrics]
    return grid(f"{dataset}, {bits} bits", names, rows, metrics)


def against_best(
    cells: Sequence[Cell],
    method: str,
    baselines: Sequence[str],
    bits: Sequence[int],
    metrics: Sequence[str],
) -> Grid:
    """A row for each data set and code length that `method` was run at: it and its rivals.

    A cell is `method / best mean of the baselines, its name`, bold where the first is not ahead
    by more than two standard deviations, see `clearly_ahead`. The last column is the share of
    ITQ's miss that is recovered, (map@1000 - ITQ's)/(1 - ITQ's), in per cent; ours.
    """
    body = []
    for dataset, k in itertools.product(sorted({c.dataset for c in cells}), bits):
        if isinstance(values_of(cells, dataset, method, k, metrics[0]), str):
            continue
        row = [(f"{dataset}, {k} bits", 0)]
        for metric in metrics:
            own = values_of(cells, dataset, method, k, metric)
            rivals = {b: values_of(cells, dataset, b, k, metric) for b in baselines}
            means = {b: statistics.mean(v) for b, v in rivals.items() if not isinstance(v, str)}
            best = max(means, key=means.get, default=None)
            rival = f"{means[best]:.3f} {display_name(best)}" if best else NOT_RUN
            unclear = best and not clearly_ahead(own, rivals[best])
            row.append((f"{text_of(own)} / {rival}", int(bool(unclear))))
        share = values_of(cells, dataset, "itq", k, "map@1000")
        if not isinstance(share, str):
            itq = statistics.mean(share)
            own = statistics.mean(values_of(cells, dataset, method, k, "map@1000"))
            share = f"{100 * (own - itq) / (1 - itq):.0f} %"
        body.append([*row, (share, 0)])
    return ["", *metrics, "of ITQ's miss"], body


def clearly_ahead(own: list[float], rival: list[float]) -> bool:
    """Whether the mean of `own` is greater by more than two standard deviations over seeds.

    The deviation is that of the difference of two runs, √(s² + s'²); one value has none.
    """
    lead = statistics.mean(own) - statistics.mean(rival)
    return lead > 2 * math.hypot(spread(own), spread(rival))
