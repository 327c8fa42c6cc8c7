"""Matrices of numbers in MAT files of versions 4 to 7.

Format: "MAT-File Format", MathWorks. SciPy reads it too, but one flipped bit (that of complex
numbers) makes it end the process, and it unpacks more than a header names.

Shapes: n rows, d columns.

Not responsible for version 7.3, which is HDF5, nor for the choice of a matrix (`containers`).
"""

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from sigah_jax.data.files import check_memory, check_unpacked, read_into

_PACKED, _MATRIX = 15, 14  # types of element
_HEAD_BYTES = 4096  # what stands before the numbers of a matrix is shorter
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_STORED |= {12: "i8", 13: "u8"}
_STORED_4 = ("f8", "f4", "i4", "i2", "u2", "u1")
_CLASSES = {6: "double", 7: "single"}
_CLASSES |= {8 + i: f"{'u' * (i % 2)}int{8 << i // 2}" for i in range(8)}


class Matrix(NamedTuple):
    """Where a matrix of numbers lies in a file."""

    kind: str  # its class in MATLAB: double, single, int8 …
    shape: tuple[int, ...]
    is_complex: bool
    packed: bool
    element: tuple[int, int]  # start and bytes in the file
    start: int  # of the numbers in the unpacked element
    size: int  # bytes of the numbers
    stored: np.dtype


def list_matrices(f: BinaryIO) -> dict[str, Matrix]:
    """The arrays of numbers by name, logical ones excluded.

    Raises:
        Exception: any, if the bytes are not a MAT file or are damaged.
    """
    # a file of version 4 begins with a number below 5000, others with a line of text
    listed = _version_4(f) if 0 in os.pread(f.fileno(), 4, 0) else _version_5(f)
    found = {}
    for name, matrix in listed:
        found.setdefault(name, matrix)
    return found


def read_matrix(f: BinaryIO, path: Path, matrix: Matrix, dtype: np.dtype) -> np.ndarray:
    """The numbers of a real matrix, `[n, d]` in `dtype`, by rows.

    Raises:
        BadInput: they need more memory than there is, or more bytes than the file can unpack to.
        Exception: any, if the bytes are damaged.
    """
    (n, d), (start, packed_size) = matrix.shape, matrix.element
    if matrix.size != n * d * matrix.stored.itemsize:
        raise ValueError(f"{matrix.size} bytes are no {n} x {d} of {matrix.stored}")
    check_unpacked(path, matrix.size, packed_size)
    check_memory(path, matrix.size + n * d * dtype.itemsize)
    data = np.empty(packed_size, np.uint8)
    if not read_into(data, f, start):
        raise ValueError("it is cut off")
    if matrix.packed:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(data, matrix.start + matrix.size + 8)  # to a multiple of 8
        if not unpacker.eof:  # its checksum comes last
            raise ValueError("a compressed matrix does not end where its header says")
    x = np.frombuffer(data, matrix.stored, n * d, matrix.start)
    return np.ascontiguousarray(x.reshape((n, d), order="F"), dtype)


def _version_5(f: BinaryIO) -> Iterator[tuple[str, Matrix]]:
    order = {b"IM": "<", b"MI": ">"}.get(os.pread(f.fileno(), 2, 126))
    if not order:
        raise ValueError("it has no header of that format")
    for packed, start, size in _elements(f, order):
        data = os.pread(f.fileno(), min(size, _HEAD_BYTES), start)
        data = zlib.decompressobj().decompress(data, _HEAD_BYTES) if packed else data
        _, at, _, after = _part(data, 8 * packed, order)
        (flags,) = struct.unpack_from(order + "I", data, at)
        if flags & 0xFF not in _CLASSES or flags & 0x200:  # text, cells, sparse …, or logical
            continue
        _, at, size_bytes, after = _part(data, after, order)
        shape = struct.unpack_from(f"{order}{size_bytes // 4}I", data, at)
        _, at, name_bytes, after = _part(data, after, order)
        name = data[at : at + name_bytes].decode("latin-1")
        number, at, size_bytes, _ = _part(data, after, order)
        matrix = Matrix(
            _CLASSES[flags & 0xFF],
            shape,
            bool(flags & 0x800),
            packed,
            (start, size),
            at,
            size_bytes,
            np.dtype(order + _STORED[number]),
        )
        if name:  # what has none belongs to functions
            yield name, matrix


def _version_4(f: BinaryIO) -> Iterator[tuple[str, Matrix]]:
    at, end = 0, os.fstat(f.fileno()).st_size
    while at < end:
        head = os.pread(f.fileno(), 20, at)
        order = "<" if 0 <= struct.unpack("<i", head[:4])[0] < 5000 else ">"
        kind, rows, columns, is_complex, name_bytes = struct.unpack(order + "5i", head)
        stored = np.dtype(order + _STORED_4[kind // 10 % 10])
        start = 20 + name_bytes
        real = rows * columns * stored.itemsize
        size = start + (2 * real if is_complex else real)
        if min(rows, columns, name_bytes) < 0 or at + size > end:
            raise ValueError("it is cut off")
        if kind % 10 == 0:  # neither text nor sparse
            name = os.pread(f.fileno(), name_bytes, at + 20).rstrip(b"\0").decode("latin-1")
            facts = (rows, columns), bool(is_complex), False, (at, size), start, real, stored
            yield name, Matrix("double", *facts)
        at += size


def _elements(f: BinaryIO, order: str) -> Iterator[tuple[bool, int, int]]:
    """(packed, start, bytes) of every array in a file."""
    at, end = 128, os.fstat(f.fileno()).st_size
    while at < end:
        kind, size = struct.unpack(order + "II", os.pread(f.fileno(), 8, at))
        if at + 8 + size > end:
            raise ValueError("it is cut off")
        if kind in (_PACKED, _MATRIX):
            yield kind == _PACKED, at + 8, size
        at += 8 + size


def _part(data: bytes, at: int, order: str) -> tuple[int, int, int, int]:
    """(type, start, bytes, start of the next part) of the part at `at` of an array."""
    kind, size = struct.unpack_from(order + "II", data, at)
    if kind >> 16:  # up to four bytes, in place of the size
        return kind & 0xFFFF, at + 4, kind >> 16, at + 8
    return kind, at + 8, size, at + 8 + size + -size % 8
