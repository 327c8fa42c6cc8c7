"""Search among some of the rows of codes."""

import numpy as np
import pytest

from sigah_jax.errors import BadInput
from sigah_jax.retrieval import gaps, hamming


@pytest.mark.parametrize("missing", [[], [0], [29], [3, 4, 5], [0, 1, 17, 28, 29]])
def test_present_rows_are_those_that_are_not_missing(missing):
    expected = np.setdiff1d(np.arange(30), missing)
    found = gaps.present(np.arange(30 - len(missing)), np.array(missing, np.int64))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("at_once", [1, 4, 1000])
def test_neighbours_are_those_among_the_present_rows(monkeypatch, at_once):
    """In blocks of any size, many ties included."""
    generator = np.random.default_rng(0)
    cb, cq = (generator.integers(0, 4, (n, 1), np.uint8) for n in (30, 5))
    missing = np.array([0, 7, 8, 29])
    kept = np.setdiff1d(np.arange(30), missing)
    monkeypatch.setattr(gaps, "COPY_BYTES", at_once * (1 + 8))

    def find(packed, k):
        return hamming.search(cq, packed, k, "cpu")

    d, ids = gaps.search(find, cb, missing, 26)
    d_kept, ids_kept = find(cb[kept], 26)
    np.testing.assert_array_equal(d, d_kept)
    np.testing.assert_array_equal(ids, kept[ids_kept])


@pytest.mark.parametrize("at_once", [1, 4, 1000])
@pytest.mark.parametrize("kept", [[3], [0, 7, 8, 29], list(range(30))])
def test_neighbours_are_those_in_the_subset_alone(monkeypatch, at_once, kept):
    generator = np.random.default_rng(0)
    cb, cq = (generator.integers(0, 4, (n, 1), np.uint8) for n in (30, 5))
    monkeypatch.setattr(gaps, "COPY_BYTES", at_once * (1 + 8))
    asked = []

    def find(packed, k):
        asked.append(len(packed))
        return hamming.search(cq, packed, k, "cpu")

    kept = np.array(kept)
    d, ids = gaps.search(find, cb, np.array([], np.int64), len(kept), kept)
    exact = np.bitwise_count(cq[:, None] ^ cb[kept]).sum(-1)
    np.testing.assert_array_equal(ids, kept[np.argsort(exact, axis=1, kind="stable")])
    np.testing.assert_array_equal(d, np.sort(exact, axis=1))
    assert sum(asked) == len(kept)


@pytest.mark.parametrize(
    ("only", "rows"),
    [
        ([4, 0, 2], [0, 2, 4]),
        (np.array([4, 1], np.uint64), [4]),
        ([], []),
        ([True, True, False, False, True], [0, 4]),
        ([False] * 5, []),
    ],
)
def test_a_subset_is_given_as_numbers_or_as_a_boolean_for_each_row(only, rows):
    found = gaps.subset(np.array(only), 5, np.array([1]))
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, rows)


@pytest.mark.parametrize(
    ("only", "words"),
    [
        ([5], "holds row 5, but rows are numbered 0 to 4"),
        ([-1, 9], "holds row -1, but"),
        ([3, 0, 3], "holds row 3 twice; give each row once"),
        ([True, False], "holds 2 booleans, expected one for each of 5 codes"),
        ([1.0], r"holds float64 \[1\]; give row numbers \[n\], or a boolean for each of the 5"),
        ([[1]], r"holds int64 \[1, 1\]; give"),
        (3, r"holds int64 \[\]; give"),
    ],
)
def test_what_is_no_subset_is_refused(only, words):
    with pytest.raises(BadInput, match=words):
        gaps.subset(np.array(only), 5, np.array([], np.int64))
