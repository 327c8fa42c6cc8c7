"""Refines the codes of blocks of rows: flips bits until no flip of `model.refine` helps.

Rows that are finished leave the block, so that they cost nothing more.

Shapes: n rows, K bits, P features, W packed bytes.

Not responsible for what a flip is worth: `model.refine`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

LEAST_ROWS = 128  # computed at once; each fourfold of it is compiled once
SAMPLE = 256  # codes of `moves`


class Refinement(NamedTuple):
    """How far the codes of base rows are refined."""

    mu: float = 0.0  # μ, the price of a flip where |u| = 1, in units of ‖z‖²; 0: no refinement
    iterations: int = 16  # flips of a row at most


NONE = Refinement()


def refine(
    best_flip: Callable[[np.ndarray], np.ndarray], z: np.ndarray, u: np.ndarray, iterations: int
) -> np.ndarray:
    """The refined codes of a block of rows: `z [n, P], u [n, K] f32 -> b [n, K] bool`.

    Args:
        best_flip: `model.refine.best_flip` of rows, mapped over devices.
        iterations: flips of a row at most.
    """
    bits = u.shape[1]
    rows = np.concatenate([z, u, np.where(u > 0, 1, -1).astype(np.float32)], 1)
    left = np.arange(len(rows))
    for _ in range(iterations):
        size = LEAST_ROWS
        while size < len(left):
            size *= 4
        flips = best_flip(rows[np.resize(left, size)])[: len(left)]  # the rest are repeated rows
        left, flips = left[flips >= 0], flips[flips >= 0]
        if not len(left):
            break
        rows[left, rows.shape[1] - bits + flips] *= -1
    return rows[:, -bits:] > 0


def refine_blocks(
    best_flip: Callable[[np.ndarray], np.ndarray], blocks: Iterable, iterations: int
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
            b[good] = refine(best_flip, z[good], u[good], iterations)
        yield start, np.packbits(b, axis=1), good


def moves(decode: Callable[[np.ndarray], np.ndarray], bits: int) -> np.ndarray:
    """Mean ‖D(b) - D(b with bit k flipped)‖² of each bit, over random codes: `[K] f32`.

    Args:
        decode: packed codes `[n, W] u1` to ẑ `[n, P]`.
    """
    b = np.random.default_rng(0).integers(0, 2, (SAMPLE, bits)).astype(bool)
    at, out = decode(np.packbits(b, axis=1)), np.empty(bits, np.float32)
    for k in range(bits):
        flipped = b.copy()
        flipped[:, k] ^= True
        out[k] = ((at - decode(np.packbits(flipped, axis=1))) ** 2).sum(1).mean()
    return out
