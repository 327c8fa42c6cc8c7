"""Arrays on disk under a hash of what they were computed from.

Not responsible for when they are stale: another input is another name.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sigah_jax import whole

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
        The array, memory-mapped. The file appears whole or not at all.
    """
    path = directory / f"{name}-{content_hash(inputs)}.npy"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        with whole.writing(path) as f:
            np.save(f, compute())
    return np.load(path, mmap_mode="r")
