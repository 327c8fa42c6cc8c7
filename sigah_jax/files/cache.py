"""Arrays on disk under a hash of what they were computed from, with a hash of their content.

Not responsible for when they are stale: another input is another name.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sigah_jax.errors import BadInput
from sigah_jax.files import locks, whole
from sigah_jax.process import streams

BLOCK_ROWS = 8192
HASH_BYTES = 16  # of `content_hash`, in ASCII


def content_hash(parts: Sequence[np.ndarray | str | int]) -> str:
    """16 hex digits of BLAKE2b over the dtype, shape and bytes of every part."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            for start in range(0, len(part), BLOCK_ROWS):  # a memory map is not read whole
                digest.update(np.ascontiguousarray(part[start : start + BLOCK_ROWS]).data)
        else:
            digest.update(f"{type(part).__name__}{part}".encode())
    return digest.hexdigest()


def cached(
    directory: Path,
    name: str,
    inputs: Sequence[np.ndarray | str | int],
    compute: Callable[[], np.ndarray],
) -> np.ndarray:
    """The array at `directory/name-<hash of inputs>.npy`, computed and written if missing.

    Args:
        inputs: all that the result depends on; `name` stands for the code that computes it.

    Returns:
        The array, memory-mapped. The file appears whole or not at all, and ends with a hash of the
        bytes before, which is compared whenever it is read: a file that is damaged, or has no hash,
        is computed again, and a line says so. Of processes that want it at the same time one
        computes it, if the file system has locks.

    Raises:
        BadInput: the directory is a bucket, or cannot be made, written or read.
    """
    whole.check_on_disk(directory)
    path = directory / f"{name}-{content_hash(inputs)}.npy"
    with _using(directory):
        if (array := _read(path)) is not None:
            return array
        directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        # without locks two processes may compute the same, and each file is whole
        with _using(directory), contextlib.suppress(BadInput):
            stack.enter_context(locks.held(path.with_name(f"{path.name}.lock")))
            for left in directory.glob(f"{path.name}.partial-*"):  # only we write it now
                left.unlink(missing_ok=True)
        with _using(directory):
            if (array := _read(path)) is not None:  # another process has made it meanwhile
                return array
            if path.exists():
                streams.show(f"{path}: damaged, or without a hash; it is computed again")
        array = np.ascontiguousarray(compute())
        with _using(directory), whole.writing(path) as f:
            # by `np.save` a full disk has no errno
            about = np.lib.format.header_data_from_array_1_0(array)
            np.lib.format.write_array_header_1_0(f, about)
            f.write(array.data)
            f.write(content_hash([array]).encode())
    with _using(directory):
        return np.load(path, mmap_mode="r")


def _read(path: Path) -> np.ndarray | None:
    """The array of a file of `cached`, memory-mapped; None if it is missing or damaged."""
    try:
        with path.open("rb") as f:
            f.seek(-min(HASH_BYTES, path.stat().st_size), os.SEEK_END)
            held = f.read().decode(errors="replace")
    except FileNotFoundError:
        return None
    try:
        array = np.load(path, mmap_mode="r")  # passes over what comes after the array
    except Exception:  # on damaged bytes numpy raises nearly anything
        return None
    return array if content_hash([array]) == held else None


def _using(directory: Path) -> contextlib.AbstractContextManager:
    """Turns what the disk says into BadInput."""
    remedy = "free space, or name a directory that can be written, as --cache or --workdir"
    return whole.telling(directory, remedy, "cannot be used for ground truth and graphs")
