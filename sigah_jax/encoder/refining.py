"""Refines the codes of blocks of rows: flips bits until no flips of `model.refine` help.

Rows that are finished leave the block, so that they cost nothing more.

Shapes: n rows, K bits, P features, W packed bytes.

Not responsible for what flips are worth: `model.refine`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

CALL_ROWS = 512  # that a device computes at once; for each, five codes are decoded
LEAST_ROWS = 128  # of the smallest call: calls of 128, 256 and 512 rows are compiled
SAMPLE = 256  # codes of `moves`


class Refinement(NamedTuple):
    """How far the codes of base rows are refined."""

    mu: float = 0.0  # μ, the price of a flip where |u| = ‖z‖ = 1, in units of ‖z‖²; 0: none
    iterations: int = 16  # rounds of flips of a row at most


NONE = Refinement()


def refine(
    best_flips: Callable[[np.ndarray], np.ndarray], z: np.ndarray, u: np.ndarray, iterations: int
) -> np.ndarray:
    """The refined codes of a block of rows: `z [n, P], u [n, K] f32 -> b [n, K] bool`.

    Args:
        best_flips: `model.refine.best_flips` of rows, mapped over devices.
        iterations: rounds of flips of a row at most.
    """
    bits = u.shape[1]
    rows = np.concatenate([z, u, np.where(u > 0, 1, -1).astype(np.float32)], 1)
    left = np.arange(len(rows))
    for _ in range(iterations):
        flips = np.concatenate([best_flips(rows[part]) for part in parts(left)])[: len(left)]
        flipped = flips.any(1)
        left, flips = left[flipped], flips[flipped]
        if not len(left):
            break
        rows[left, -bits:] *= np.where(flips, -1, 1)
    return rows[:, -bits:] > 0


def parts(left: np.ndarray) -> Iterator[np.ndarray]:
    """Row numbers by call: all whole calls, then the rest, filled up by repeating rows."""
    whole = len(left) // CALL_ROWS * CALL_ROWS
    if whole:
        yield left[:whole]
    if whole < len(left):
        size = LEAST_ROWS
        while size < len(left) - whole:
            size *= 2
        yield np.resize(left[whole:], size)


def refine_blocks(
    best_flips: Callable[[np.ndarray], np.ndarray], blocks: Iterable, iterations: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The refined codes of blocks of rows, zeros in a bad row; see `refine`.

    Args:
        blocks: (start, (z `[n, P]`, u `[n, K]`, good `[n] bool`)).

    Yields:
        (start, codes `[n, W] u1`, good).
    """
    for start, (z, u, good) in blocks:
        b = np.zeros(u.shape, bool)
        if good.any():
            b[good] = refine(best_flips, z[good], u[good], iterations)
        yield start, np.packbits(b, axis=1), good


def moves(decode: Callable[[np.ndarray], np.ndarray], bits: int) -> np.ndarray:
    """What flips of two bits move ẑ by, for `model.refine.best_flips`: `[K, K] f32`.

    Means of b_k b_l Δ_k·Δ_l over random codes, where a flip of bit k moves D(b) by Δ_k.

    Args:
        decode: packed codes `[n, W] u1` to ẑ `[n, P]`.
    """
    b = np.random.default_rng(0).integers(0, 2, (SAMPLE, bits)).astype(bool)
    at = decode(np.packbits(b, axis=1))
    moved = np.empty((bits, at.size), np.float32)
    for k in range(bits):
        flipped = b.copy()
        flipped[:, k] ^= True
        moved[k] = (
            np.where(b[:, k, None], 1, -1) * (decode(np.packbits(flipped, axis=1)) - at)
        ).ravel()
    return moved @ moved.T / SAMPLE
