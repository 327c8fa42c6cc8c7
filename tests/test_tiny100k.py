"""The substitute for Tiny100K from small made-up CIFAR files, its cache, and MAT files."""

import jax
import numpy as np
import pytest
from scipy import io

from sigah_jax.data import cifar, tiny100k
from sigah_jax.data.gist import DIMS, gist
from sigah_jax.errors import BadInput

SMALL = {"rows": 12, "images": 16}


@pytest.fixture
def root(tmp_path):
    """A data root whose `cifar/` holds eight files of two images of noise each."""
    generator = np.random.default_rng(0)
    for part in (*cifar.CIFAR10, *cifar.CIFAR100):
        path = tmp_path / "cifar" / part.path
        path.parent.mkdir(parents=True, exist_ok=True)
        labels = np.zeros((2, len(part.classes)), np.uint8)
        pixels = generator.integers(0, 256, (2, 3072)).astype(np.uint8)
        path.write_bytes(np.hstack([labels, pixels]).tobytes())
    return tmp_path


def load(root, **changes):
    return tiny100k.load_tiny100k(root / "tiny100k", root / "cifar", **SMALL | changes)


def test_the_substitute_is_the_gist_of_the_drawn_images(root):
    x, _ = load(root)
    assert x.shape == (12, DIMS) and x.dtype == np.float32 and isinstance(x, np.memmap)
    # in the order of the files, none twice
    drawn = tiny100k.draw(16, 12)
    assert (np.diff(drawn) > 0).all() and len(drawn) == 12 and drawn[-1] <= 15
    grey = cifar.grey(cifar.load_images(root / "cifar"))
    np.testing.assert_allclose(x, jax.jit(gist)(grey[drawn]), atol=1e-6)
    assert [path.name for path in (root / "tiny100k").iterdir()] == [tiny100k.CACHE]


def test_the_draw_stays_as_it_was_published():
    # every number on the substitute hangs on these: they change only with a new name
    drawn = tiny100k.draw(120_000, 100_000)
    assert (drawn[:5].tolist(), int(drawn.sum())) == ([0, 1, 2, 3, 5], 5_991_560_578)


def test_several_chunks_give_the_same(root, monkeypatch):
    want = np.array(load(root)[0])
    (root / "tiny100k" / tiny100k.CACHE).unlink()
    monkeypatch.setattr(tiny100k, "_CHUNK", 5)
    np.testing.assert_allclose(load(root)[0], want, atol=1e-6)


def test_the_cache_is_read_even_without_cifar(root):
    want = np.array(load(root)[0])
    (root / "cifar").rename(root / "away")
    np.testing.assert_array_equal(load(root)[0], want)


def test_it_says_that_it_is_a_substitute(root, capsys):
    for said in ("computing a substitute", ""):
        _, origin = load(root)
        assert "a substitute for the withdrawn Tiny Images" in origin
        out = capsys.readouterr().out
        assert said in out and bool(said) == bool(out)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_computation_leaves_nothing(root, monkeypatch, error):
    calls = []

    def make_failing():
        def describe(images):
            calls.append(len(images))
            if len(calls) == 2:
                raise error
            return np.zeros((len(images), DIMS), np.float32)

        return describe

    with monkeypatch.context() as patched:
        patched.setattr(tiny100k, "make_gist", make_failing)
        patched.setattr(tiny100k, "_CHUNK", 5)
        with pytest.raises(error):
            load(root)
    assert calls == [5, 5] and not list((root / "tiny100k").iterdir())
    assert load(root)[0].std() > 0  # not the zeros


def test_the_real_one_demands_all_images(root):
    with pytest.raises(BadInput, match=r"hold 16 images, expected 120000; .*download cifar"):
        tiny100k.load_tiny100k(root / "tiny100k", root / "cifar")
    assert not (root / "tiny100k").exists()


def test_missing_cifar_is_named(root):
    (root / "cifar" / "cifar-100-binary" / "test.bin").unlink()
    with pytest.raises(BadInput, match=r"test.bin: cannot be read .No such file.*download cifar"):
        load(root)


def test_a_directory_that_cannot_be_made_is_named(root):
    (root / "tiny100k").write_text("a file")
    with pytest.raises(BadInput, match="tiny100k: cannot be made"):
        load(root)


@pytest.mark.parametrize("shape", [(11, DIMS), (12, DIMS - 1)])
def test_a_cache_of_another_shape_is_refused(root, shape):
    (root / "tiny100k").mkdir()
    np.save(root / "tiny100k" / tiny100k.CACHE, np.zeros(shape, np.float32))
    with pytest.raises(BadInput, match=r"cifar_gist384.npy: holds .*; remove it"):
        load(root)


@pytest.mark.parametrize("name", ["Tiny100k.mat", "TINY100K.mat"])
def test_a_mat_file_goes_first(root, name):
    load(root)
    x = np.random.default_rng(1).random((12, DIMS))
    io.savemat(root / "tiny100k" / name, {"X": x, "other": np.zeros((3, 3))})
    got, origin = load(root)
    assert got.dtype == np.float32 and origin == str(root / "tiny100k" / name)
    np.testing.assert_array_equal(got, x.astype(np.float32))


def test_a_mat_file_of_columns_is_refused(root):
    (root / "tiny100k").mkdir()
    io.savemat(root / "tiny100k" / "Tiny100k.mat", {"X": np.zeros((DIMS, 12))})
    with pytest.raises(BadInput, match=r"holds \[384, 12\], expected \[12, 384\]; write"):
        load(root)
