"""Tables of metrics: what is marked, what is aligned, what is missing."""

import pytest

from sigah_jax.report.tables import method_table, ranks

METRICS = {
    "sigah": {"map": 0.7141, "map@1000": 0.5, "recall@100": 0.8749},
    "itq": {"map": 0.6652, "map@1000": 0.6, "recall@100": 0.8751},
    "pca_rr": {"map": 0.575, "recall@100": float("nan")},
    "lsh": {"map": 0.4, "map@1000": None, "recall@100": 0.609},
}


def test_terminal_table_whole():
    # recall@100: .8749 and .8751 are both .875 as printed, so both are best.
    expected = """\
64 bits    map   map@1000   recall@100
SiGAH    0.714*     0.500        0.875*
ITQ      0.665      0.600*       0.875*
PCA-RR   0.575        n/a          n/a
LSH      0.400        n/a        0.609
* best of the column"""
    assert method_table(METRICS, ["map", "map@1000", "recall@100"], 64) == expected


def test_columns_are_aligned_at_the_decimal_point():
    lines = method_table({"a_very_long_name": {"map": 1.0}, "b": {"map": 0.25}}, ["map"], 128)
    first, second = (line for line in lines.splitlines() if "." in line)
    assert first.index(".") == second.index(".")
    assert first.startswith("a_very_long_name")


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ((0.2, 0.3, 0.1), [1]),
        ((0.3, 0.3, 0.1), [0, 1]),
        ((0.2, 0.2, 0.2), [0, 1, 2]),
        ((0.3004, 0.2996, 0.3006), [2]),  # .300 .300 .301
        ((None, 0.3, 0.1), [1]),
        ((None, 0.3, None), []),  # nothing to be better than
        ((None, None, None), []),
        ((0.0, 0.0, None), [0, 1]),
        ((10.0, 9.0, 1.0), [0]),  # by number, not by spelling
    ],
)
def test_best_of_a_column(values, best):
    metrics = {name: {"map": v} for name, v in zip("abc", values, strict=True)}
    terminal = method_table(metrics, ["map"], 16).splitlines()
    assert [i for i in range(3) if "*" in terminal[i + 1]] == best
    # The explanation stands below if and only if there is a mark to explain.
    assert (terminal[-1] == "* best of the column") == bool(best)


def test_each_column_has_its_own_best():
    table = method_table(
        {"itq": {"a": 0.1, "b": 0.9}, "lsh": {"a": 0.2, "b": 0.8}}, ["a", "b"], 8
    ).splitlines()
    assert [line.split() for line in table[1:3]] == [
        ["ITQ", "0.100", "0.900*"],
        ["LSH", "0.200*", "0.800"],
    ]


@pytest.mark.parametrize(
    "texts, expected",
    [
        (["0.300", "0.500", "0.400"], [0, 1, 2]),
        (["0.500", "0.500", "0.400"], [1, 1, 2]),
        (["0.300 ± 0.900", "n/a", "0.400 ± 0.001"], [2, 0, 1]),  # the spread does not count
        (["0.300", "not run", ""], [0, 0, 0]),  # nothing to be better than
        (["9.000", "10.000"], [2, 1]),  # by number, not by spelling
        ([], []),
    ],
)
def test_ranks_are_of_the_numbers_that_are_shown(texts, expected):
    assert ranks(texts) == expected
