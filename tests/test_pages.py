"""What stands between the markers of a page: tables and counts of the cells there are."""

import pytest

from experiments import pages
from sigah_jax.errors import BadInput
from sigah_jax.report import comparison
from sigah_jax.report.cells import COSTS, METRICS, Cell

CURVE = [[1.0], [1.0]]


def cell(method, value, bits=64, dataset="mnist", real=False, seed=0):
    metrics = value and dict.fromkeys(METRICS, value)
    if real and value:
        metrics |= {"reranked": value + 0.1} | dict.fromkeys(COSTS, 2.5)
    return Cell(dataset, method, bits, seed, metrics, [] if real else CURVE, "/a/b.npy, drawn")


CELLS = [
    cell("sigah", 0.5),
    cell("sigah_plain", 0.4),
    cell("sigah_stages", 0.7, real=True),
    cell("sigah_synthetic", 0.7, real=True),
    cell("itq", 0.3),
    cell("lsh", 0.45),
    cell("sign", None),
    cell("opq", 0.6, real=True),
    cell("opq_all", 0.65, real=True),
    cell("rq", 0.8, real=True),
    cell("rabitq", None, real=True),
    cell("itq", 0.3, dataset="glosses60k"),
]


def part(kind, name, found=CELLS):
    return pages.part(found, "page.md", kind, name).replace("\xa0", " ")


def test_a_part_is_written_between_its_two_marks(tmp_path):
    start, end = "before\n<!-- table: mnist 64 short -->\n", "\n<!-- end -->\nafter"
    text = comparison.fill(f"{start}old\nlines{end}", lambda kind, name: f"{kind} of {name}")
    assert text == f"{start}table of mnist 64 short{end}"
    assert comparison.fill(text, lambda *_: "new") == f"{start}new{end}"
    counts = "It is <!-- count: quantisers -->{}<!-- end -->, <!-- count: codes -->{}<!-- end -->."
    inside = counts.format("", "old")
    filled = comparison.fill(inside, lambda _, name: name.upper())
    assert filled == counts.format("QUANTISERS", "CODES")
    assert comparison.fill("no table", lambda *_: "new") == "no table"
    (tmp_path / "page.md").write_text(inside)
    assert "ahead in 0 of 3 cells, behind in 3," in pages.filled(CELLS, tmp_path / "page.md")


def test_all_codes_are_a_heading_a_set_and_a_table_a_length():
    lines = part("table", "codes").splitlines()
    assert lines[:3] == ["### mnist", "", "b.npy, drawn."]  # no directory
    assert lines[4].startswith("| 64 bits, 8 bytes | map | map@1000 |")
    names = [line.split(" | ")[0].removeprefix("| ") for line in lines[6:] if "|" in line]
    assert names == ["SiGAH", "SiGAH, codes not refined", "LSH", "ITQ"]
    assert lines[-1].startswith("Not run: SiGAH, both codes of a query; SiGAH, one hash function;")
    assert lines[-1].endswith("No code of 64 bits: sign bits.")
    assert "glosses60k" not in "\n".join(lines)  # SiGAH was not run on it


def test_real_queries_and_the_ablation_have_tables_where_they_were_run():
    text = part("table", "real")
    assert "| SiGAH, real queries, in stages | <u>.700</u> |" in text
    assert "No code of 64 bits: RaBitQ." in text and "ITQ" not in text
    assert part("table", "ablation") == ""
    text = part("table", "ablation", [*CELLS, cell("sigah_steps_1", 0.2)])
    assert "| T = 1 | <u>.200</u> |" in text and "| SiGAH, codes not refined | **.400** |" in text


def test_a_short_table_has_both_kinds_and_the_better_opq():
    found = [*CELLS, cell("opq", 0.6, 128, real=True)]
    assert part("table", "mnist 64,128 short", found).splitlines() == [
        "| mnist | bytes | recall@10 | 1-recall@10 | recall@10 re-ranked |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| SiGAH | 8 | .500 | .500 | .500 |",  # its recall@100
        "| SiGAH, both codes of a query | 8 | not run | not run | not run |",
        "| SiGAH, real queries, in stages | 8 | <u>.700</u> | <u>.700</u> | <u>.800</u> |",
        "| ITQ | 8 | .300 | .300 | .300 |",
        "| OPQ, all columns | 8 | .650 | .650 | .750 |",
        "| residual quantiser | 8 | **.800** | **.800** | **.900** |",
        # RaBitQ has no code of 8 bytes, and no row
        "| SiGAH | 16 | not run | not run | not run |",
        "| SiGAH, both codes of a query | 16 | not run | not run | not run |",
        "| SiGAH, real queries, in stages | 16 | not run | not run | not run |",
        "| ITQ | 16 | not run | not run | not run |",
        "| OPQ, 8 columns a byte | 16 | .600 | .600 | .700 |",
        "| residual quantiser | 16 | not run | not run | not run |",
        "| RaBitQ | 16 | not run | not run | not run |",
    ]


def test_claims_are_counted():
    # six metrics at one length: .5 beside .45, and .4 beside .45
    clearly = "by more than two standard deviations of the difference in"
    alone = "cells each side has one run, and any difference counts)"
    assert part("count", "codes") == f"ahead in 6 of 6 cells, {clearly} 6 (in 6 {alone}"
    plain = part("count", "codes sigah_plain")
    assert plain == f"ahead in 0 of 6 cells, {clearly} 0 (in 6 {alone}"
    near = "and within two standard deviations of the difference in"
    best = part("count", "quantisers")
    assert best == f"ahead in 0 of 3 cells, behind in 3, {near} 0 (in 3 {alone}"
    noisy = [*CELLS, cell("rq", 0.62, real=True, seed=1)]  # .71 ± .13 beside .7
    assert part("count", "quantisers", noisy).endswith(f"behind in 0, {near} 3 (in 0 {alone}")
    table = part("table", "quantisers").splitlines()
    assert table[0].startswith("| leads / trails / cells, beside | recall@10, in stages |")
    assert "| OPQ, all columns | 1 / 0 / 1 | 1 / 0 / 1 | 1 / 0 / 1 | 1 / 0 / 1 |" in table
    assert table[-1] == "| the best of them | 0 / 1 / 1 | 0 / 1 / 1 | 0 / 1 / 1 | 0 / 1 / 1 |"


def test_tables_against_the_best():
    assert "| mnist / 64 | .500 / .450<br>LSH |" in part("table", "best")
    assert "| mnist / 64 | **.400 / .450<br>LSH** |" in part("table", "best sigah_plain")


def test_latex_has_the_metrics_of_all_sets_that_sigah_was_run_on():
    text = pages.latex(CELLS)
    assert r"\caption{mnist, area\_rp}" in text and "glosses60k" not in text
    assert r"\caption{mnist, real-valued queries, ms a query}" in text
    assert text.count("not available") == len(METRICS) * 5  # the rows of SiGAH's codes
    assert "ablation" not in text


@pytest.mark.parametrize(
    "kind, name",
    [
        ("table", "best lsh"),
        ("table", "mnist"),
        ("table", "mnist 64"),
        ("table", "mnist 64 long"),
        ("count", "rq"),
        ("count", "best"),
    ],
)
def test_a_marker_that_names_no_part_is_refused(kind, name):
    with pytest.raises(BadInput, match=rf"page.md: <!-- {kind}: {name} -->: no such part"):
        part(kind, name)
