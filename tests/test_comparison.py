"""Tables over data sets, methods and code lengths: means, spreads, ranks, words, styles."""

import pytest

from sigah_jax.report import comparison
from sigah_jax.report.cells import Cell


def cell(method, bits, seed, value):
    metrics = None if value is None else {"map": value, "recall@100": value / 2}
    return Cell("mnist", method, bits, seed, metrics, [], "here")


METRICS = ["map", "recall@100"]
CELLS = [
    cell("sigah", 32, 0, 0.5),
    cell("sigah", 32, 1, 0.7),
    cell("itq", 32, 0, 0.4),
    cell("lsh", 32, 0, 0.3),
    cell("sigah", 64, 0, 0.8),
    cell("itq", 64, 0, None),
]


def test_markdown_whole():
    # 0.5 and 0.7: mean .6, standard deviation √(2 · .1² / 1) = .141
    table = comparison.over_length(
        CELLS, "mnist", "map", ["sigah", "itq", "lsh", "sh"], [32, 64], "bits"
    )
    assert comparison.markdown(*table) == (
        "| mnist, map | 32 bits | 64 bits |\n"
        "| --- | ---: | ---: |\n"
        "| SiGAH | **.600\xa0±\xa0.141** | .800 |\n"
        "| ITQ | <u>.400</u> | n/a |\n"
        "| LSH | .300 | not run |\n"
        "| SH | not run | not run |"
    )


def test_one_row_a_method_one_column_a_metric():
    table = comparison.over_metrics(CELLS, "mnist", 32, ["itq", "lsh"], ["map", "recall@100"])
    assert comparison.markdown(*table).splitlines()[2:] == [
        "| ITQ | **.400** | **.200** |",
        "| LSH | <u>.300</u> | <u>.150</u> |",
    ]


def test_costs_have_no_best_and_columns_say_bytes():
    real = [cell(method, bits, 0, 0.5) for method in ("rq", "opq") for bits in (16, 64)]
    costs = {"reranked": 0.9, "ms_per_query": 2.5}
    real = [c._replace(metrics=c.metrics | costs) for c in real] + [cell("sigah", 64, 0, 0.8)]
    table = comparison.over_length(real, "mnist", "ms_per_query", ["rq", "opq"], [16, 64], "bytes")
    assert comparison.markdown(*table).splitlines() == [
        "| mnist, ms a query | 2 bytes | 8 bytes |",
        "| --- | ---: | ---: |",
        "| residual quantiser | 2.500 | 2.500 |",
        "| OPQ, 8 columns a byte | 2.500 | 2.500 |",
    ]
    shown = ["map", "reranked", "ms_per_query"]
    table = comparison.over_metrics(real, "mnist", 64, ["rq", "sigah"], shown)
    assert comparison.markdown(*table).splitlines() == [
        "| mnist, 64 bits | map | recall@10 re-ranked | ms a query |",
        "| --- | ---: | ---: | ---: |",
        "| residual quantiser | <u>.500</u> | .900 | 2.500 |",
        "| SiGAH | **.800** | n/a | n/a |",
    ]


def test_one_row_a_length_with_the_best_baseline_and_the_share_of_itq():
    cells = [c._replace(metrics=c.metrics and c.metrics | {"map@1000": c.metrics["map"]})
             for c in CELLS] + [cell("lsh", 64, 0, 0.9)]  # fmt: skip
    table = comparison.against_best(
        cells, "sigah", ["itq", "lsh", "sh"], [16, 32, 64], ["map", "recall@100"]
    )
    # (.6 - .4)/(1 - .4) = 1/3; at 64 bits ITQ is not applicable and LSH is better
    assert comparison.markdown(*table).replace("\xa0", " ").splitlines() == [
        "| set / bits | map | recall@100 | of ITQ's miss |",
        "| --- | ---: | ---: | ---: |",
        "| mnist / 32 | **.600 / .400<br>ITQ** | **.300 / .200<br>ITQ** | 33 % |",
        "| mnist / 64 | **.800 / .900<br>LSH** | **.400 / .450<br>LSH** | n/a |",
    ]
    assert r"mnist / 32 & \textbf{.600 / .400 ITQ}" in comparison.latex(*table, "")


def test_cells_are_counted_where_both_sides_were_run():
    # mnist at 32 bits: .60 ± .14 and .4, .30 ± .07 and .2; at 64: .8 and .9, .40 and .45
    cells = [*CELLS, cell("lsh", 64, 0, 0.9), cell("sh", 16, 0, 0.9)]
    count = comparison.count(cells, "sigah", ["itq", "lsh", "sh"], [16, 32, 64], METRICS)
    assert count == (4, 2, 0, 2, 2)  # two seeds at 32 bits, so that its lead is not clear
    one = [c for c in cells if c.seed == 0]  # .5 and .4, .25 and .2
    assert comparison.count(one, "sigah", ["itq"], [16, 32, 64], METRICS) == (2, 2, 2, 0, 2)
    none = comparison.count(cells, "sigah", ["agh1"], [16, 32, 64], METRICS)
    assert none == (0, 0, 0, 0, 0)
    columns = {metric: ("sigah", metric) for metric in METRICS}
    table = comparison.counts(cells, columns, {"both": ["itq", "lsh"]}, [32, 64])
    row = comparison.markdown(*table).replace("\xa0", " ").splitlines()[2]
    assert row == "| both | 0 / 1 / 2 | 0 / 1 / 2 |"


@pytest.mark.parametrize(
    "own, rival, ahead",
    [
        ([0.6], [0.5], True),  # no deviation is known
        ([0.5], [0.5], False),
        ([0.59, 0.61], [0.58], False),  # s = .0141, lead .020
        ([0.59, 0.61], [0.57], True),  # lead .030
        ([0.59, 0.61], [0.56, 0.58], False),  # that of the difference is .020
    ],
)
def test_clearly_ahead_is_by_more_than_two_deviations(own, rival, ahead):
    assert comparison.clearly_ahead(own, rival) is ahead


def test_latex_whole():
    table = comparison.over_metrics(CELLS, "tiny_60k", 32, ["itq"], ["precision@100"])
    assert comparison.latex(*table, "2 % & more") == (
        "\\begin{table}\n"
        "  \\caption{2 \\% \\& more}\n"
        "  \\begin{tabular}{lr}\n"
        "    \\hline\n"
        "    tiny\\_60k, 32 bits & precision@100 \\\\\n"
        "    \\hline\n"
        "    ITQ & not run \\\\\n"
        "    \\hline\n"
        "  \\end{tabular}\n"
        "\\end{table}"
    )
