"""The idx format of MNIST: big-endian header, then the elements, row-major; `.gz` or plain.

Not responsible for what the arrays mean.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from sigah_jax.errors import BadInput

# third byte of the magic number -> element type
_DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked if its name ends in `.gz`.

    Raises:
        BadInput: the file is missing, unreadable or a damaged gzip.
    """
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix.lower() == ".gz" else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise BadInput(f"{path}: damaged gzip file ({e}); get it again") from e
    except OSError as e:
        raise BadInput(f"{path}: cannot be read ({e.strerror}); check --config.data") from e


def parse_idx(data: bytes, path: Path) -> np.ndarray:
    """The array that the bytes of an idx file hold, in native byte order.

    Args:
        data: whole unpacked content.
        path: only for messages.

    Raises:
        BadInput: no idx header, or a length that does not fit it.
    """
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _DTYPES:
        raise BadInput(f"{path}: not an idx file (starts with {data[:4]!r}); get it again")
    dtype, rank = np.dtype(_DTYPES[data[2]]), data[3]
    start = 4 + 4 * rank
    if len(data) < start:
        raise BadInput(f"{path}: the idx header is cut off; get it again")
    shape = [int(n) for n in np.frombuffer(data, ">u4", rank, 4)]
    expected = start + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise BadInput(
            f"{path}: {len(data)} bytes, but its header {shape} needs {expected}; get it again"
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
