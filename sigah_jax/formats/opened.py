"""An opened file of vectors, whatever its format, and what readers of several formats share.

Shapes: n rows, d columns.
"""

import contextlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import NamedTuple

import numpy as np

from sigah_jax.errors import BadInput, optional, printable


class Opened(NamedTuple):
    """What an opener finds; the fields of `vectors.Vectors` before the shape is checked."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[int, int], np.ndarray]
    view: Callable[[], np.ndarray] | None


def in_memory(x: np.ndarray) -> Opened:
    """An array that had to be loaded whole."""
    return Opened(x.shape, x.dtype, lambda start, stop: x[start:stop].copy(), lambda: x)


@contextlib.contextmanager
def reading_as(kind: str, path: Path, remedy: str = "get it again") -> Iterator[None]:
    """Turns what a library raises on bytes it cannot read into BadInput."""
    try:
        yield
    except BadInput:
        raise
    except MemoryError as e:
        raise BadInput(
            f"{path}: reading it needs more memory than there is; split it, or use another machine"
        ) from e
    # on damaged bytes the libraries raise nearly anything, so only their calls stand in here
    except BaseException as e:
        # what Lance raises from Rust is not an Exception, as Ctrl-C is not
        if not isinstance(e, Exception) and type(e).__name__ != "PanicException":
            raise
        reason = printable(" ".join(str(e).split()))[:300]  # some quote the bytes
        raise BadInput(f"{path}: cannot be read as {kind} ({reason}); {remedy}") from e


def by_piece(
    path: Path, ends: Sequence[int], d: int, dtype: np.dtype, decode: Callable[[int], np.ndarray]
) -> Callable[[int, int], np.ndarray]:
    """`read` of rows that are decoded by the piece, of which it keeps the last.

    Args:
        ends: the row at which each piece ends, rising.
        decode: number of a piece -> its rows `[.., d]`.
    """
    latest, lock = lru_cache(maxsize=1)(decode), Lock()

    def read(start: int, stop: int) -> np.ndarray:
        x, at = np.empty((stop - start, d), dtype), start
        while at < stop:
            piece = bisect_right(ends, at)
            first = ends[piece - 1] if piece else 0
            with lock:
                rows = latest(piece)[at - first : stop - first]
            if not len(rows):
                raise BadInput(f"{path}: holds fewer rows than its header says; get it again")
            x[at - start : at - start + len(rows)] = rows
            at += len(rows)
        return x

    return read


def choose(path: Path, found: dict[str, str], dataset: str, default: str = "") -> str:
    """The name among `found`, name -> dtype and shape for the message, that `dataset` means."""
    if dataset in found:
        return dataset
    if not dataset and len(found) == 1:
        return next(iter(found))
    if not dataset and default in found:
        return default
    if not found:
        raise BadInput(f"{path}: holds no matrix of numbers; write one of n rows, d columns")
    listed = ", ".join(f"{printable(name)[:80]} ({what})" for name, what in sorted(found.items()))
    wrong = f"no matrix of numbers named {dataset!r}" if dataset else "more than one matrix"
    raise BadInput(f"{path}: {wrong}; name one as {path}:NAME, of: {listed}")


def library(name: str, path: Path) -> ModuleType:
    """A module that reads the file; BadInput if its package is not installed."""
    return optional(name, f"{path}: reading it", "formats")
