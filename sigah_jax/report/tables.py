"""The table of a run in the terminal, and the names of methods.

Not responsible for computing metrics, for choosing columns, or for writing the text anywhere.
"""

import math
from collections.abc import Mapping, Sequence

# what a run shows: both definitions of relevance, the head of the ranking, its finest neighbours
COLUMNS = ("map", "map@1000", "area_rp", "precision@100", "recall@100", "1-recall@10")
NAMES = {
    "sigah": "SiGAH",
    "sigah_paper": "SiGAH, preset=paper",
    "sigah_one_head": "SiGAH, one hash function",
    "sigah_no_adversary": "without adversary",
    "sigah_linear_decoder": "linear decoder",
    "sigah_mlp_decoder": "MLP decoder",
    "sigah_no_ordinal": "without ordinal loss on codes",
    "sigah_no_ordinal_synthetic": "without ordinal loss on x̂",
    "sigah_no_reconstruction": "without reconstruction",
    "sigah_no_quantisation": "without quantisation",
    "sigah_random_start": "start at a random rotation",
    "sigah_linear_hash": "linear hash network",
    "sigah_steps_1": "T = 1",
    "sigah_steps_10": "T = 10",
    "sigah_atoms_128": "M = 128",
    "sigah_atoms_1024": "M = 1,024",
    "sigah_one_rate": "one rate for encoder and decoder",
    "sign": "sign bits",
    "lsh": "LSH",
    "pca_sign": "PCA-sign",
    "pca_rr": "PCA-RR",
    "sh": "SH",
    "itq": "ITQ",
    "isohash": "IsoHash",
    "sph": "SpH",
    "sph_own": "SpH, spherical distance",
    "kmh": "KMH",
    "agh1": "AGH, 1 layer",
    "agh2": "AGH, 2 layers",
    "sgh": "SGH (graph)",
    "och": "OCH",
    "sgen": "SGH (generative)",
    "spreading": "spreading vectors",
    "bae": "binary auto-encoder",
}
MISSING = "n/a"


def method_table(
    metrics: Mapping[str, Mapping[str, float]], columns: Sequence[str], bits: int
) -> str:
    """Aligned plain text, one row a method in the order given, `*` after the best of a column.

    Args:
        metrics: by method ("sigah", "itq", …) and metric key ("map", "recall@100", …), as
            in results.json. A value that is absent, None or NaN is shown as n/a.
        columns: metric keys to show; more is better in all of them.
        bits: code length, the title of the first column.

    Returns:
        Lines joined by newlines, none at the end. Values have three decimals, and all that
        agree in these are best together. A column with one value alone has no best.
    """
    # Every cell but the first ends in its mark or a space, so that decimal points line up.
    table = [[f"{bits} bits", *(f"{column} " for column in columns)]]
    for name, cells in _rows(metrics, columns):
        table.append([name, *(text + ("*" if best else " ") for text, best in cells)])
    first, *widths = (max(map(len, cells)) for cells in zip(*table, strict=True))
    lines = []
    for name, *cells in table:
        numbers = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        lines.append("  ".join([name.ljust(first), *numbers]).rstrip())
    if any("*" in line for line in lines):
        lines.append("* best of the column")
    return "\n".join(lines)


def display_name(method: str) -> str:
    """The name that readers know a method by; a method of another name keeps it."""
    return NAMES.get(method, method)


def _rows(
    metrics: Mapping[str, Mapping[str, float]], columns: Sequence[str]
) -> list[tuple[str, list[tuple[str, bool]]]]:
    """For each method its name, and for each column the text and whether it is the best."""
    text = {m: [_text(values.get(c)) for c in columns] for m, values in metrics.items()}
    best = []
    for i in range(len(columns)):
        shown = [row[i] for row in text.values() if row[i] != MISSING]
        best.append(max(shown, key=float) if len(shown) > 1 else None)
    return [
        (display_name(m), [(t, t == b) for t, b in zip(row, best, strict=True)])
        for m, row in text.items()
    ]


def _text(value: float | None) -> str:
    return MISSING if value is None or math.isnan(value) else f"{value:.3f}"
