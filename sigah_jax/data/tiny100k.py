"""Tiny100K: 384-d GIST of 100,000 tiny images, or its substitute.

Tiny100K is drawn from 80 Million Tiny Images, which its authors withdrew in 2020; no public file
of it is left. Without a `Tiny100k.mat` of the reader's own, 100,000 of the 120,000 images of
CIFAR-10 and CIFAR-100 stand in: labelled subsets of the same collection, but of 110 classes
only. Numbers on the substitute are not numbers on Tiny100K.

Not responsible for NaN (`row_checks.check_finite`) nor for getting files: `download`.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sigah_jax.data import cifar
from sigah_jax.data.gist import DIMS, make_gist
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.formats import raw, vectors

ROWS = 100_000
CIFAR_IMAGES = 120_000
SEED = 0  # of the draw of the images

# not named by a hash of its inputs, as `cache` does: it must load where CIFAR is not at hand,
# and CIFAR is published once and for all
CACHE = "cifar_gist384.npy"
_CHUNK = 4096  # images between two moves of the bar


def load_tiny100k(
    directory: Path,
    cifar_directory: Path,
    rows: int = ROWS,
    images: int = CIFAR_IMAGES,
) -> tuple[np.ndarray, str]:
    """The vectors: from a MAT file, else the substitute from its cache, else computed and cached.

    Args:
        directory: where `Tiny100k.mat`, in upper or lower case, is looked for, its matrix X
            `[rows, 384]`, and where the substitute is cached.
        cifar_directory: of the CIFAR files, see `cifar.load_images`; read only to compute.
        rows: vectors to return; images: those that CIFAR must hold. Smaller in tests only.

    Returns:
        `[rows, 384] f32`, not to be written to, and where it is from, for people: it says so
        when it is the substitute. That one is a memory map, in the order of the CIFAR files.

    Raises:
        BadInput: a file is missing, damaged or of another size, or the cache cannot be written.
    """
    directory = Path(directory)
    if mat := _find_mat(directory):
        return _read(mat, rows, "write its matrix X as one row an image"), str(mat)
    path = directory / CACHE
    if not path.exists():
        _build(path, Path(cifar_directory), rows, images)
    origin = f"{path}: GIST of {rows} CIFAR images, a substitute for the withdrawn Tiny Images"
    return _read(path, rows, "remove it, it will be made again"), origin


def draw(images: int, rows: int) -> np.ndarray:
    """Which images are taken, `[rows] i64`, ascending: the same ones always."""
    return np.sort(np.random.default_rng(SEED).permutation(images)[:rows])


def _find_mat(directory: Path) -> Path | None:
    found = (path for path in directory.glob("*") if path.name.lower() == "tiny100k.mat")
    return min(found, default=None)


def _read(path: Path, rows: int, remedy: str) -> np.ndarray:
    opened = vectors.open_vectors(path)
    if opened.shape != (rows, DIMS):
        raise BadInput(f"{path}: holds {list(opened.shape)}, expected [{rows}, {DIMS}]; {remedy}")
    return vectors.as_array(opened).astype(np.float32, copy=False)


def _build(path: Path, cifar_directory: Path, rows: int, images: int) -> None:
    """Computes the substitute; the file at `path` appears whole or not at all."""
    x = cifar.load_images(cifar_directory)
    if len(x) != images:
        raise BadInput(
            f"{cifar_directory}: the CIFAR files hold {len(x)} images, expected {images}; "
            f"one is cut off, remove them and {cifar.REMEDY}"
        )
    with whole.telling(path.parent, "choose another directory", "cannot be made"):
        path.parent.mkdir(parents=True, exist_ok=True)
    tqdm.write(
        f"tiny100k: no Tiny100k.mat in {path.parent}, Tiny Images was withdrawn; computing a "
        f"substitute, GIST of {rows} of {images} CIFAR images, into {path.name}"
    )
    blocks = _descriptors(x, draw(images, rows))
    raw.write_vectors(path, (rows, DIMS), np.float32, blocks)


def _descriptors(x: np.ndarray, chosen: np.ndarray) -> Iterator[np.ndarray]:
    describe = make_gist()
    # disable=None: no bar where stderr is not a terminal
    with tqdm(total=len(chosen), desc="GIST", unit="image", disable=None) as bar:
        for start in range(0, len(chosen), _CHUNK):
            block = describe(cifar.grey(x[chosen[start : start + _CHUNK]]))
            yield block
            bar.update(len(block))
