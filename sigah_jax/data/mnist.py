"""MNIST, embedded in the package: 70,000 digits of 28 x 28 grey values.

Source and licence are beside the files, in `mnist/README.md`.

Not responsible for splits: `datasets`.
"""

import hashlib
from pathlib import Path

import numpy as np

from sigah_jax.errors import BadInput
from sigah_jax.files.regular import open_regular
from sigah_jax.formats.idx import parse_idx, read_bytes

DIRECTORY = Path(__file__).parent / "mnist"
SIDE = 28

# md5 of the unpacked files
MD5 = {
    "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
    "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
}


def load_images(directory: Path = DIRECTORY) -> np.ndarray:
    """All images, the 60,000 official training images first: `[70000, 784] u1`, 0 to 255."""
    parts = [_load(directory, f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k")]
    return np.concatenate(parts).reshape(-1, SIDE * SIDE)


def _load(directory: Path, name: str) -> np.ndarray:
    path = directory / name
    data = read_bytes(open_regular(path), path)
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if md5 != MD5[name]:
        raise BadInput(
            f"{path}: md5 of the unpacked content is {md5}, expected {MD5[name]}; "
            "the file is damaged, install the package again"
        )
    return parse_idx(data, path)
