"""Arrays on disk under a hash of what they were computed from.

Not responsible for when they are stale: another input is another name.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from sigah_jax import locks, whole
from sigah_jax.errors import BadInput

BLOCK_ROWS = 8192


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
        The array, memory-mapped. The file appears whole or not at all. Of processes that want it
        at the same time one computes it, if the file system has locks.

    Raises:
        BadInput: the directory cannot be made, written or read.
    """
    path = directory / f"{name}-{content_hash(inputs)}.npy"
    if not path.exists():
        with _using(directory):
            directory.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            if not path.exists():  # another process may have made it meanwhile
                array = compute()
                with _using(directory), whole.writing(path) as f:
                    np.save(f, array)
    with _using(directory):
        return np.load(path, mmap_mode="r")


@contextlib.contextmanager
def _using(directory: Path) -> Iterator[None]:
    """Turns what the disk says into BadInput."""
    try:
        yield
    except OSError as e:
        raise BadInput(
            f"{directory}: cannot be used for ground truth and graphs ({e.strerror or e}); free "
            "space, or name a directory that can be written, as --cache or --workdir"
        ) from e


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Waits for the lock `<path>.lock`, and removes its file at the end.

    Without locks in the file system this does not wait. A killed process leaves the file, which
    the next one takes and removes.
    """
    name = path.with_name(f"{path.name}.lock")
    while True:
        with _using(path.parent):
            f = locks.open_file(name)
        try:
            # False: whoever had the lock removed its file, and a third process may hold another
            if locks.take(f, name, wait=True):
                break
        except BadInput:  # no locks: two processes may compute the same, and each file is whole
            break
        f.close()
    try:
        yield
    finally:
        name.unlink(missing_ok=True)
        f.close()
