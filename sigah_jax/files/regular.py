"""A file that is read: opened once, so that all that is read of it is one content.

Whatever happens to its path meanwhile, an open file keeps the content that it was opened with.

Not responsible for formats (`raw`, `hdf5`, `idx`).
"""

import hashlib
import os
import stat
import weakref
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sigah_jax.errors import BadInput

_DEFLATE_RATIO = 1032  # zlib packs nothing more tightly
_SAMPLES, _SAMPLE_BYTES = 66, 4096  # of `fingerprint`


def open_regular(path: Path) -> BinaryIO:
    """Opens a file; it closes when nothing refers to it any more.

    Raises:
        BadInput: there is none, it may not be read, or it is a directory, FIFO, socket or device.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise BadInput(f"{path}: is a directory; name a file in it")
        if not stat.S_ISREG(mode):  # opening a FIFO would wait for a writer
            raise BadInput(f"{path}: is a FIFO, socket or device; copy what it gives into a file")
        fd = os.open(path, os.O_RDONLY)
    except OSError as e:
        raise BadInput(
            f"{path}: cannot be read ({e.strerror}); check the path and its permissions"
        ) from e
    f = open(fd, "rb", closefd=False)  # noqa: SIM115
    weakref.finalize(f, os.close, fd)
    return f


def name_of(f: BinaryIO) -> str:
    """A path by which a library opens the content of `f`, wherever the path of `f` points now."""
    return f"/dev/fd/{f.fileno()}"


def check_unpacked(path: Path, wanted: int, packed: int) -> None:
    """Raises BadInput if a header asks for more bytes than `packed` bytes can unpack to.

    A few megabytes can ask for more than any memory holds; and of values that were never
    written, HDF5 makes up as many as its header names.
    """
    if wanted > _DEFLATE_RATIO * packed:
        raise BadInput(
            f"{path}: its header names {wanted} bytes of values, but {packed} stored bytes cannot "
            "unpack to so many; the file was not written to its end or is damaged, get it again"
        )


def check_memory(path: Path, wanted: int) -> None:
    """Raises BadInput if no array of so many bytes fits into the memory of this machine."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if wanted > memory:
        raise BadInput(
            f"{path}: its values need {wanted / 2**30:.1f} GiB of memory, and this machine has "
            f"{memory / 2**30:.1f} GiB; take fewer rows, or a machine with more"
        )


def read_into(x: np.ndarray, f: BinaryIO, offset: int) -> bool:
    """Fills `x` with the bytes at `offset`; False if the file ends before.

    Threads and processes may share `f`, because its position is not used.
    """
    left = memoryview(x.view(np.uint8))
    while len(left) and (got := os.preadv(f.fileno(), [left], offset)):
        left, offset = left[got:], offset + got
    return not len(left)


def fingerprint(f: BinaryIO) -> dict:
    """What tells an opened file from a changed one, for JSON.

    Returns:
        {"bytes": its size, "modified_ns": time of its last change, "content": SHA-256 of its
        first and last 4 KiB and of 64 blocks evenly between them}.
    """
    fd = f.fileno()
    file, content = os.fstat(fd), hashlib.sha256()
    last = max(0, file.st_size - _SAMPLE_BYTES)
    for i in range(_SAMPLES):
        content.update(os.pread(fd, _SAMPLE_BYTES, last * i // (_SAMPLES - 1)))
    return {
        "bytes": file.st_size,
        "modified_ns": file.st_mtime_ns,
        "content": content.hexdigest(),
    }
