"""CIFAR files built by hand, whole and damaged; the official ones where they are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest

from sigah_jax.data import cifar
from sigah_jax.errors import BadInput

PIXELS = 3 * 32 * 32
ALL = (*cifar.CIFAR10, *cifar.CIFAR100)
COMMAND = "python -m sigah_jax.data.download cifar"


def write_files(directory, rows=2):
    """All eight files: row i over all of them has label bytes 1 and 3072 pixels of value i."""
    i = 0
    for part in ALL:
        path = directory / part.path
        path.parent.mkdir(exist_ok=True)
        content = b""
        for _ in range(rows):
            content += b"\1" * len(part.classes) + bytes([i]) * PIXELS
            i += 1
        path.write_bytes(content)


def test_images_come_in_the_order_of_the_files_without_their_labels(tmp_path):
    write_files(tmp_path)
    x = cifar.load_images(tmp_path)
    assert x.shape == (16, 32, 32, 3) and x.dtype == np.uint8
    np.testing.assert_array_equal(x, np.arange(16)[:, None, None, None] * np.ones((32, 32, 3)))
    np.testing.assert_array_equal(cifar.load_images(tmp_path, cifar.CIFAR10), x[:12])


def test_a_row_is_a_plane_of_red_of_green_of_blue(tmp_path):
    write_files(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, PIXELS).astype(np.uint8)
    (tmp_path / "cifar-100-binary/test.bin").write_bytes(b"\x13\x63" + pixels.tobytes())
    image = cifar.load_images(tmp_path)[-1]
    # green (plane 1) of row 5, column 7
    assert image[5, 7, 1] == pixels[1024 + 5 * 32 + 7]
    np.testing.assert_array_equal(image.transpose(2, 0, 1).ravel(), pixels)


def test_grey_is_the_mean_of_the_colours():
    x = np.array([[[[255, 255, 255], [0, 1, 0]]]], np.uint8)
    got = cifar.grey(x)
    assert got.dtype == np.float32 and got.shape == (1, 1, 2)
    np.testing.assert_allclose(got, [[[255, 1 / 3]]], rtol=1e-6)


@pytest.mark.parametrize("part", [cifar.CIFAR10[2], cifar.CIFAR10[5], cifar.CIFAR100[0]])
@pytest.mark.parametrize(
    "content, words",
    [
        (None, "cannot be read .No such file"),
        ("directory", "is a directory"),
        (b"", "is empty"),
        (b"\0" * (PIXELS - 1), f"{PIXELS - 1} bytes are not a whole number of rows"),
        (b"\n<!DOCTYPE html><title>404</title>", "is a web page"),
        # a whole number of rows of either layout, but a label that no class has
        (b"\1" * 3074 * 3073 + b"\xff" * 3074 * 3073, "has label"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, part, content, words):
    write_files(tmp_path)
    path = tmp_path / part.path
    path.unlink()
    if content == "directory":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=words) as e:
        cifar.load_images(tmp_path)
    message = str(e.value)
    assert str(path) in message and COMMAND in message and "\n" not in message


def test_a_missing_directory_is_said(tmp_path):
    with pytest.raises(BadInput, match=r"looked for cifar-10-batches-bin/data_batch_1.bin in"):
        cifar.load_images(tmp_path / "nowhere")


def test_the_official_files():
    directory = Path(os.environ.get("SIGAH_DATA", "data")) / "cifar"
    if not all((directory / part.path).exists() for part in ALL):
        pytest.skip(f"the CIFAR files are not in {directory}; {cifar.REMEDY}")
    x = cifar.load_images(directory)
    assert len(x) == 120_000
    # the means of the training images that everyone normalises by
    for start, want in [(0, (0.4914, 0.4822, 0.4465)), (60_000, (0.5071, 0.4865, 0.4409))]:
        mean = x[start : start + 50_000].mean((0, 1, 2), dtype=np.float64) / 255
        np.testing.assert_allclose(mean, want, atol=1e-4)
