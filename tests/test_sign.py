"""Sign bits by hand, and what the centring gains where columns do not change sign."""

import jax
import numpy as np
import pytest
from sets import mean_average_precision

from sigah_jax.baselines import linear, lsh, sign
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput

KEY = jax.random.key(0)


def bits_of(params: sign.Signs, x: np.ndarray) -> np.ndarray:
    return np.asarray(sign.project(params, x)) > 0


def test_by_hand():
    # The means are (2, 20, -1). A row on the mean has bit 0, as a code of `u > 0` has.
    xt = np.array([[1, 10, -1], [3, 30, -1]], np.float32)
    params = sign.fit(KEY, xt, 3)
    np.testing.assert_array_equal(params.mean, [2, 20, -1])
    x = np.array([[2.5, 5, -0.5], [2, 20, -1]], np.float32)
    np.testing.assert_array_equal(bits_of(params, x), [[1, 0, 1], [0, 0, 0]])


def test_agrees_with_the_mean_of_numpy_in_float64():
    xt = np.random.default_rng(0).gamma(1, size=(9001, 5)).astype(np.float32) + 100
    params = sign.fit(KEY, xt, 5)
    np.testing.assert_array_equal(bits_of(params, xt), xt > params.mean)
    np.testing.assert_allclose(params.mean, xt.mean(axis=0, dtype=np.float64), rtol=1e-7)


def test_the_smallest_difference_from_the_mean_decides():
    mean = np.float32(123.456)
    params = sign.Signs(np.array([mean]))
    x = np.array([[np.nextafter(mean, np.float32(200))], [np.nextafter(mean, np.float32(0))]])
    np.testing.assert_array_equal(bits_of(params, x.astype(np.float32)), [[1], [0]])


def test_shift_and_positive_scale_of_a_column_change_no_bit():
    # Whole numbers of known mean: all sums are exact, so the bits are equal and not just close.
    half = np.random.default_rng(1).integers(-50, 50, (40, 6))
    xt = np.concatenate([half, -half]).astype(np.float32)
    moved = xt * np.array([1, 2, 4, 8, 16, 32]) + np.arange(6)
    bits = bits_of(sign.fit(KEY, xt, 6), xt)
    np.testing.assert_array_equal(
        bits, bits_of(sign.fit(KEY, moved.astype(np.float32), 6), moved.astype(np.float32))
    )
    assert 0.3 < bits.mean() < 0.7


def test_bytes_do_not_wrap_around():
    xt = np.array([[0, 200], [100, 250]], np.uint8)
    params = sign.fit(KEY, xt, 2)
    np.testing.assert_array_equal(np.asarray(sign.project(params, xt)), [[-50, -25], [50, 25]])


def test_nothing_is_drawn():
    xt = np.random.default_rng(2).normal(size=(30, 4)).astype(np.float32)
    one, other = (sign.fit(jax.random.key(k), xt, 4).mean for k in (0, 1))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("block_rows", [1, 3, 64])
def test_rows_do_not_depend_on_their_block(block_rows):
    xt = np.random.default_rng(3).normal(size=(70, 4)).astype(np.float32)
    params = sign.fit(KEY, xt, 4)
    u = parallel.map_rows(sign.project, block_rows)(params, xt)
    np.testing.assert_array_equal(u, xt - params.mean)


@pytest.mark.parametrize("bits", [4, 16])
def test_another_number_of_bits_is_refused(bits):
    with pytest.raises(BadInput, match=rf"one a column, .* 8 columns; got {bits} bits, use 8"):
        sign.fit(KEY, np.ones((30, 8), np.float32), bits)


def test_beats_bare_signs_where_columns_do_not_change_sign():
    # 32 corners of a cube of side 2, each as a cloud, around a mean of 3: the corners are the
    # codes. `x > 0` is true of every coordinate, ranks all rows alike and finds 40 of 2,000.
    rng = np.random.default_rng(4)
    corners = rng.choice([-1.0, 1.0], (32, 12)) + 3
    x = (corners[rng.integers(0, 32, 2200)] + rng.normal(0, 0.25, (2200, 12))).astype(np.float32)
    xq, xb = x[:200], x[200:]
    params = sign.fit(KEY, xb, 12)
    ours = mean_average_precision(sign.project, params, xq, xb, 40)
    bare = mean_average_precision(lambda _, x: x, None, xq, xb, 40)
    assert ours > 0.6
    assert bare < 0.03


def test_beats_lsh_of_as_many_bits_where_columns_are_independent():
    # As many hyperplanes as dimensions: at right angles they are independent bits, of random
    # direction they repeat parts of one another. Where few directions hold the variance, sign
    # bits have no such advantage: the columns are as mixed as random directions.
    x = np.random.default_rng(5).normal(3, 1, (2200, 16)).astype(np.float32)
    xq, xb = x[:200], x[200:]
    params = sign.fit(KEY, xb, 16)
    ours = mean_average_precision(sign.project, params, xq, xb, 20)
    for seed in range(3):
        hyperplanes = lsh.fit(jax.random.key(seed), xb, 16)
        random = mean_average_precision(linear.project, hyperplanes, xq, xb, 20)
        assert ours > 1.2 * random
