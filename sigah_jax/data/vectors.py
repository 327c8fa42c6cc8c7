"""Files of feature vectors: rows of an `[n, d]` array, read as they are asked for.

The format follows from the name: `.fvecs .ivecs .bvecs` (TEXMEX), `.fbin .ibin .u8bin .i8bin`
(big-ann), `.npy`, idx (`-ubyte`, `.idx`, both also `.gz`), and the formats of `containers`.

Shapes: n rows, d columns.

Not responsible for NaN (`datasets.check_finite`) nor for what the rows are used for.
"""

import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sigah_jax.data import containers
from sigah_jax.data.containers import Opened, reading_as
from sigah_jax.data.idx import parse_idx, read_bytes
from sigah_jax.errors import BadInput

# every row: i32 d, then d values
VECS = {".fvecs": "<f4", ".ivecs": "<i4", ".bvecs": "u1"}
# once: u32 n, u32 d, then n·d values
BINS = {".fbin": "<f4", ".ibin": "<i4", ".u8bin": "u1", ".i8bin": "i1"}
CONTAINERS = (".hdf5", ".h5", ".mat", ".parquet")
KNOWN = (*VECS, *BINS, ".npy", "-ubyte[.gz]", ".idx[.gz]", *CONTAINERS)

# no descriptor is longer: a greater d means that the bytes are something else
MAX_DIM = 1_000_000
_BLOCK_BYTES = 2**24
# four bytes of either text read as a d far above MAX_DIM: no real file is taken for them
_WEB_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|\?xml)", re.IGNORECASE)
_LFS_POINTER = b"version https://git-lfs"


class Vectors(NamedTuple):
    """A file of vectors that was opened: what it holds and how to get at it."""

    path: Path
    shape: tuple[int, int]  # (n, d), n >= 1, 1 <= d <= MAX_DIM
    dtype: np.dtype  # integers or floats, native byte order
    read: Callable[[int, int], np.ndarray]  # (start, stop) -> a new [stop - start, d] array
    view: Callable[[], np.ndarray] | None  # () -> [n, d], not a copy; see `as_array`


def open_vectors(path: Path, dataset: str = "") -> Vectors:
    """Opens a file of vectors; reads its header and no rows.

    `read` touches the rows asked for and no others, with three exceptions: idx files and `.mat`
    files before version 7.3 are loaded here, and parquet is read by the row group.

    Args:
        dataset: which array of an HDF5, MAT or parquet file; "" if there is one to choose from.

    Raises:
        BadInput: the file cannot be read, is not what its name says, or does not hold rows of
            numbers. `read` raises it too: for a row with another d, or a damaged block.
    """
    path = Path(path)
    _check_file(path)
    kind = _format(path)
    if dataset and kind not in CONTAINERS:
        raise BadInput(
            f"{path}: dataset={dataset!r}, but {kind} files hold one array; leave it out"
        )
    if kind in VECS:
        opened = _open_vecs(path, np.dtype(VECS[kind]))
    elif kind in BINS:
        opened = _open_bin(path, np.dtype(BINS[kind]))
    elif kind == ".npy":
        opened = _open_npy(path)
    elif kind == ".mat":
        opened = containers.open_mat(path, dataset)
    elif kind == ".parquet":
        opened = containers.open_parquet(path, dataset)
    elif kind in CONTAINERS:
        opened = containers.open_hdf5(path, dataset)
    else:
        x = parse_idx(read_bytes(path), path)
        # labels have rank 1, no rows have no d: the check below refuses both
        opened = containers.in_memory(x.reshape(len(x), -1) if x.ndim > 1 and x.size else x)
    shape, dtype, read, view = opened
    _check_array(path, shape, dtype)

    def read_rows(start: int, stop: int) -> np.ndarray:
        if not 0 <= start <= stop <= shape[0]:
            raise ValueError(f"{path}: rows {start} to {stop} of {shape[0]}")
        return read(start, stop)

    return Vectors(path, shape, dtype.newbyteorder("="), read_rows, view)


def load(v: Vectors, dtype=np.float32) -> np.ndarray:
    """All rows, `[n, d]` in `dtype`, read in blocks: no second whole copy exists."""
    x = np.empty(v.shape, dtype)
    for start, stop in _blocks(v.shape, v.dtype.itemsize):
        x[start:stop] = v.read(start, stop)
    return x


def as_array(v: Vectors) -> np.ndarray:
    """All rows, `[n, d]` in `v.dtype`, not to be written to.

    A memory-mapped view for the raw formats: fvecs gives a strided one, and is read once to
    check the d of every row, without keeping the pages. Other formats are loaded.
    """
    return v.view() if v.view else load(v, v.dtype)


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
    _check_array(path, shape, dtype)
    kind = _format(path)
    if kind not in (*VECS, *BINS, ".npy"):
        raise BadInput(f"{path}: {kind} cannot be written; use .npy, {', '.join((*VECS, *BINS))}")
    held = np.dtype({**VECS, **BINS}.get(kind, dtype))
    if held != dtype:
        raise ValueError(f"{path}: {kind} holds {held}, got dtype={dtype}")
    record = _record(d, dtype, kind in VECS)
    partial = path.with_name(f"{path.name}.partial{os.getpid()}")
    try:
        with partial.open("wb") as f:
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
            f.flush()
            os.fsync(f.fileno())
        os.replace(partial, path)
    except OSError as e:
        raise BadInput(
            f"{path}: cannot be written ({e.strerror}); free space or choose another directory"
        ) from e
    finally:
        partial.unlink(missing_ok=True)


def _format(path: Path) -> str:
    """The key of the path's format in KNOWN; "idx" for all names of idx."""
    # big-ann names the first rows of a file `base.1B.fbin.crop_nb_10000000`
    name = re.sub(r"\.crop_nb_\d+$", "", path.name)
    if name.removesuffix(".gz").endswith(("-ubyte", ".idx")):
        return "idx"
    suffix = Path(name).suffix
    if suffix in KNOWN:
        return suffix
    hint = "unpack it with gunzip" if suffix == ".gz" else f"expected one of {' '.join(KNOWN)}"
    raise BadInput(f"{path}: no known format of vectors by its name; {hint}")


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as f:
            start = f.read(256)
    except IsADirectoryError as e:
        raise BadInput(f"{path}: is a directory; name a file in it") from e
    except OSError as e:
        raise BadInput(
            f"{path}: cannot be read ({e.strerror}); check the path and its permissions"
        ) from e
    if not start:
        raise BadInput(f"{path}: is empty; get it again")
    if _WEB_PAGE.match(start):
        raise BadInput(f"{path}: is a web page ({start[:15]!r}), the download failed; get it again")
    if start.startswith(_LFS_POINTER):
        raise BadInput(f"{path}: is a Git LFS pointer, not the file; get it with git lfs pull")


def _check_array(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if dtype.kind not in "iuf":
        raise BadInput(f"{path}: holds {dtype}, expected integers or floats; convert it")
    if len(shape) != 2:
        raise BadInput(
            f"{path}: holds an array of shape {list(shape)}, expected [n, d]; reshape it"
        )
    if shape[0] < 1 or not 1 <= shape[1] <= MAX_DIM:
        raise BadInput(
            f"{path}: n={shape[0]} rows of d={shape[1]}, expected n >= 1 and d in 1..{MAX_DIM}; "
            "check that its name fits its format, or get it again"
        )


def _open_vecs(path: Path, dtype: np.dtype) -> Opened:
    size = path.stat().st_size
    with path.open("rb") as f:
        d = int.from_bytes(f.read(4), "little", signed=True)
    _check_array(path, (1, d), dtype)
    record = _record(d, dtype, True)
    n, rest = divmod(size, record.itemsize)
    if rest:
        raise BadInput(
            f"{path}: {size} bytes are {n} rows of {record.itemsize} (d={d}) and {rest} bytes; "
            "the file is cut off or of another format, get it again"
        )
    return _records(path, n, record, 0)


def _open_bin(path: Path, dtype: np.dtype) -> Opened:
    with path.open("rb") as f:
        header = f.read(8)
    if len(header) < 8:
        raise BadInput(f"{path}: {len(header)} bytes, its header alone needs 8; get it again")
    n, d = struct.unpack("<II", header)
    _check_array(path, (n, d), dtype)
    return _whole_records(path, n, _record(d, dtype, False), 8)


def _open_npy(path: Path) -> Opened:
    with path.open("rb") as f, reading_as("npy", path):
        version = np.lib.format.read_magic(f)
        if version == (1, 0):
            shape, by_column, dtype = np.lib.format.read_array_header_1_0(f)
        else:
            shape, by_column, dtype = np.lib.format.read_array_header_2_0(f)
        offset = f.tell()
    _check_array(path, shape, dtype)
    if by_column:
        raise BadInput(
            f"{path}: is stored by columns, so rows cannot be read alone; "
            "save it with np.save(path, np.ascontiguousarray(x))"
        )
    return _whole_records(path, shape[0], _record(shape[1], dtype, False), offset)


def _record(d: int, dtype: np.dtype, numbered: bool) -> np.dtype:
    """One row: its values "x", behind its dimension "d" if numbered."""
    return np.dtype([("d", "<i4")] * numbered + [("x", dtype, (d,))])


def _whole_records(path: Path, n: int, record: np.dtype, offset: int) -> Opened:
    """`_records` of a file whose header says n: the size must agree."""
    size, expected = path.stat().st_size, offset + n * record.itemsize
    if size != expected:
        raise BadInput(
            f"{path}: {size} bytes, but its header, {n} rows of {record.itemsize} bytes, needs "
            f"{expected}; the file is cut off or damaged, get it again"
        )
    return _records(path, n, record, offset)


def _records(path: Path, n: int, record: np.dtype, offset: int) -> Opened:
    stored, (d,) = record["x"].subdtype
    native = stored.newbyteorder("=")

    def read(start: int, stop: int) -> np.ndarray:
        # not through a memory map: its pages would stay resident
        with reading_as("rows", path):
            rows = np.fromfile(path, record, stop - start, offset=offset + start * record.itemsize)
        if len(rows) < stop - start:
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
            for start, stop in _blocks((n, d), stored.itemsize):
                read(start, stop)
        return np.memmap(path, record, "r", offset, (n,))["x"]

    return Opened((n, d), native, read, view if stored.isnative else None)


def _blocks(shape: tuple[int, int], item_bytes: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of blocks of rows of about `_BLOCK_BYTES`."""
    rows = max(1, _BLOCK_BYTES // (shape[1] * item_bytes))
    return ((start, min(start + rows, shape[0])) for start in range(0, shape[0], rows))
