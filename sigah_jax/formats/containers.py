"""Formats of vectors that need a library to read: HDF5 and MAT.

Shapes: n rows, d columns.

Not responsible for Parquet (`parquet`), the formats that need no library (`raw`) nor for the choice
by file name (`vectors`).
"""

import contextlib
import math
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import BinaryIO, NamedTuple

import numpy as np

from sigah_jax.errors import BadInput, optional, printable
from sigah_jax.files.regular import check_memory, check_unpacked, name_of

# MATLAB class -> dtype, of arrays of numbers; logical, char, sparse and cell are among the others
_MAT_NUMBERS = {"double": "float64", "single": "float32"}
_MAT_NUMBERS |= {kind: kind for b in (8, 16, 32, 64) for kind in (f"int{b}", f"uint{b}")}

_MAX_LINKS = 16  # that follow one another; more are a circle
_MAX_PIECE_BYTES = 2**30  # of what is decoded at once of an HDF5 file


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


def open_hdf5(f: BinaryIO, path: Path, dataset: str) -> Opened:
    """A 2-d dataset of an HDF5 file, `[n, d]`; ann-benchmarks calls them train and test."""
    return _open_hdf5(f, path, dataset.strip("/"), "", of_matlab=False)


def open_mat(f: BinaryIO, path: Path, dataset: str) -> Opened:
    """A matrix `[n, d]` of a MAT file: the one named, else the only one, else X.

    Version 7.3 is HDF5 and is read by rows; older ones pack a matrix as one piece: it is loaded.
    """
    if f.read(10) == b"MATLAB 7.3":
        return _open_hdf5(f, path, dataset, "X", of_matlab=True)

    from scipy import io

    with reading_as("MAT", path):
        listed = io.whosmat(f)
    matrices = {v[0]: v[1:] for v in listed if len(v[1]) == 2 and v[2] in _MAT_NUMBERS}
    found = {name: f"{kind} {list(shape)}" for name, (shape, kind) in matrices.items()}
    name = choose(path, found, dataset, "X")
    (n, d), kind = matrices[name]
    check_unpacked(path, n * d, os.fstat(f.fileno()).st_size)  # a byte a value, or more
    # by columns, then by rows
    check_memory(path, 2 * n * d * np.dtype(_MAT_NUMBERS[kind]).itemsize)
    with reading_as("MAT", path):
        x = io.loadmat(f, variable_names=[name])[name]
    # complex numbers have the class of their parts: the caller refuses them
    if not np.iscomplexobj(x):
        # MATLAB packs a double matrix of small integers as bytes; and it stores by columns
        x = np.ascontiguousarray(x, _MAT_NUMBERS[kind])
    return in_memory(x)


def _open_hdf5(f: BinaryIO, path: Path, dataset: str, default: str, of_matlab: bool) -> Opened:
    h5py = library("h5py", path)
    found = {}

    def note(name: str, item) -> None:
        if about := _about_matrix(h5py, item, of_matlab):
            found[name] = about

    with reading_as("HDF5", path):
        try:
            file = h5py.File(name_of(f))
        except BlockingIOError as e:
            raise BadInput(f"{path}: another process is writing it; wait until it is closed") from e
        if dataset and _about_matrix(h5py, item := _follow(h5py, path, file, dataset), of_matlab):
            return _hdf5_matrix(path, dataset, item, of_matlab)
        file.visititems(note)  # follows no links to names, in this file or in another
        if of_matlab:  # cells and structures lie in groups
            found = {name: about for name, about in found.items() if "/" not in name}
        if not found:
            names = (n for n in file if isinstance(file.get(n, getlink=True), h5py.ExternalLink))
            found = dict.fromkeys(names, "external link")
        name = choose(path, found, dataset, default)
        return _hdf5_matrix(path, name, _follow(h5py, path, file, name), of_matlab)


def _about_matrix(h5py, item, of_matlab: bool) -> str:
    """dtype and shape of a matrix of numbers, "" of anything else."""
    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "iuf":
        return ""
    if item.is_virtual:  # its shape may be that of other files
        return "virtual"
    if item.ndim != 2:
        return ""
    if not of_matlab:
        return f"{item.dtype} {list(item.shape)}"
    # a sparse matrix is a group and a complex one holds pairs, both with the class of their parts
    kind = bytes(item.attrs.get("MATLAB_class", b"")).decode()
    return f"{kind} {list(item.shape[::-1])}" if kind in _MAT_NUMBERS else ""


def _follow(h5py, path: Path, file, name: str):
    """What an HDF5 file calls by a name, through soft links too; None if there is nothing.

    Raises:
        BadInput: the name leads into another file.
    """
    item, left, links = file, name.split("/")[::-1], 0
    while left and links <= _MAX_LINKS:
        part = left.pop()
        if part in ("", "."):
            continue
        link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
        if link is None:
            return None
        if isinstance(link, h5py.ExternalLink):
            raise _elsewhere(path, name, f"behind an external link to {link.filename!r}")
        if isinstance(link, h5py.SoftLink):
            links += 1
            item = file if link.path.startswith("/") else item
            left += link.path.split("/")[::-1]
        else:
            item = item[part]
    return None if left else item


def _elsewhere(path: Path, name: str, how: str) -> BadInput:
    # a file from a stranger could name any file of this machine; and HDF5 reads fill values in
    # place of one that is missing
    return BadInput(
        f"{path}: {name!r} is {how}, so that its values lie in other files, which are not read; "
        "copy its rows into one file, e.g. with h5py"
    )


def _hdf5_matrix(path: Path, name: str, matrix, transposed: bool) -> Opened:
    """`transposed`: the file holds `[d, n]`, as MATLAB writes them."""
    if matrix.is_virtual:
        raise _elsewhere(path, name, "a virtual dataset")
    if matrix.external:
        raise _elsewhere(path, name, "kept in external storage")
    n, d = matrix.shape[::-1] if transposed else matrix.shape
    dtype = matrix.dtype.newbyteorder("=")
    check_unpacked(path, n * d * dtype.itemsize, matrix.id.get_storage_size())
    if matrix.chunks:
        wanted = math.prod(-(-n // c) for n, c in zip(matrix.shape, matrix.chunks, strict=True))
        if (there := matrix.id.get_num_chunks()) < wanted:  # zeros would be read for the others
            raise BadInput(
                f"{path}: of {name!r} only {there} of {wanted} chunks were written, so rows are "
                "missing; get it, or write it, again"
            )
    tall = matrix.chunks[1 if transposed else 0] if matrix.chunks else 1

    def fetch(start: int, stop: int) -> np.ndarray:
        with reading_as("HDF5", path):
            x = matrix[:, start:stop].T if transposed else matrix[start:stop]
        return np.ascontiguousarray(x, dtype)

    # HDF5 unpacks a chunk for each read that touches it: chunks taller than a read are kept
    rows = min(tall, max(1, _MAX_PIECE_BYTES // (max(d, 1) * dtype.itemsize)))
    ends = range(rows, n + rows, rows)
    pieces = by_piece(path, ends, d, dtype, lambda i: fetch(i * rows, min((i + 1) * rows, n)))

    def read(start: int, stop: int) -> np.ndarray:
        return fetch(start, stop) if stop - start >= rows else pieces(start, stop)

    return Opened((n, d), dtype, read, None)


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
