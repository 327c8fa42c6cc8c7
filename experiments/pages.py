"""The tables that stand in pages and in LaTeX, made of the cells there are.

A page holds prose and markers; what stands between a marker and its end is written by
`python -m experiments.paper_tables`, so that no number is copied by hand:

    <!-- table: best -->
    <!-- end -->
    SiGAH is <!-- count: codes --><!-- end -->.

`part` says which markers there are.

Not responsible for which cells there are (`experiments.paper_tables`), nor for how a table looks
(`report.comparison`).
"""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

from experiments.cell import VARIANTS
from sigah_jax.baselines import quantisers
from sigah_jax.baselines.methods import METHODS
from sigah_jax.errors import BadInput
from sigah_jax.report import comparison
from sigah_jax.report.cells import COSTS, METRICS, REAL_METRICS, Cell, datasets
from sigah_jax.report.tables import METRIC_NAMES, MISSING, display_name

# rows of tables: the searches of SiGAH's codes first, then what they are compared with
BINARY = ("sigah", "sigah_both", "sigah_plain", "sigah_one_head", "sigah_paper", *METHODS)
REAL = ("sigah_stages", "sigah_synthetic", "sigah_projection", *quantisers.NAMES)
ABLATION = ("sigah_plain", "sigah_one_head", *(name for name in VARIANTS if name not in BINARY))
OPQ = ("opq", "opq_all")  # two forms, of which the short table has the better
SHORT = ("sigah", "sigah_both", "sigah_stages", "itq", OPQ, "rq", "rabitq")
BITS = (16, 32, 48, 64, 96, 128)
REAL_BITS = (*BITS, 256, 512)
SHORT_BITS = 64  # of the ablation and the curves
SHORT_METRICS = ("map", "map@1000", "precision@100", "recall@10", "recall@100", "1-recall@10")
NEWCOMERS = ("recall@10", "1-recall@10", "reranked")  # metrics of the short table
QUERIED = ("recall@10", "1-recall@10", "reranked", "map@1000", *COSTS)  # of real-valued queries
# name -> rows, metrics and lengths of the tables of a data set
SECTIONS = {
    "codes": (BINARY, SHORT_METRICS, BITS),
    "real": (REAL, QUERIED, REAL_BITS),
    "ablation": (ABLATION, SHORT_METRICS, (SHORT_BITS,)),
}
# what is counted beside quantisers, by the name of its column: the search that `search` takes, and
# for map@1000 the one that decodes all codes, as theirs do
STAGES = ("recall@10", "1-recall@10", "recall@100")
COUNTED = {f"{metric}, in stages": ("sigah_stages", metric) for metric in STAGES}
COUNTED["map@1000, all codes decoded"] = ("sigah_synthetic", "map@1000")


def filled(found: Sequence[Cell], path: Path) -> str:
    """The text of a page with all its generated parts written anew."""
    return comparison.fill(read(path), functools.partial(part, found, path))


def read(path: Path) -> str:
    """The text of a page or table; BadInput unless it is UTF-8."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as e:
        raise BadInput(f"{path}: is not UTF-8 text ({e}); repair it, or get it again") from e


def with_sigah(found: Sequence[Cell]) -> list[Cell]:
    """The cells of data sets that SiGAH was run on; baselines alone are compared with nothing."""
    ours = {c.dataset for c in found if c.method in VARIANTS}
    return [c for c in found if c.dataset in ours]


def part(found: Sequence[Cell], path: Path, kind: str, name: str) -> str:
    """A generated part of a page by its marker, `<!-- KIND: NAME -->`.

    Tables: `codes`, `real` and `ablation`, all tables of all data sets; `best`, SiGAH against the
    best baseline; `quantisers`, against each quantiser; `mnist 64,128 short`, the few methods of
    both kinds that a newcomer compares. Counts: `codes`, in how many cells SiGAH is ahead of the
    best baseline; `quantisers`, in how many in stages of the best quantiser. `best` and the count
    `codes` may be followed by a variant of SiGAH, as in `best sigah_plain`.

    Raises:
        BadInput: the marker names something else.
    """
    match kind, name.split():
        case "table", [section] if section in SECTIONS:
            return sections(found, *SECTIONS[section])
        case "table", ["best", *variant] if set(variant) <= VARIANTS.keys():
            return comparison.markdown(*against_best(found, *variant))
        case "table", ["quantisers"]:
            return comparison.markdown(*against_quantisers(found))
        case "table", [dataset, bits, "short"] if bits.replace(",", "").isdecimal():
            return comparison.markdown(*short(found, dataset, [int(k) for k in bits.split(",")]))
        case "count", ["codes", *variant] if set(variant) <= VARIANTS.keys():
            return ahead_of_best(found, *variant)
        case "count", ["quantisers"]:
            return beside_quantisers(found)
    raise BadInput(f"{path}: <!-- {kind}: {name} -->: no such part; see `experiments.pages.part`")


def sections(
    found: Sequence[Cell], rows: Sequence[str], metrics: Sequence[str], lengths: Sequence[int]
) -> str:
    """For each data set that has cells of them a heading, and a table for each code length.

    A method without a value has no row; its name stands below the table.
    """
    texts, found = [], with_sigah(found)
    for dataset in datasets(c for c in found if c.method in rows[2:]):
        origin = next((c.data for c in found if c.dataset == dataset and c.data), "")
        texts += [f"### {dataset}", re.sub(r"\S*/", "", f"{origin}.")]  # a file by its name alone
        for bits in lengths:
            header, body = comparison.over_metrics(found, dataset, bits, rows, metrics)
            words = [{text for text, _ in row[1:]} for row in body]
            kept = [w - {comparison.NOT_RUN, MISSING} for w in words]
            if not any(kept):
                continue
            shown = [row for row, values in zip(body, kept, strict=True) if values]
            header[0] = f"{bits} bits, {bits // 8} bytes"
            texts.append(comparison.markdown(header, shown))
            absent = []
            for word, says in (comparison.NOT_RUN, "Not run"), (MISSING, f"No code of {bits} bits"):
                names = [row[0][0] for row, w in zip(body, words, strict=True) if w == {word}]
                absent += [f"{says}: {'; '.join(names)}."] * bool(names)
            texts += [" ".join(absent)] * bool(absent)
    return "\n\n".join(texts)


def against_best(found: Sequence[Cell], method: str = "sigah") -> comparison.Grid:
    """SiGAH, or a variant of it, and the best baseline of every data set and code length."""
    return comparison.against_best(found, method, tuple(METHODS), BITS, SHORT_METRICS)


def against_quantisers(found: Sequence[Cell]) -> comparison.Grid:
    """In how many cells SiGAH leads and trails, beside each quantiser and the best of them."""
    rivals = {display_name(name): (name,) for name in quantisers.NAMES}
    rivals["the best of them"] = quantisers.NAMES
    return comparison.counts(found, COUNTED, rivals, REAL_BITS)


def ahead_of_best(found: Sequence[Cell], method: str = "sigah") -> str:
    """The part of a sentence that counts the cells of `against_best`."""
    c = comparison.count(found, method, tuple(METHODS), BITS, SHORT_METRICS)
    clearly = f"by more than two standard deviations of the difference in {c.leads}"
    return f"ahead in {c.ahead} of {c.cells} cells, {clearly} ({_alone(c)})"


def beside_quantisers(found: Sequence[Cell]) -> str:
    """The part of a sentence that counts the cells of search in stages beside the best of them."""
    c = comparison.count(found, "sigah_stages", quantisers.NAMES, REAL_BITS, STAGES)
    near = f"and within two standard deviations of the difference in {c.cells - c.leads - c.trails}"
    return f"ahead in {c.leads} of {c.cells} cells, behind in {c.trails}, {near} ({_alone(c)})"


def _alone(c: comparison.Count) -> str:
    return f"in {c.alone} cells each side has one run, and any difference counts"


def short(found: Sequence[Cell], dataset: str, lengths: Sequence[int]) -> comparison.Grid:
    """SiGAH and the peers that newcomers know, by Hamming distance and by real queries.

    Of a Hamming ranking, recall@10 of its 100 first rows re-ranked by the vectors is its
    recall@100: each true neighbour among them comes to its place. A method that has no code of so
    many bytes has no row.
    """
    held = []
    for c in found:
        hamming = c.metrics and c.pr_curve
        extra = {"reranked": c.metrics["recall@100"]} if hamming else {}
        held.append(c._replace(metrics=c.metrics and c.metrics | extra))
    header, body = [], []
    for bits in lengths:
        opq, _ = comparison.best_of(held, dataset, OPQ, bits, "recall@10")
        rows = [(opq or OPQ[0]) if row is OPQ else row for row in SHORT]
        header, table = comparison.over_metrics(held, dataset, bits, rows, NEWCOMERS)
        for name, *values in table:
            if any(text != MISSING for text, _ in values):
                body.append([name, (str(bits // 8), 0), *values])
    return [dataset, "bytes", *header[1:]], body


def latex(found: Sequence[Cell]) -> str:
    """All tables, one a metric of a data set; the paper's own numbers were not available."""
    found = with_sigah(found)
    tables = [comparison.latex(*against_best(found), "SiGAH / the best baseline")]
    for dataset in datasets(found):
        for metric in METRICS:
            header, body = comparison.over_length(found, dataset, metric, BINARY, BITS, "bits")
            words = ["not available" if name.startswith("sigah") else "" for name in BINARY]
            body = [[*row, (word, 0)] for row, word in zip(body, words, strict=True)]
            tables.append(comparison.latex([*header, "paper"], body, f"{dataset}, {metric}"))
        if any(c.dataset == dataset and c.method in REAL for c in found):
            for metric in REAL_METRICS:
                table = comparison.over_length(found, dataset, metric, REAL, REAL_BITS, "bytes")
                caption = f"{dataset}, real-valued queries, {METRIC_NAMES.get(metric, metric)}"
                tables.append(comparison.latex(*table, caption))
        if any(c.dataset == dataset and c.method in ABLATION[2:] for c in found):
            table = comparison.over_metrics(found, dataset, SHORT_BITS, ABLATION, METRICS)
            caption = f"{dataset}, ablation of SiGAH, no codes refined"
            tables.append(comparison.latex(*table, caption))
    return "\n\n".join(tables) + "\n"
