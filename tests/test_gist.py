"""GIST against its definition, written out in loops, and on images whose answer is known."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sigah_jax.data.gist import DIMS, gabor_filters, gist, make_gist

run = jax.jit(gist)


def images(n, side=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side)).astype(np.uint8)


def mirrored(x, border):
    """x with a mirror at each edge: pixel -1 is pixel 0, pixel n is pixel n - 1, and so on."""
    n = len(x)

    def source(i):
        i %= 2 * n
        return i if i < n else 2 * n - 1 - i

    index = [source(i) for i in range(-border, n + border)]
    return np.array([[x[r, c] for c in index] for r in index])


def signed(k, n):
    return k if k < n // 2 else k - n


def filtered(plane, gain):
    """The plane through a filter; `gain(fy, fx)`, in cycles a plane, may be a table of gains."""
    n = len(plane)
    spectrum = np.fft.fft2(plane)
    for r in range(n):
        for c in range(n):
            spectrum[r, c] *= gain(signed(r, n), signed(c, n))
    return np.fft.ifft2(spectrum)


@functools.cache
def gabor_gain(n, s, j, fy, fx):
    radius, angle = math.hypot(fx, fy) / n, math.atan2(fy, fx) + math.pi * j / 8
    # the nearest of the turns that differ by a whole one
    angle = min((angle + turn for turn in (-2 * math.pi, 0, 2 * math.pi)), key=abs)
    return math.exp(-3.5 * (radius / (0.3 / 1.85**s) - 1) ** 2 - 2 * math.pi * angle**2)


def reference(x):
    """GIST of one image `[S, S]` in float64."""
    side = len(x)
    logs = mirrored(np.log(x.astype(np.float64) + 1), 5)
    # half the amplitude at 4 cycles
    low = functools.partial(filtered, gain=lambda fy, fx: 0.5 ** ((fy**2 + fx**2) / 16))
    high = logs - low(logs).real
    contrast = (high / (0.2 + np.sqrt(np.abs(low(high**2)))))[5:-5, 5:-5]
    plane, b, cell = mirrored(contrast, side // 2), side // 2, side // 4
    out = []
    for s in range(3):
        for j in range(8):
            y = filtered(plane, functools.partial(gabor_gain, 2 * side, s, j))
            y = np.abs(y)[b : b + side, b : b + side]
            for r in range(0, side, cell):
                out += [y[r : r + cell, c : c + cell].mean() for c in range(0, side, cell)]
    return np.array(out)


@pytest.mark.parametrize("side, n", [(32, 2), (8, 3)])
def test_agrees_with_the_definition(side, n):
    # noise, and smoothed noise that is nearer to an image
    x = images(n, side)
    x[-1] = np.clip(filtered(x[-1], lambda fy, fx: math.hypot(fy, fx) < 4).real, 0, 255)
    want = np.stack([reference(image) for image in x])
    got = run(x)
    assert got.shape == (n, DIMS) and got.dtype == jnp.float32
    # entries are about .05, and the least of them well above the tolerance
    assert want.mean() > 0.03
    np.testing.assert_allclose(got, want, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_a_flat_image_has_no_energy(value):
    np.testing.assert_allclose(run(np.full((1, 32, 32), value, np.uint8)), 0, atol=1e-5)


@pytest.mark.parametrize("s", range(3))
@pytest.mark.parametrize("j", range(8))
def test_a_grating_excites_its_own_filter_most(s, j):
    # 0.3 / 1.85^s cycles a pixel, along the direction πj / 8 counter-clockwise from the right;
    # rows count downwards, hence the minus
    row, column = np.mgrid[:32, :32]
    theta, frequency = math.pi * j / 8, 0.3 / 1.85**s
    phase = frequency * (column * math.cos(theta) - row * math.sin(theta))
    x = 128 + 40 * np.cos(2 * math.pi * phase)
    energy = np.asarray(run(x[None])).reshape(3, 8, 4, 4)
    # inner blocks: the mirror at the edges turns a slanting grating
    energy = energy[:, :, 1:3, 1:3].mean((2, 3))
    assert np.unravel_index(energy.argmax(), energy.shape) == (s, j)


def test_blocks_are_stored_row_by_row():
    x = np.full((32, 32), 128, np.uint8)
    x[8:16, 24:] = images(1)[0, :8, :8]  # row 1, column 3 of the grid
    energy = np.asarray(run(x[None])).reshape(3, 8, 16).mean(1)
    assert set(energy.argmax(1)) == {1 * 4 + 3}


def test_the_result_depends_on_neither_block_size_nor_devices():
    x = images(37)
    want = make_gist(64, jax.devices()[:1])(x)
    assert want.shape == (37, DIMS) and want.std(0).min() > 1e-3
    for block_rows, devices in [(5, jax.devices()[:1]), (2, jax.devices()), (64, jax.devices())]:
        np.testing.assert_allclose(make_gist(block_rows, devices)(x), want, atol=1e-6)


@pytest.mark.parametrize("dtype", ["i4", "f2", "f4", "f8", jnp.bfloat16])
def test_every_type_is_taken_as_the_float32_of_its_values(dtype):
    # bfloat16 has 8 bits of precision: all whole numbers up to 256
    x = images(2)
    got = run(x.astype(dtype))
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, run(x))


@pytest.mark.parametrize(
    "shape, words",
    [
        ((32, 32), r"expected \[B, S, S\], got \[32, 32\]"),
        ((2, 32, 28), r"expected \[B, S, S\], got \[2, 32, 28\]"),
        ((2, 32, 32, 3), r"expected \[B, S, S\], got \[2, 32, 32, 3\]"),
        ((2, 30, 30), "side 30, expected a multiple of 4"),
        ((2, 4, 4), "side 4, expected"),
    ],
)
def test_other_shapes_are_refused(shape, words):
    with pytest.raises(ValueError, match=words):
        gist(np.zeros(shape, np.float32))


@pytest.mark.parametrize("dtype", [bool, np.complex64])
def test_other_types_are_refused(dtype):
    with pytest.raises(ValueError, match="expected integers or floats"):
        gist(np.zeros((1, 32, 32), dtype))


def test_filters_pass_their_frequency_whole():
    filters = gabor_filters(32)
    assert filters.shape == (24, 64, 64) and filters.max() <= 1
    # filter (0, 4) points up: row frequency -19/64 is nearest to 0.3, with
    # exp(-3.5 (19/64/0.3 - 1)²) = exp(-3.5 · 1.085e-4) = .99962
    assert np.unravel_index(filters[4].argmax(), (64, 64)) == (64 - 19, 0)
    np.testing.assert_allclose(filters[4].max(), 0.99962, atol=1e-5)
