"""Search among some of the rows of codes: without those that are missing, or in a subset alone.

Shapes: Q queries, N rows of codes, W bytes a code, m missing rows, s rows of a subset, k
neighbours.

Not responsible for how neighbours are found, nor for why a row is missing.
"""

from collections.abc import Callable, Iterator

import numpy as np

from sigah_jax.errors import BadInput
from sigah_jax.retrieval import topk

COPY_BYTES = 1 << 28  # rows and their numbers that are copied at once

Find = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def search(
    find: Find, cb: np.ndarray, missing: np.ndarray, k: int, subset: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`find(cb, k)` as if the other rows were not there, by the row numbers in cb.

    The rows that are searched are copied in blocks of `COPY_BYTES`, so that memory stays bounded,
    and nothing is computed for the others: the cost is that of a search of so many codes.

    Args:
        find: gives (distances, row numbers), `[Q, k]` each, by (distance, row number).
        cb: `[N, W] u8`, also a memory map.
        missing: `[m] i64`, rising: rows that are not searched.
        k: 1 to the number of rows that are searched.
        subset: `[s] i64`, rising, none of them missing: the rows that are searched; None: all
            that are not missing.
    """
    if subset is None and not len(missing):
        return find(cb, k)
    best = []
    for at in blocks(len(cb), missing, subset, max(1, COPY_BYTES // (cb.shape[1] + 8))):
        d, ids = find(cb[at], min(k, len(at)))
        best = [topk.merge([*best, (d, at[ids])], k)]
    return best[0]


def blocks(
    rows: int, missing: np.ndarray, subset: np.ndarray | None, step: int
) -> Iterator[np.ndarray]:
    """The numbers of the rows that are searched, `[step] i64` at once, rising; of `search`.

    Args:
        rows: N.
    """
    count = rows - len(missing) if subset is None else len(subset)
    for start in range(0, count, step):
        stop = min(start + step, count)
        yield present(np.arange(start, stop), missing) if subset is None else subset[start:stop]


def present(numbers: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Row numbers of the rows that are counted from 0 without those of `missing [m]`, rising."""
    return numbers + np.searchsorted(missing - np.arange(len(missing)), numbers, side="right")


def subset(only: np.ndarray, rows: int, missing: np.ndarray) -> np.ndarray:
    """The rows to be searched, `[s] i64`, rising, without those of `missing`.

    Args:
        only: `[n]` row numbers, distinct, in any order; or `[rows] bool`, True for those rows.
        rows: N.
        missing: `[m] i64`, rising.

    Raises:
        BadInput: another shape or type, a number that is not a row's, or that is there twice.
    """
    if only.shape == (0,) and only.dtype != bool:  # numpy makes floats of an empty list
        only = only.astype(np.int64)
    if only.ndim != 1 or only.dtype.kind not in "iub":
        raise BadInput(
            f"holds {only.dtype} {list(only.shape)}; give row numbers [n], or a boolean for each "
            f"of the {rows} codes"
        )
    if only.dtype == bool:
        if len(only) != rows:
            raise BadInput(f"holds {len(only)} booleans, expected one for each of {rows} codes")
        numbers = np.flatnonzero(only)
    else:
        numbers = np.sort(only)
        if len(numbers) and not 0 <= numbers[0] <= numbers[-1] < rows:
            wrong = numbers[0] if numbers[0] < 0 else numbers[-1]
            raise BadInput(f"holds row {wrong}, but rows are numbered 0 to {rows - 1}")
        if (twice := numbers[1:][numbers[1:] == numbers[:-1]]).size:
            raise BadInput(f"holds row {twice[0]} twice; give each row once")
    numbers = numbers.astype(np.int64)
    return np.setdiff1d(numbers, missing, assume_unique=True) if len(missing) else numbers
