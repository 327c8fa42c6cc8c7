"""The table of a run in the terminal, and the names of methods.

Not responsible for computing metrics, for choosing columns, or for writing the text anywhere.
"""

import math
from collections.abc import Mapping, Sequence

# what a run shows: both definitions of relevance, the head of the ranking, its finest neighbours
COLUMNS = ("map", "map@1000", "area_rp", "precision@100", "recall@100", "1-recall@10")
NAMES = {
    "sigah": "SiGAH",
    "sigah_both": "SiGAH, both codes of a query",
    "sigah_projection": "SiGAH, real queries, projections",
    "sigah_synthetic": "SiGAH, real queries, synthetic features",
    "sigah_stages": "SiGAH, real queries, in stages",
    "sigah_plain": "SiGAH, codes not refined",
    "sigah_paper": "SiGAH, preset=paper",
    "sigah_one_head": "SiGAH, one hash function",
    "sigah_no_adversary": "without adversary",
    "sigah_linear_decoder": "linear decoder",
    "sigah_mlp_decoder": "MLP decoder",
    "sigah_no_ordinal": "without ordinal loss on codes",
    "sigah_no_ordinal_synthetic": "without ordinal loss on ẑ",
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
    "opq": "OPQ, 8 columns a byte",
    "opq_all": "OPQ, all columns",
    "rq": "residual quantiser",
    "rabitq": "RaBitQ",
    "sqtqmse1": "TurboQuant, 1 bit",
    "sqtqmse2": "TurboQuant, 2 bits",
    "sq8": "int8 after PCA",
}
# where there is little room, beside a line
SHORT_NAMES = {
    "sigah_both": "SiGAH, both codes",
    "sigah_projection": "SiGAH, projections",
    "sigah_synthetic": "SiGAH, synthetic",
    "sigah_stages": "SiGAH, in stages",
    "sigah_plain": "SiGAH, not refined",
    "sph_own": "SpH, spherical",
    "sgen": "SGH, generative",
    "sgh": "SGH, graph",
    "bae": "auto-encoder",
    "opq": "OPQ",
    "rq": "RQ",
}
METRIC_NAMES = {
    "reranked": "recall@10 re-ranked",
    "ms_per_query": "ms a query",
    "encode_secs": "s to encode",
}
MISSING = "n/a"


def method_table(
    metrics: Mapping[str, Mapping[str, float]], columns: Sequence[str], bits: int
) -> str:
    """Aligned plain text, a row for each method in the order given, `*` after a column's best.

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
    names = [f"{bits} bits", *map(display_name, metrics)]
    table = [[name.ljust(max(map(len, names))) for name in names]]
    for column in columns:
        texts = [_text(values.get(column)) for values in metrics.values()]
        marked = [
            text + ("*" if r == 1 else " ") for text, r in zip(texts, ranks(texts), strict=True)
        ]
        cells = [f"{column} ", *marked]
        table.append([cell.rjust(max(map(len, cells))) for cell in cells])
    lines = ["  ".join(row).rstrip() for row in zip(*table, strict=True)]
    if any("*" in line for line in lines):
        lines.append("* best of the column")
    return "\n".join(lines)


def ranks(texts: Sequence[str]) -> list[int]:
    """1 for the best of the numbers that a column shows, 2 for the second, 0 for all others.

    Equal numbers share a rank. A column with one number has no best.

    Args:
        texts: numbers, with or without a spread as in "0.731 ± 0.002", and words.
    """
    numbers = [_number(text) for text in texts]
    shown = [x for x in numbers if x is not None]
    best = sorted(set(shown), reverse=True)[:2] if len(shown) > 1 else []
    return [best.index(x) + 1 if x in best else 0 for x in numbers]


def display_name(method: str) -> str:
    """The name that readers know a method by; a method of another name keeps it."""
    return NAMES.get(method, method)


def short_name(method: str) -> str:
    """The same where there is little room."""
    return SHORT_NAMES.get(method, display_name(method))


def _number(text: str) -> float | None:
    try:
        return float(text.partition(" ")[0])
    except ValueError:
        return None


def _text(value: float | None) -> str:
    return MISSING if value is None or math.isnan(value) else f"{value:.3f}"
