"""GIST of grey images: mean Gabor magnitudes on a 4 × 4 grid, 3 scales × 8 orientations, 384-d.

Oliva & Torralba, Modeling the Shape of the Scene, IJCV 42(3), 2001; the constants are those of
the authors' LMgist (LabelMe toolbox). Three things differ from LMgist. Here

- intensities are used as they are, 0 to 255, as in the authors' first release: LMgist stretches
  each image to that range, which makes noise of a flat one;
- the border is half the image's side, not 32 pixels, LMgist's for sides of 128 and more;
- a filter's grid is stored row by row, LMgist's column by column: distances are the same.

Shapes: B images, S their side, n their number.

Not responsible for colour or files: `cifar`.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sigah_jax.devices import parallel

SCALES, ORIENTATIONS, GRID = 3, 8, 4
DIMS = SCALES * ORIENTATIONS * GRID * GRID

# images a device and call; a filter's complex planes of 32 x 32 images then take 4 MiB
BLOCK_ROWS = 128


def make_gist(
    block_rows: int = BLOCK_ROWS, devices: Sequence[jax.Device] | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Makes `images [n, S, S] -> [n, 384] f32`, both on the host: `gist` on all devices.

    Args:
        block_rows: images a device and call; the result does not depend on it.
        devices: defaults to all.
    """
    mapped = parallel.map_rows(_of_block, block_rows, devices)
    return lambda images: mapped(None, images)


def _of_block(_: None, images: jax.Array) -> jax.Array:
    return gist(images)


def gist(images: jax.Array) -> jax.Array:
    """The descriptor of each image, a pure function.

    Entry (s·8 + j)·16 + r·4 + c is the mean of |x̃ ∗ g_sj| over the block in row r and column c
    of the grid, where x̃ is the prefiltered image and g_sj the filter of scale s, from fine to
    coarse, and orientation j; see `prefilter` and `gabor_filters`.

    Args:
        images: `[B, S, S]`, S a multiple of 4 and at least 8; intensities from 0 to 255 in any
            integer or float type. They are converted to float32 first: uint8 loses nothing,
            half precision keeps what rounding it came with.

    Returns:
        `[B, 384] f32`, at least 0.

    Raises:
        ValueError: another shape, or elements that are not integers or floats.
    """
    images = jnp.asarray(images)
    if images.ndim != 3 or images.shape[1] != images.shape[2]:
        raise ValueError(f"images: expected [B, S, S], got {list(images.shape)}")
    rows, side = images.shape[:2]
    if side % GRID or side < 2 * GRID:
        raise ValueError(f"images: side {side}, expected a multiple of {GRID} from {2 * GRID} on")
    if not any(jnp.issubdtype(images.dtype, kind) for kind in (jnp.integer, jnp.floating)):
        raise ValueError(f"images: expected integers or floats, got {images.dtype}")

    # with half a side of mirror image around it the plane repeats without a jump
    spectrum = jnp.fft.fft2(_pad(prefilter(images.astype(jnp.float32)), side // 2))
    inner = slice(side // 2, side // 2 + side)

    def grid_means(transfer: jax.Array) -> jax.Array:
        # cut after the first axis: the second transform then has half the columns
        y = jnp.fft.ifft(spectrum * transfer, axis=1)[:, inner]
        magnitudes = jnp.abs(jnp.fft.ifft(y, axis=2)[..., inner])
        cells = magnitudes.reshape(rows, GRID, side // GRID, GRID, side // GRID)
        return cells.mean((2, 4)).reshape(rows, GRID * GRID)

    # one filter after the other: the planes of all 24 would not fit the cache
    means = lax.map(grid_means, jnp.asarray(gabor_filters(side)))
    return jnp.moveaxis(means, 0, 1).reshape(rows, DIMS)


def prefilter(x: jax.Array) -> jax.Array:
    """Local contrast normalisation: x̃ = h / (0.2 + √(h² ∗ w)), where h = l - l ∗ w, l = ln(1 + x).

    The low-pass w is a Gaussian with gain exp(-ln 2 · (f / 4)²) at f cycles a plane: one half at
    4. The plane is the image with 5 pixels of mirror image on each side.

    Args:
        x: `[B, S, S] f32`, S even, from 0 to 255.

    Returns:
        `[B, S, S] f32`.
    """
    border = 5
    logs = _pad(jnp.log1p(x), border)
    side = logs.shape[1]
    cycles = np.fft.fftfreq(side, 1 / side)
    gain = np.exp2(-(cycles[:, None] ** 2 + cycles[: side // 2 + 1] ** 2) / 16).astype(np.float32)

    def low_pass(plane: jax.Array) -> jax.Array:
        return jnp.fft.irfft2(jnp.fft.rfft2(plane) * gain, plane.shape[1:])

    high = logs - low_pass(logs)
    # rounding may leave a square below zero
    deviation = jnp.sqrt(jnp.abs(low_pass(high**2)))
    return (high / (0.2 + deviation))[:, border:-border, border:-border]


@functools.cache
def gabor_filters(side: int) -> np.ndarray:
    """Transfer functions of the filters on a plane of 2S × 2S, zero frequency first.

    At frequency ρ (cos φ, sin φ), in cycles a pixel, x to the right and y down, filter (s, j) is
    exp(-3.5 (ρ / ρ_s - 1)² - 2π (φ + πj / 8)²), where ρ_s = 0.3 / 1.85^s and the angle in
    brackets is taken in [-π, π]. It passes one half of the frequency plane, so responses are
    complex and their magnitude is a local energy. j turns counter-clockwise as one looks at it.

    Args:
        side: S.

    Returns:
        `[24, 2S, 2S] f32`, scale by scale; cached, not to be written to.
    """
    f = np.fft.fftfreq(2 * side)
    radius, angle = np.hypot(f[:, None], f), np.arctan2(f[:, None], f)
    filters = []
    for s in range(SCALES):
        radial = 3.5 * (radius * 1.85**s / 0.3 - 1) ** 2
        for j in range(ORIENTATIONS):
            turn = angle + math.pi * j / ORIENTATIONS
            turn = np.where(turn > math.pi, turn - 2 * math.pi, turn)
            filters.append(np.exp(-radial - 2 * math.pi * turn**2))
    return np.stack(filters).astype(np.float32)


def _pad(x: jax.Array, border: int) -> jax.Array:
    """`[B, S, S]` with a border that mirrors it, the edge pixel repeated."""
    return jnp.pad(x, ((0, 0), (border, border), (border, border)), "symmetric")
