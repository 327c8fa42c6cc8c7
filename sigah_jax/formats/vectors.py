"""Files of feature vectors: rows of an `[n, d]` array, read as they are asked for.

The format follows from the name, in upper or lower case: one of `raw`, HDF5, MAT, Parquet, or idx
(`-ubyte`, `.idx`, both also `.gz`).

Shapes: n rows, d columns.

Not responsible for the bytes of a format (`raw`, `hdf5`, `parquet`, `idx`), NaN
(`data.row_checks`) nor for what the rows are used for.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from sigah_jax.errors import BadInput
from sigah_jax.files.regular import check_memory, fingerprint, open_regular
from sigah_jax.formats import hdf5, raw
from sigah_jax.formats.idx import parse_idx, read_bytes
from sigah_jax.formats.opened import in_memory
from sigah_jax.formats.parquet import open_parquet
from sigah_jax.formats.raw import BINS, VECS, check_array, extension, row_blocks

CONTAINERS = (".hdf5", ".h5", ".mat", ".parquet")
KNOWN = (*VECS, *BINS, ".npy", "-ubyte[.gz]", ".idx[.gz]", *CONTAINERS)

# four bytes of either text read as a d far above raw.MAX_DIM: no real file is taken for them
_WEB_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|\?xml)", re.IGNORECASE)
_ZIP = b"PK\x03\x04"
_LFS_POINTER = b"version https://git-lfs"


class Vectors(NamedTuple):
    """A file of vectors that was opened: what it holds and how to get at it."""

    path: Path
    shape: tuple[int, int]  # (n, d), n >= 1, 1 <= d <= raw.MAX_DIM
    dtype: np.dtype  # integers or floats, native byte order
    read: Callable[[int, int], np.ndarray]  # (start, stop) -> a new [stop - start, d] array
    view: Callable[[], np.ndarray] | None  # () -> [n, d], not a copy; see `as_array`
    file: BinaryIO | None  # all reads are of this open file; None for a Lance data set


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
    f = open_regular(path)
    check_start(f, path)
    kind = _format(path)
    if dataset and kind not in CONTAINERS:
        raise BadInput(f"{path}: {kind} files hold one array, without a name; leave :{dataset} out")
    if kind in VECS:
        opened = raw.open_vecs(f, path, np.dtype(VECS[kind]))
    elif kind in BINS:
        opened = raw.open_bin(f, path, np.dtype(BINS[kind]))
    elif kind == ".npy":
        opened = raw.open_npy(f, path)
    elif kind == ".mat":
        opened = hdf5.open_mat(f, path, dataset)
    elif kind == ".parquet":
        opened = open_parquet(f, path, dataset)
    elif kind in CONTAINERS:
        opened = hdf5.open_hdf5(f, path, dataset)
    else:
        x = parse_idx(read_bytes(f, path), path)
        # labels have rank 1, no rows have no d: the check below refuses both
        opened = in_memory(x.reshape(len(x), -1) if x.ndim > 1 and x.size else x)
    shape, dtype, read, view = opened
    check_array(path, shape, dtype)

    def read_rows(start: int, stop: int) -> np.ndarray:
        if not 0 <= start <= stop <= shape[0]:
            raise ValueError(f"{path}: rows {start} to {stop} of {shape[0]}")
        return read(start, stop)

    return Vectors(path, shape, dtype.newbyteorder("="), read_rows, view, f)


def read_file(name: str) -> np.ndarray:
    """The rows of a file, memory-mapped where its format allows."""
    return as_array(open_file(name))


def open_file(name: str) -> Vectors:
    """`open_vectors` of a file, or of one array inside it: `~/my.hdf5:train`."""
    name = os.path.expanduser(name)
    path = name
    while not Path(path).exists() and ":" in path[1:]:  # both names may hold colons
        path = path.rpartition(":")[0]
    path = path if Path(path).exists() else name
    if name[len(path) :] == ":":
        raise BadInput(f"{name}: names no array after the colon; name one, or leave the colon out")
    return open_vectors(Path(path), name[len(path) + 1 :])


def load(v: Vectors, dtype=np.float32) -> np.ndarray:
    """All rows, `[n, d]` in `dtype`, read in blocks: no second whole copy exists."""
    check_memory(v.path, v.shape[0] * v.shape[1] * np.dtype(dtype).itemsize)
    x = np.empty(v.shape, dtype)
    for start, stop in row_blocks(v.shape, v.dtype.itemsize):
        x[start:stop] = v.read(start, stop)
    return x


def as_array(v: Vectors) -> np.ndarray:
    """All rows, `[n, d]` in `v.dtype`, not to be written to.

    A memory-mapped view for the raw formats: fvecs gives a strided one, and is read once to
    check the d of every row, without keeping the pages. Other formats are loaded.
    """
    return v.view() if v.view else load(v, v.dtype)


def check_unchanged(v: Vectors, then: dict) -> None:
    """Raises BadInput if `v.path` names another file now, or its fingerprint is not `then`."""
    try:
        same = os.path.samestat(v.path.stat(), os.fstat(v.file.fileno()))
    except OSError:
        same = False
    if not same or fingerprint(v.file) != then:
        what = "has changed" if same else "was removed or replaced by another file"
        raise BadInput(f"{v.path}: {what} while it was in use; leave it as it is and start again")


def _format(path: Path) -> str:
    """The key of the path's format in KNOWN; "idx" for all names of idx."""
    if path.name.lower().removesuffix(".gz").endswith(("-ubyte", ".idx")):
        return "idx"
    suffix = extension(path)
    if suffix in KNOWN:
        return suffix
    hint = "unpack it with gunzip" if suffix == ".gz" else f"expected one of {' '.join(KNOWN)}"
    raise BadInput(f"{path}: no known format of vectors by its name; {hint}")


def check_start(f: BinaryIO, path: Path) -> None:
    """Refuses what a failed download leaves; the file is read from its start again."""
    start = f.read(256)
    f.seek(0)
    if not start:
        raise BadInput(f"{path}: is empty; get it again")
    if start.startswith(_ZIP) and extension(path) == ".npy":
        raise BadInput(f"{path}: is an .npz archive; write the one array of it with np.save")
    if _WEB_PAGE.match(start):
        raise BadInput(f"{path}: is a web page ({start[:15]!r}), the download failed; get it again")
    if start.startswith(_LFS_POINTER):
        raise BadInput(f"{path}: is a Git LFS pointer, not the file; get it with git lfs pull")
