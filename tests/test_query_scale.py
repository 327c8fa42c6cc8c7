"""How a run chooses by how much features of queries are scaled."""

from types import SimpleNamespace

import hashers
import numpy as np
import pytest

from sigah_jax.training import query_scale


@pytest.mark.parametrize("scale", query_scale.SCALES)
def test_the_scale_by_which_synthetic_features_lie_is_chosen(scale):
    """Rows that decode to β times themselves are all found by β z, and by no other scale."""
    x, queries = hashers.vectors(2000, 4), hashers.vectors(300, 4, 1)
    h = SimpleNamespace(features=lambda x: x, decode=lambda packed: np.float32(scale) * x)
    assert query_scale.chosen(h, queries, x, x, "cpu") == scale


def test_of_equal_scales_the_least_is_chosen():
    x = hashers.vectors(20, 4)
    h = SimpleNamespace(features=lambda x: x, decode=lambda packed: np.zeros((20, 4), np.float32))
    assert query_scale.chosen(h, x[:5], x, x, "cpu") == 1


def test_of_many_rows_a_sample_judges(monkeypatch):
    monkeypatch.setattr(query_scale, "MOST_ROWS", 50)
    x, decoded = hashers.vectors(1000, 4), []

    def decode(packed):
        decoded.append(packed)
        return 2 * packed

    h = SimpleNamespace(features=lambda x: x, decode=decode)
    assert query_scale.chosen(h, x[:300] + np.float32(0.01), x, x, "cpu") == 2
    np.testing.assert_array_equal(decoded[0], x[np.linspace(0, 999, 50).astype(int)])
