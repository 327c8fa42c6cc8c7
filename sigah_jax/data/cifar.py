"""CIFAR-10 and CIFAR-100, binary versions: 120,000 colour images of 32 × 32.

Labelled subsets of the withdrawn 80 Million Tiny Images (Krizhevsky, Learning Multiple Layers of
Features from Tiny Images, 2009; format: www.cs.toronto.edu/~kriz/cifar.html).

Shapes: n images.

Not responsible for getting the files: `download`. Labels are read as a check and dropped.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sigah_jax.errors import BadInput
from sigah_jax.files.regular import open_regular
from sigah_jax.formats.vectors import check_start

SIDE = 32
REMEDY = "run python -m sigah_jax.data.download cifar"


class Part(NamedTuple):
    """A file: its place in the directory and the number of classes of each label byte of a row."""

    path: str
    classes: tuple[int, ...]


CIFAR10 = tuple(
    Part(f"cifar-10-batches-bin/{name}.bin", (10,))
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
)
# a coarse label, then a fine one
CIFAR100 = tuple(Part(f"cifar-100-binary/{name}.bin", (20, 100)) for name in ("train", "test"))


def load_images(directory: Path, parts: Sequence[Part] = (*CIFAR10, *CIFAR100)) -> np.ndarray:
    """The images of all parts, in the order of the files: `[n, 32, 32, 3] u1`, red, green, blue.

    n follows from the lengths of the files; all eight official ones hold 120,000 images.

    Args:
        directory: holds `cifar-10-batches-bin/` and `cifar-100-binary/`.

    Raises:
        BadInput: a file is missing, unreadable, cut off within a row, or something else.
    """
    return np.concatenate([_read(Path(directory), part) for part in parts])


def grey(images: np.ndarray) -> np.ndarray:
    """Grey values as LMgist takes them: the plain mean of red, green and blue, not rounded.

    Args:
        images: `[n, S, S, 3] u1`.

    Returns:
        `[n, S, S] f32`, from 0 to 255.
    """
    return images.sum(axis=-1, dtype=np.float32) / np.float32(3)


def _read(directory: Path, part: Part) -> np.ndarray:
    """`[n, 32, 32, 3] u1`; a row is the label bytes, then a plane of red, of green, of blue."""
    path = directory / part.path
    try:
        f = open_regular(path)
        check_start(f, path)
    except BadInput as e:
        raise BadInput(f"{e}; looked for {part.path} in {directory}, {REMEDY}") from e
    data = f.read()
    labels = len(part.classes)
    row_bytes = labels + 3 * SIDE * SIDE
    if not data or len(data) % row_bytes:
        raise BadInput(
            f"{path}: {len(data)} bytes are not a whole number of rows of {row_bytes}; "
            f"the file is cut off or another one, remove it and {REMEDY}"
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, row_bytes)
    wrong = (rows[:, :labels] >= part.classes).any(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise BadInput(
            f"{path}: row {row} has label {rows[row, :labels].tolist()}, expected less than "
            f"{list(part.classes)}; the file is damaged, remove it and {REMEDY}"
        )
    return rows[:, labels:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
