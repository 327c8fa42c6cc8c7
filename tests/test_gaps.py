"""Search among codes of which some rows are missing."""

import numpy as np
import pytest

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
