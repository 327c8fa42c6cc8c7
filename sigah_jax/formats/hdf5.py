"""HDF5 files, and MAT files, which are HDF5 from version 7.3 on.

Shapes: n rows, d columns.

Not responsible for the other formats (`raw`, `parquet`) nor for the choice by file name
(`vectors`).
"""

import math
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sigah_jax.errors import BadInput
from sigah_jax.files.regular import check_memory, check_unpacked, name_of
from sigah_jax.formats.opened import Opened, by_piece, choose, in_memory, library, reading_as

# MATLAB class -> dtype, of arrays of numbers; logical, char, sparse and cell are among the others
_MAT_NUMBERS = {"double": "float64", "single": "float32"}
_MAT_NUMBERS |= {kind: kind for b in (8, 16, 32, 64) for kind in (f"int{b}", f"uint{b}")}

_MAX_LINKS = 16  # that follow one another; more are a circle
_MAX_PIECE_BYTES = 2**30  # of what is decoded at once of an HDF5 file


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
