import gzip
import shutil

import numpy as np
import pytest

from sigah_jax import config as base
from sigah_jax.data import cache, datasets, mnist
from sigah_jax.errors import BadInput


def test_embedded_mnist_is_the_official_one():
    images, labels = mnist.load_images(), mnist.load_labels()
    assert images.shape == (70000, 784) and images.dtype == np.uint8
    # the official counts of the digit 0: 5,923 of 60,000 and 980 of 10,000
    assert (labels[:60000] == 0).sum() == 5923 and (labels[60000:] == 0).sum() == 980


@pytest.mark.parametrize("damage, words", [("cut", "damaged gzip"), ("changed", "md5")])
def test_damaged_files_are_named(tmp_path, damage, words):
    name = "t10k-labels-idx1-ubyte.gz"
    for source in mnist.DIRECTORY.glob("*-labels-*.gz"):
        shutil.copy(source, tmp_path)
    data = (tmp_path / name).read_bytes()
    changed = gzip.compress(gzip.decompress(data)[:-1] + b"\x63")
    (tmp_path / name).write_bytes(data[:100] if damage == "cut" else changed)
    with pytest.raises(BadInput, match=words) as e:
        mnist.load_labels(tmp_path)
    assert name in str(e.value)


def test_split_keeps_queries_out_of_the_base_and_validation_out_of_training():
    data = base.get_config().data
    data.queries, data.val_queries = 10, 5
    x = np.arange(100, dtype=np.float32)[:, None]
    got = datasets.split(x, data)
    assert [len(v) for v in (got.xt, got.xv, got.xb, got.xq)] == [85, 5, 90, 10]
    assert sorted(np.concatenate([got.xt, got.xv, got.xq])[:, 0]) == list(range(100))
    np.testing.assert_array_equal(np.sort(np.concatenate([got.xt, got.xv]), 0), np.sort(got.xb, 0))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_named(value):
    x = np.zeros((200, 3), np.float32)
    x[123, 1] = value
    with pytest.raises(BadInput, match="row 123 "):
        datasets.check_finite(x, "x", block_rows=50)


def test_cache_computes_once_and_again_for_other_input(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return np.arange(3)

    for inputs in ([np.zeros(2), 1], [np.zeros(2), 1], [np.zeros(2), 2], [np.ones(2), 1]):
        np.testing.assert_array_equal(cache.cached(tmp_path, "a", inputs, compute), [0, 1, 2])
    assert len(calls) == 3 and len(list(tmp_path.iterdir())) == 3
