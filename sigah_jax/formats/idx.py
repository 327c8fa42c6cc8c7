"""The idx format of MNIST: big-endian header, then the elements, row-major; `.gz` or plain.

Not responsible for what the arrays mean.
"""

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sigah_jax.errors import BadInput
from sigah_jax.files.regular import check_memory, check_unpacked

# third byte of the magic number -> element type
_DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_bytes(f: BinaryIO, path: Path) -> bytes:
    """The content of an idx file, unpacked if its name ends in `.gz`.

    At most one byte more than its header names is read: a small `.gz` may unpack to gigabytes.

    Raises:
        BadInput: no idx header, one that names more than the file or the memory can hold, or a
            damaged gzip.
    """
    unpacked = gzip.GzipFile(fileobj=f) if path.suffix.lower() == ".gz" else f
    try:
        head = unpacked.read(4)
        head += unpacked.read(4 * head[3] if len(head) == 4 else 0)
        _, _, size = _parse_header(head, path)
        check_unpacked(path, size, os.fstat(f.fileno()).st_size)
        check_memory(path, size)
        return head + unpacked.read(size - len(head) + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise BadInput(f"{path}: damaged gzip file ({e}); get it again") from e
    except OSError as e:
        raise BadInput(f"{path}: cannot be read ({e.strerror}); check the disk") from e


def parse_idx(data: bytes, path: Path) -> np.ndarray:
    """The array that the bytes of an idx file hold, in native byte order.

    Args:
        data: unpacked content, as `read_bytes` returns it.
        path: only for messages.

    Raises:
        BadInput: no idx header, or a length that does not fit it.
    """
    dtype, shape, size = _parse_header(data, path)
    if len(data) != size:
        found = "more" if len(data) > size else f"{len(data)} bytes"
        raise BadInput(
            f"{path}: its header {shape} needs {size} bytes, but it holds {found}; get it again"
        )
    try:
        x = np.frombuffer(data, dtype, offset=4 + 4 * len(shape)).reshape(shape)
    except ValueError as e:  # too many dimensions
        raise BadInput(f"{path}: holds no array that can be used ({e}); get it again") from e
    return x.astype(dtype.newbyteorder("="))


def _parse_header(data: bytes, path: Path) -> tuple[np.dtype, list[int], int]:
    """(dtype, shape, bytes of the whole file)."""
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _DTYPES:
        raise BadInput(f"{path}: not an idx file (starts with {data[:4]!r}); get it again")
    dtype, rank = np.dtype(_DTYPES[data[2]]), data[3]
    start = 4 + 4 * rank
    if len(data) < start:
        raise BadInput(f"{path}: the idx header is cut off; get it again")
    shape = [int(n) for n in np.frombuffer(data, ">u4", rank, 4)]
    return dtype, shape, start + math.prod(shape) * dtype.itemsize
