"""Tables that compare methods over data sets and code lengths, as Markdown and LaTeX.

A cell is the mean over seeds, with the standard deviation where there are several; the best mean
of a column is bold, the second underlined, by what is printed. A cell that nobody ran says so.

Not responsible for reading cells (`collect`) nor for writing files.
"""

import math
import statistics
from collections.abc import Sequence

from sigah_jax.report.cells import Cell
from sigah_jax.report.tables import display_name

NOT_RUN, NOT_APPLICABLE, NOT_AVAILABLE = "not run", "n/a", "not available"


def values_of(
    cells: Sequence[Cell], dataset: str, method: str, bits: int, metric: str
) -> list[float] | str:
    """The values of all seeds in their order, or the word that stands for them."""
    found = [c for c in cells if (c.dataset, c.method, c.bits) == (dataset, method, bits)]
    if not found:
        return NOT_RUN
    values = [c.metrics[metric] for c in sorted(found, key=lambda c: c.seed) if c.metrics]
    return values or NOT_APPLICABLE


def text_of(values: list[float] | str) -> str:
    """`0.731 ± 0.002`; without the spread for one value; words stay words."""
    if isinstance(values, str):
        return values
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def ranks(column: Sequence[list[float] | str]) -> list[int]:
    """1 for the best printed mean of a column, 2 for the second, 0 for all others.

    Equal printed means share a rank. A column with one value has no best.
    """
    means = [None if isinstance(v, str) else f"{statistics.mean(v):.3f}" for v in column]
    different = sorted({m for m in means if m}, key=float, reverse=True)
    if len([m for m in means if m]) < 2:
        return [0] * len(means)
    places = {m: place for place, m in enumerate(different[:2], 1)}
    return [places.get(m, 0) for m in means]


def grid(
    title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[list[float] | str]]]
) -> tuple[list[str], list[list[tuple[str, int]]]]:
    """A table before its style: the header, and for each row the name and (text, rank) cells."""
    marked = zip(*(ranks(column) for column in zip(*(values for _, values in rows), strict=True)),
                 strict=True)  # fmt: skip
    body = [
        [(display_name(name), 0), *zip(map(text_of, values), row_ranks, strict=True)]
        for (name, values), row_ranks in zip(rows, marked, strict=True)
    ]
    return [title, *columns], body


def markdown(header: list[str], body: list[list[tuple[str, int]]]) -> str:
    """A grid in GitHub's Markdown."""
    style = {0: "{}", 1: "**{}**", 2: "<u>{}</u>"}
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    lines += [[style[rank].format(text) for text, rank in row] for row in body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


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
) -> tuple[list[str], list[list[tuple[str, int]]]]:
    """One metric of one data set: a row a method, a column a code length, and the paper's."""
    rows = [(m, [values_of(cells, dataset, m, k, metric) for k in bits]) for m in methods]
    header, body = grid(f"{dataset}, {metric}", [f"{k} bits" for k in bits], rows)
    paper = [NOT_AVAILABLE if method.startswith("sigah") else "" for method in methods]
    return [*header, "paper"], [[*row, (p, 0)] for row, p in zip(body, paper, strict=True)]


def over_metrics(
    cells: Sequence[Cell], dataset: str, bits: int, methods: Sequence[str], metrics: Sequence[str]
) -> tuple[list[str], list[list[tuple[str, int]]]]:
    """One data set at one code length: a row a method, a column a metric."""
    rows = [
        (m, [values_of(cells, dataset, m, bits, metric) for metric in metrics]) for m in methods
    ]
    return grid(f"{dataset}, {bits} bits", metrics, rows)


def against_best(
    cells: Sequence[Cell],
    method: str,
    baselines: Sequence[str],
    bits: Sequence[int],
    metrics: Sequence[str],
) -> tuple[list[str], list[list[tuple[str, int]]]]:
    """A row for each data set and code length that `method` was run at: it and its rivals.

    A cell is `method / best mean of the baselines, its name`, bold where the first is not ahead
    by more than two standard deviations, see `clearly_ahead`. The last column is the share of
    ITQ's miss that is recovered, (map@1000 - ITQ's)/(1 - ITQ's); ours.
    """
    body = []
    for dataset in sorted({c.dataset for c in cells}):
        for k in bits:
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
            body.append([*row, (_recovered(cells, dataset, method, k), 0)])
    return ["", *metrics, "of ITQ's miss"], body


def clearly_ahead(own: list[float], rival: list[float]) -> bool:
    """Whether the mean of `own` is greater by more than two standard deviations over seeds.

    The deviation is that of the difference of two runs, √(s² + s'²); one value has none.
    """
    deviations = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in (own, rival)]
    return statistics.mean(own) - statistics.mean(rival) > 2 * math.hypot(*deviations)


def _recovered(cells: Sequence[Cell], dataset: str, method: str, bits: int) -> str:
    """The share of ITQ's miss that `method` recovers, in per cent."""
    itq = values_of(cells, dataset, "itq", bits, "map@1000")
    if isinstance(itq, str):
        return itq
    own, theirs = (
        statistics.mean(v) for v in (values_of(cells, dataset, method, bits, "map@1000"), itq)
    )
    return f"{100 * (own - theirs) / (1 - theirs):.0f} %"
