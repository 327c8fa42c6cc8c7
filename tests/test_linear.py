"""Hyperplanes by hand."""

import numpy as np
import pytest

from sigah_jax.baselines import linear
from sigah_jax.errors import BitsRefused


def test_project_by_hand():
    # x - mean = (2, -1): 2·1 + (-1)·0 = 2, 2·3 + (-1)·7 = -1, so the code is 1, 0.
    params = linear.LinearHash(np.array([1, 1], np.float32), np.array([[1, 3], [0, 7]], np.float32))
    np.testing.assert_array_equal(linear.project(params, np.array([[3, 0]], np.float32)), [[2, -1]])


def test_as_many_bits_as_components_are_taken_and_more_refused():
    linear.check_bits("ITQ", 8, 8)
    with pytest.raises(BitsRefused, match=r"ITQ: .* 8 columns; got 9 bits, use at most 8"):
        linear.check_bits("ITQ", 9, 8)
