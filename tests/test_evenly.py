"""Rows taken evenly from many."""

import numpy as np
import pytest

from sigah_jax.retrieval import evenly


@pytest.mark.parametrize(
    "n, most, rows",
    [
        (0, 3, []),
        (1, 3, [0]),
        (3, 3, [0, 1, 2]),
        (3, 9, [0, 1, 2]),
        (10, 4, [0, 3, 6, 9]),
        (10, 1, [0]),
    ],
)
def test_rows_are_even_and_all_if_there_are_no_more(n, most, rows):
    found = evenly.rows(n, most)
    assert found.dtype == np.int64 and found.tolist() == rows
    x = np.arange(n)[:, None]
    assert evenly.of(x, most)[:, 0].tolist() == rows
    assert (evenly.of(x, most) is x) == (n <= most)


@pytest.mark.parametrize("n, most", [(68_500, 40_000), (99_999, 99_998), (1 << 24, 100_000)])
def test_rows_differ_and_reach_from_the_first_to_the_last(n, most):
    found = evenly.rows(n, most)
    assert len(found) == most and (np.diff(found) > 0).all()
    assert found[[0, -1]].tolist() == [0, n - 1]
    np.testing.assert_array_equal(evenly.rows(n, n), np.arange(n))
