"""Rows that are drawn: different, in order, of the whole set."""

import jax
import numpy as np

from sigah_jax.baselines.sampling import drawn_rows


def test_a_sample_of_rows_is_in_order_without_repeats(tmp_path):
    x = np.arange(3000, dtype=np.float32).reshape(1000, 3)
    x.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", np.float32, "r", shape=(1000, 3))
    sample = drawn_rows(jax.random.key(0), mapped, 400)
    assert sample.shape == (400, 3)
    assert (np.diff(sample[:, 0]) > 0).all()
    # A sample of the whole, not its head: mean row about 500, standard error 11.
    assert abs(sample[:, 0].mean() / 3 - 500) < 50
    np.testing.assert_array_equal(drawn_rows(jax.random.key(0), x, 1000), x)
