"""What codes of one set of vectors lose and save: a table, a plot and a sentence.

Not responsible for measuring: `training.measurements`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sigah_jax.report import comparison_plots
from sigah_jax.report.cells import Cell
from sigah_jax.report.tables import MISSING, short_name

# what a store must be able to search -> its name in the table
GROUPS = {
    "bits": "bits, by Hamming distance",
    "codes": "codes, by real-valued queries",
    "vectors": "vectors",
}
ALWAYS = ("sigah", "sigah_stages")  # have a line in the plot whatever the others reach


class Found(NamedTuple):
    """One way of searching, all queries together."""

    recall: float  # share of the k found that are as near as the k-th true neighbour
    milliseconds: float  # a query, wall time, its encoding included


class Row(NamedTuple):
    """One method at one code length."""

    group: str  # of `GROUPS`
    method: str
    code_bytes: int  # a vector, all that is stored of it
    fit_secs: float | None  # None: not measured, a training was resumed
    encode_secs: float  # of the base
    found: Mapping[str, Found]  # "alone", "reranked"; empty: there is no such code
    why: str = ""  # there is no such code


def plain(row: Row) -> dict:
    """A row as JSON has it."""
    found = {way: value._asdict() for way, value in row.found.items()}
    return row._asdict() | {"found": found}


def table(rows: Sequence[Row], k: int, candidates: int) -> str:
    """Aligned Markdown, less than 120 columns wide: recall@k, time and bytes, by group."""
    lines = [["", "bytes", f"recall@{k}", "re-ranked", "ms a query", "s to train", "s to encode"]]
    for group, name in GROUPS.items():
        lines.append([f"**{name}**", *[""] * 6])
        lines += [_line(row) for row in rows if row.group == group]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    padded = []
    for first, *others in lines:
        numbers = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        padded.append([first.ljust(widths[0]), *numbers])
    notes = [
        f"recall@{k}: of the code alone. Re-ranked: the {candidates:,} nearest by the code, "
        "ordered by the vectors, which must be at hand; ms a query is the time of this search."
    ]
    for row in rows:
        if row.why:  # after the method's name, before what to do
            reason = row.why.partition(": ")[2].partition("; ")[0]
            notes.append(f"{MISSING}: {short_name(row.method)}, {reason}.")
    text = "\n".join(f"| {' | '.join(line)} |" for line in padded)
    return "\n\n".join([text, *notes])


def advice(rows: Sequence[Row], k: int, candidates: int, target: float) -> str:
    """The smallest code of any method that reaches the target, and the smallest of bits.

    Others of the same sizes that reach it are named after them, since they may take less time to
    train. Where no code does, the best there is.
    """
    vectors = next(row for row in rows if row.group == "vectors")
    codes = [row for row in rows if row.group != "vectors" and row.found]
    bits = [row for row in codes if row.group == "bits"]
    first, second = _smallest(codes, target), _smallest(bits, target)
    goal = f"recall@{k} of at least {target:g} after re-ranking {candidates:,} candidates"
    more = "try more bits or a larger --oversample"
    if first is None:
        text = f"No code here has {goal}: the best is {_named(_best(codes))}"
        if _best(codes) is not _best(bits):
            text += f", and the best that a store of bits can search is {_named(_best(bits))}"
        return f"{text}; {more}."
    saved = f"in place of {vectors.code_bytes:,}"
    text = f"For {goal} the smallest code here is {_named(first)} {saved}"
    too = _as_small(codes, first, target)
    if second is first:
        text = f"{text}, and a store of bits can search it."
    elif second is None:
        text += "; no code that a store of bits can search has it, the best is "
        text += f"{_named(_best(bits))}: {more}."
    else:
        text += f"; the smallest that a store of bits can search is {_named(second)}."
        too += [row for row in _as_small(bits, second, target) if row not in too]
    named = [
        f"{short_name(row.method)} of {row.code_bytes:,} bytes ({row.found['reranked'].recall:.3f})"
        for row in sorted(too, key=_size_and_recall)
        if row is not second
    ]
    return f"{text} Others as small reach it too: {'; '.join(named)}." if named else text


def plot(rows: Sequence[Row], k: int, candidates: int, path: Path) -> None:
    """Recall@k over bytes a vector, of the code alone and re-ranked: a line for each method."""
    panels = {"alone": "code alone", "reranked": f"re-ranked, {candidates:,} candidates"}
    metric, codes = f"recall@{k}", [row for row in rows if row.group != "vectors"]
    points = [
        Cell(panel, row.method, 8 * row.code_bytes, 0, {metric: row.found[way].recall}, [], "")
        for way, panel in panels.items()
        for row in codes
        if row.found
    ]
    methods = list(dict.fromkeys(row.method for row in codes))
    sizes = sorted({point.bits for point in points})
    comparison_plots.over_length(points, metric, methods, sizes, path, "bytes", ALWAYS)


def _line(row: Row) -> list[str]:
    """The cells of a row as text."""
    start = [short_name(row.method), f"{row.code_bytes:,}"]
    if not row.found:
        return [*start, *[MISSING] * 5]
    alone, reranked = (row.found.get(way) for way in ("alone", "reranked"))
    if row.group == "vectors":
        return [*start, f"{alone.recall:.3f}", "", f"{alone.milliseconds:.2f}", "", ""]
    fit = "" if row.fit_secs is None else f"{row.fit_secs:.1f}"
    recalls = f"{alone.recall:.3f}", f"{reranked.recall:.3f}"
    return [*start, *recalls, f"{reranked.milliseconds:.2f}", fit, f"{row.encode_secs:.1f}"]


def _smallest(rows: Sequence[Row], target: float) -> Row | None:
    """The row of fewest bytes that reaches the target; of equal ones that of greatest recall."""
    enough = [row for row in rows if _reaches(row, target)]
    return min(enough, key=_size_and_recall, default=None)


def _as_small(rows: Sequence[Row], best: Row, target: float) -> list[Row]:
    """The other rows of as many bytes that reach the target."""
    same = [row for row in rows if row is not best and row.code_bytes == best.code_bytes]
    return [row for row in same if _reaches(row, target)]


def _size_and_recall(row: Row) -> tuple[int, float]:
    """Orders rows by rising size, those of one size by falling recall."""
    return row.code_bytes, -row.found["reranked"].recall


def _reaches(row: Row, target: float) -> bool:
    """Whether the recall reaches the target, as the table shows it."""
    return round(row.found["reranked"].recall, 3) >= target


def _best(rows: Sequence[Row]) -> Row:
    return max(rows, key=lambda row: row.found["reranked"].recall)


def _named(row: Row) -> str:
    """`RQ of 8 bytes (0.955; 0.484 without re-ranking)`."""
    recalls = f"{row.found['reranked'].recall:.3f}; {row.found['alone'].recall:.3f}"
    return f"{short_name(row.method)} of {row.code_bytes:,} bytes ({recalls} without re-ranking)"
