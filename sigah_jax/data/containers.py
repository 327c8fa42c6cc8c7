"""Formats of vectors that need a library to read: HDF5, MAT and parquet.

Shapes: n rows, d columns.

Not responsible for the formats that need none (`raw`) nor for the choice by file name (`vectors`).
"""

import contextlib
import importlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import BinaryIO, NamedTuple

import numpy as np

from sigah_jax.data.files import name_of
from sigah_jax.errors import BadInput

# MATLAB class -> dtype, of arrays of numbers; logical, char, sparse and cell are among the others
_MAT_NUMBERS = {"double": "float64", "single": "float32"}
_MAT_NUMBERS |= {kind: kind for b in (8, 16, 32, 64) for kind in (f"int{b}", f"uint{b}")}

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
    except (BadInput, MemoryError):
        raise
    # on damaged bytes the libraries raise nearly anything, so only their calls stand in here
    except Exception as e:
        reason = " ".join(str(e).split())
        raise BadInput(f"{path}: cannot be read as {kind} ({reason}); {remedy}") from e


def open_hdf5(f: BinaryIO, path: Path, dataset: str) -> Opened:
    """A 2-d dataset of an HDF5 file, `[n, d]`; ann-benchmarks calls them train and test."""
    h5py = _library("h5py", path)
    found = {}

    def note(name: str, item) -> None:
        if _is_matrix(h5py, item):
            found[name] = f"{item.dtype} {list(item.shape)}"

    with reading_as("HDF5", path):
        file = h5py.File(name_of(f))
        file.visititems(note)
    name = _choose(path, found, dataset.strip("/"))
    return _hdf5_matrix(path, file[name], transposed=False)


def open_mat(f: BinaryIO, path: Path, dataset: str) -> Opened:
    """A matrix `[n, d]` of a MAT file: the one named, else the only one, else X.

    Version 7.3 is HDF5 and is read by rows; older ones pack a matrix as one piece: it is loaded.
    """
    if f.read(10) == b"MATLAB 7.3":
        return _open_mat73(f, path, dataset)

    from scipy import io

    with reading_as("MAT", path):
        listed = io.whosmat(f)
    kinds = {name: kind for name, shape, kind in listed if len(shape) == 2 and kind in _MAT_NUMBERS}
    found = {name: f"{kind} {list(shape)}" for name, shape, kind in listed if name in kinds}
    name = _choose(path, found, dataset, "X")
    with reading_as("MAT", path):
        x = io.loadmat(f, variable_names=[name])[name]
    # complex numbers have the class of their parts: the caller refuses them
    if not np.iscomplexobj(x):
        # MATLAB packs a double matrix of small integers as bytes; and it stores by columns
        x = np.ascontiguousarray(x, _MAT_NUMBERS[kinds[name]])
    return in_memory(x)


def open_parquet(f: BinaryIO, path: Path, dataset: str) -> Opened:
    """A column of lists of d numbers each, `[n, d]`; keeps the last decoded row group."""
    pa, pq = _library("pyarrow", path), _library("pyarrow.parquet", path)
    with reading_as("parquet", path):
        file = pq.ParquetFile(name_of(f), page_checksum_verification=True)
        schema = file.schema_arrow
        columns = {c.name: c.type for c in schema if _is_list_of_numbers(pa.types, c.type)}
        plain = sum(_is_number(pa.types, c.type) for c in schema)
        if plain and not columns:
            raise BadInput(
                f"{path}: has {plain} columns of numbers and none of lists; each vector must be "
                "one list in a column of lists, write them so or as .npy"
            )
        name = _choose(path, {c: str(t) for c, t in columns.items()}, dataset)
        dtype = np.dtype(columns[name].value_type.to_pandas_dtype())
        meta = file.metadata
        rows = [meta.row_group(g).num_rows for g in range(meta.num_row_groups)]
        d = _first_length(file, name)
        if meta.num_rows and not d:
            raise BadInput(f"{path}: the first list of {name!r} is empty; repair or remove it")
    ends = np.cumsum(rows, dtype=np.int64).tolist()

    def decode(group: int) -> np.ndarray:
        start = ends[group] - rows[group]
        with reading_as("parquet", path):
            chunks = file.read_row_group(group, columns=[name]).column(0).chunks
        parts = []
        for chunk in chunks:
            parts.append(_list_rows(path, chunk, d, start).astype(dtype, copy=False))
            start += len(chunk)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return Opened((int(meta.num_rows), d), dtype, _by_piece(path, ends, d, dtype, decode), None)


def _open_mat73(f: BinaryIO, path: Path, dataset: str) -> Opened:
    h5py = _library("h5py", path)
    found = {}
    with reading_as("MAT 7.3", path):
        file = h5py.File(name_of(f))
        for name, item in file.items():
            # a sparse matrix is a group and a complex one holds pairs, both with the class of
            # their parts
            kind = bytes(item.attrs.get("MATLAB_class", b"")).decode()
            if kind in _MAT_NUMBERS and _is_matrix(h5py, item):
                found[name] = f"{kind} {list(item.shape[::-1])}"
    return _hdf5_matrix(path, file[_choose(path, found, dataset, "X")], transposed=True)


def _hdf5_matrix(path: Path, matrix, transposed: bool) -> Opened:
    """`transposed`: the file holds `[d, n]`, as MATLAB writes them."""
    with reading_as("HDF5", path):
        n, d = matrix.shape[::-1] if transposed else matrix.shape
        dtype = matrix.dtype.newbyteorder("=")
        tall = matrix.chunks[1 if transposed else 0] if matrix.chunks else 1

    def fetch(start: int, stop: int) -> np.ndarray:
        with reading_as("HDF5", path):
            x = matrix[:, start:stop].T if transposed else matrix[start:stop]
        return np.ascontiguousarray(x, dtype)

    # HDF5 unpacks a chunk for each read that touches it: chunks taller than a read are kept
    rows = min(tall, max(1, _MAX_PIECE_BYTES // (max(d, 1) * dtype.itemsize)))
    ends = range(rows, n + rows, rows)
    by_piece = _by_piece(path, ends, d, dtype, lambda i: fetch(i * rows, min((i + 1) * rows, n)))

    def read(start: int, stop: int) -> np.ndarray:
        return fetch(start, stop) if stop - start >= rows else by_piece(start, stop)

    return Opened((n, d), dtype, read, None)


def _by_piece(
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


def _first_length(f, name: str) -> int:
    """How many numbers the first list of a column holds that is not null; 0 if there is none."""
    for batch in f.iter_batches(1, columns=[name]):
        lengths = batch.column(0).value_lengths().drop_null()
        if len(lengths):
            return lengths[0].as_py()
    return 0


def _is_matrix(h5py, item) -> bool:
    return isinstance(item, h5py.Dataset) and item.ndim == 2 and item.dtype.kind in "iuf"


def _is_list_of_numbers(types, kind) -> bool:
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_number(types, kind.value_type)
    return False


def _is_number(types, kind) -> bool:
    return types.is_integer(kind) or types.is_floating(kind)


def _list_rows(path: Path, lists, d: int, first: int) -> np.ndarray:
    """`[len(lists), d]` of an arrow array of lists, whose first is row `first` of the file.

    Floats that are null, and lists of them, are NaN; integers have none, and are refused.
    """
    there = lists.is_valid().to_numpy(zero_copy_only=False)
    wrong = there & (lists.value_lengths().to_numpy(zero_copy_only=False) != d)
    if wrong.any():
        row = int(wrong.argmax())
        raise BadInput(
            f"{path}: row {first + row} holds {lists[row].as_py()!r:.60}, expected a list of {d} "
            "numbers as in the rows before; repair or remove it"
        )
    values = lists.flatten()  # without the lists that are null
    holes = ~there
    holes[there] = values.is_null().to_numpy(zero_copy_only=False).reshape(-1, d).any(1)
    x = values.to_numpy(zero_copy_only=False).reshape(-1, d)
    if not holes.any():
        return x
    if np.dtype(values.type.to_pandas_dtype()).kind != "f":
        raise BadInput(f"{path}: row {first + holes.argmax()} holds null; repair or remove it")
    out = np.full((len(lists), d), np.nan, x.dtype)
    out[there] = x
    return out


def _choose(path: Path, found: dict[str, str], dataset: str, default: str = "") -> str:
    """The name among `found`, name -> dtype and shape for the message, that `dataset` means."""
    if dataset in found:
        return dataset
    if not dataset and len(found) == 1:
        return next(iter(found))
    if not dataset and default in found:
        return default
    if not found:
        raise BadInput(f"{path}: holds no matrix of numbers; write one of n rows, d columns")
    listed = ", ".join(f"{name} ({what})" for name, what in sorted(found.items()))
    wrong = f"no matrix of numbers named {dataset!r}" if dataset else "more than one matrix"
    raise BadInput(f"{path}: {wrong}; name one as {path}:NAME, of: {listed}")


def _library(name: str, path: Path):
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise BadInput(
            f"{path}: reading it needs {name}; run pip install 'sigah_jax[formats]'"
        ) from e
