"""Refines the codes of blocks of rows: flips bits until no flips of `model.refine` help.

A row that is finished leaves its place to a row of a later block, so that it costs nothing more
and the calls of the devices are full.

Shapes: n rows of a block, m rows in work, K bits, P features, W packed bytes.

Not responsible for what flips are worth: `model.refine`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

CALL_ROWS = 512  # that a device computes at once; for each, five codes are decoded
LEAST_ROWS = 128  # of a call, where there are few rows in all
SAMPLE = 256  # codes of `moves`


class Refinement(NamedTuple):
    """How far the codes of base rows are refined."""

    mu: float = 0.0  # μ, the price of a flip where |u| = ‖z‖ = 1, in units of ‖z‖²; 0: none
    iterations: int = 16  # rounds of flips of a row at most, 1 or more


NONE = Refinement()


class _Work(NamedTuple):
    """The rows that are not finished, those of earlier blocks first."""

    rows: np.ndarray  # [m, P + 2 K] f32: z, u and b in {-1, +1}, beside one another
    block: np.ndarray  # [m] i64, the number of the row's block
    row: np.ndarray  # [m] i64, its place there
    rounds: np.ndarray  # [m] i64, of flips so far

    @classmethod
    def of(cls, number: int, z: np.ndarray, u: np.ndarray, good: np.ndarray) -> "_Work":
        row = np.flatnonzero(good)
        z, u = z[row], u[row]
        rows = np.concatenate([z, u, np.where(u > 0, 1, -1)], 1, dtype=np.float32)
        return cls(rows, np.full_like(row, number), row, np.zeros_like(row))

    def joined(self, later: "_Work") -> "_Work":
        return _Work(*map(np.concatenate, zip(self, later, strict=True)))

    def taken(self, rows: np.ndarray | slice) -> "_Work":
        return _Work(*(values[rows] for values in self))


def call_rows(rows: int, most: int) -> int:
    """The rows of a call: `most`, or a smaller power of two where there are few `rows` in all.

    The last calls of a file are as large as the first ones, since a matrix product of another shape
    may add in another order.
    """
    return min(most, max(LEAST_ROWS, 1 << max(0, rows - 1).bit_length()))


def refine_blocks(
    best_flips: Callable[[np.ndarray], np.ndarray], blocks: Iterable, size: int, iterations: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The refined codes of blocks of rows, zeros in a bad row.

    Args:
        best_flips: `model.refine.best_flips` of rows, mapped over devices.
        blocks: (start, (z `[n, P] f32`, u `[n, K] f32`, good `[n] bool`)).
        size: of a call, `call_rows`.
        iterations: rounds of flips of a row at most, 1 or more.

    Yields:
        (start, codes `[n, W] u1`, good), in the order of the blocks.
    """
    begun: dict[int, tuple[int, np.ndarray, np.ndarray]] = {}  # start, bits and good by number

    def turn(work: _Work, m: int) -> _Work:
        """One round of the first m rows; those left."""
        now = work.taken(slice(m))
        calls = now.rows if m % size == 0 else np.resize(now.rows, (size, now.rows.shape[1]))
        flips = best_flips(calls)[:m]
        b = now.rows[:, -flips.shape[1] :]
        b *= np.where(flips, -1, 1)  # in `work` too, of which these are views
        now.rounds[:] += 1
        finished = ~flips.any(1) | (now.rounds == iterations)
        for number in np.unique(now.block[finished]):
            here = finished & (now.block == number)
            begun[number][1][now.row[here]] = b[here] > 0
        left = np.ones(len(work.row), bool)
        left[:m] = ~finished
        return work.taken(left)

    def ended(work: _Work | None) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """The blocks before that of the first row at work."""
        for number in list(begun):
            if work is not None and len(work.block) and number >= work.block[0]:
                break
            start, b, good = begun.pop(number)
            yield start, np.packbits(b, axis=1), good

    work = None
    for number, (start, (z, u, good)) in enumerate(blocks):
        begun[number] = start, np.zeros(u.shape, bool), good
        more = _Work.of(number, z, u, good)
        work = more if work is None else work.joined(more)
        while m := len(work.row) // size * size:
            work = turn(work, m)
        yield from ended(work)
    while work is not None and len(work.row):
        work = turn(work, len(work.row))
    yield from ended(work)


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
