"""The raw formats of vectors, read and written: a header of some bytes, then rows of numbers.

`.fvecs .ivecs .bvecs` (TEXMEX), `.fbin .ibin .u8bin .i8bin` (big-ann) and `.npy`.

Shapes: n rows, d columns.

Not responsible for formats that need a library (`hdf5`, `parquet`) nor for which format a file
that is read has (`vectors`).
"""

import os
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from ml_dtypes import bfloat16

from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.files.regular import read_into
from sigah_jax.formats.opened import Opened, reading_as

# every row: i32 d, then d values
VECS = {".fvecs": "<f4", ".ivecs": "<i4", ".bvecs": "u1"}
# once: u32 n, u32 d, then n·d values
BINS = {".fbin": "<f4", ".ibin": "<i4", ".u8bin": "u1", ".i8bin": "i1"}

# no descriptor is longer: a greater d means that the bytes are something else
MAX_DIM = 1_000_000
BLOCK_BYTES = 2**24


def open_vecs(f: BinaryIO, path: Path, dtype: np.dtype) -> Opened:
    """Rows that each begin with their d; that of row 0 counts, the others are checked by `read`."""
    size = os.fstat(f.fileno()).st_size
    d = int.from_bytes(f.read(4), "little", signed=True)
    check_array(path, (1, d), dtype)
    record = _record(d, dtype, True)
    n, rest = divmod(size, record.itemsize)
    if rest:
        raise BadInput(
            f"{path}: {size} bytes are {n} rows of {record.itemsize} (d={d}) and {rest} bytes; "
            "the file is cut off or of another format, get it again"
        )
    return _records(f, path, n, record, 0)


def open_bin(f: BinaryIO, path: Path, dtype: np.dtype) -> Opened:
    """n and d once, then the rows."""
    header = f.read(8)
    if len(header) < 8:
        raise BadInput(f"{path}: {len(header)} bytes, its header alone needs 8; get it again")
    n, d = struct.unpack("<II", header)
    check_array(path, (n, d), dtype)
    return _whole_records(f, path, n, _record(d, dtype, False), 8)


def open_npy(f: BinaryIO, path: Path) -> Opened:
    """A file of `np.save`, its array stored by rows."""
    with reading_as("npy", path):
        version = np.lib.format.read_magic(f)
        if version == (1, 0):
            shape, by_column, dtype = np.lib.format.read_array_header_1_0(f)
        else:
            shape, by_column, dtype = np.lib.format.read_array_header_2_0(f)
        offset = f.tell()
        f.seek(0)
        # so np.save writes it; np.load forgets that, and bytes without a type are '|V2'
        if b"'descr': '<V2'" in f.read(offset):
            dtype = np.dtype(bfloat16)
    check_array(path, shape, np.dtype(np.float32) if dtype == bfloat16 else dtype)
    if by_column:
        raise BadInput(
            f"{path}: is stored by columns, so rows cannot be read alone; "
            "save it with np.save(path, np.ascontiguousarray(x))"
        )
    return _whole_records(f, path, shape[0], _record(shape[1], dtype, False), offset)


def write_vectors(path: Path, shape: tuple[int, int], dtype, blocks: Iterable[np.ndarray]) -> None:
    """Writes rows as they come, to `.npy` or one of `VECS` and `BINS`.

    The file appears whole or not at all: on an error nothing new is left in the directory.

    Args:
        shape: (n, d).
        dtype: of the rows; must be the one that the format holds.
        blocks: `[rows, d]` arrays of that dtype, n rows in all.

    Raises:
        ValueError: blocks that do not fit shape and dtype, a dtype the format cannot hold.
        BadInput: a format that cannot be written, or the disk refuses, e.g. is full.
    """
    path, dtype, (n, d) = Path(path), np.dtype(dtype).newbyteorder("<"), shape
    check_array(path, shape, dtype)
    kind = extension(path)
    if kind not in (*VECS, *BINS, ".npy"):
        raise BadInput(
            f"{path}: {kind or 'its format'} cannot be written; use .npy, "
            f"{', '.join((*VECS, *BINS))}"
        )
    held = np.dtype({**VECS, **BINS}.get(kind, dtype))
    if held != dtype:
        raise ValueError(f"{path}: {kind} holds {held}, got dtype={dtype}")
    record = _record(d, dtype, kind in VECS)
    remedy = "free space or choose another directory"
    with whole.telling(path, remedy), whole.writing(path) as f:
        if kind in BINS:
            f.write(struct.pack("<II", n, d))
        elif kind == ".npy":
            header = {"descr": dtype.str, "fortran_order": False, "shape": (int(n), int(d))}
            np.lib.format.write_array_header_1_0(f, header)
        written = 0
        for block in blocks:
            written += len(block)
            if block.ndim != 2 or block.shape[1] != d or written > n or block.dtype != dtype:
                raise ValueError(
                    f"{path}: a block of {block.dtype} {list(block.shape)} ends at row "
                    f"{written} of {dtype} {list(shape)}"
                )
            rows = np.empty(len(block), record)
            rows["x"] = block
            if kind in VECS:
                rows["d"] = d
            f.write(rows.data)
        if written < n:
            raise ValueError(f"{path}: blocks hold {written} rows, expected {n}")


def extension(path: Path) -> str:
    """The extension that tells the format, in lower case."""
    # big-ann names the first rows of a file `base.1B.fbin.crop_nb_10000000`
    return Path(re.sub(r"\.crop_nb_\d+$", "", path.name.lower())).suffix


def row_blocks(shape: tuple[int, int], item_bytes: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of blocks of rows of about `BLOCK_BYTES`."""
    rows = max(1, BLOCK_BYTES // (shape[1] * item_bytes))
    return ((start, min(start + rows, shape[0])) for start in range(0, shape[0], rows))


def check_array(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raises BadInput unless shape and dtype are those of n rows of d numbers."""
    if dtype.kind not in "iuf":
        raise BadInput(f"{path}: holds {dtype}, expected integers or floats; convert it to float32")
    if len(shape) != 2 or bool in map(type, shape):  # numpy takes True for a number of rows
        raise BadInput(
            f"{path}: holds an array of shape {list(shape)}, expected [n, d]; reshape it"
        )
    if shape[0] < 1 or not 1 <= shape[1] <= MAX_DIM:
        raise BadInput(
            f"{path}: n={shape[0]} rows of d={shape[1]}, expected n >= 1 and d in 1..{MAX_DIM}; "
            "check that its name fits its format, or get it again"
        )


def _record(d: int, dtype: np.dtype, numbered: bool) -> np.dtype:
    """One row: its values "x", after its dimension "d" if numbered."""
    return np.dtype([("d", "<i4")] * numbered + [("x", dtype, (d,))])


def _whole_records(f: BinaryIO, path: Path, n: int, record: np.dtype, offset: int) -> Opened:
    """`_records` of a file whose header says n: the size must agree."""
    size, expected = os.fstat(f.fileno()).st_size, offset + n * record.itemsize
    if size != expected:
        raise BadInput(
            f"{path}: {size} bytes, but its header, {n} rows of {record.itemsize} bytes, needs "
            f"{expected}; the file is cut off or damaged, get it again"
        )
    return _records(f, path, n, record, offset)


def _records(f: BinaryIO, path: Path, n: int, record: np.dtype, offset: int) -> Opened:
    stored, (d,) = record["x"].subdtype
    # numpy has no bfloat16, and float32 holds its values
    native = np.dtype(np.float32) if stored == bfloat16 else stored.newbyteorder("=")

    def read(start: int, stop: int) -> np.ndarray:
        # not through a memory map: its pages would stay resident
        rows = np.empty(stop - start, record)
        with reading_as("rows", path):
            whole_rows = read_into(rows, f, offset + start * record.itemsize)
        if not whole_rows:
            raise BadInput(f"{path}: got shorter since it was opened; start again")
        if "d" in record.names and (wrong := rows["d"] != d).any():
            row = int(wrong.argmax())
            raise BadInput(
                f"{path}: row {start + row} has d={rows['d'][row]}, but row 0 has d={d}; "
                "the file is damaged, get it again"
            )
        return np.ascontiguousarray(rows["x"], native)

    def view() -> np.ndarray:
        if "d" in record.names:
            for start, stop in row_blocks((n, d), stored.itemsize):
                read(start, stop)
        return np.memmap(f, record, "r", offset, (n,))["x"]

    return Opened((n, d), native, read, view if stored == native else None)
